// Strips of rows of a narrow matrix: kRows rows, two registers of numbers, column after column. And how they come from
// rows, and become rows.
#pragma once

#include "gram/transpose.hpp"
#include "gram/view.hpp"

namespace {

template <class Number, int kVectorBytes>
struct Strips {
    static constexpr Index kColumns = kVectorBytes / static_cast<Index>(sizeof(Number));  // at a time
    static constexpr Index kRows = 2 * kColumns;

    // `width` columns of a strip, kColumns at most, from rows of that many numbers, `stride` apart.
    static void put_rows(const Number* rows, Index stride, Index width, Number* columns) {
        alignas(64) Number square[kColumns * kColumns];
        for (Index r = 0; r < kRows; r += kColumns) {
            if (width == kColumns) {
                SquareTranspose<Number, kColumns>::run(rows + r * stride, stride, columns + r, kRows);
                continue;
            }
            SquareTranspose<Number, kColumns>::run(rows + r * stride, stride, square, kColumns);
            for (Index c = 0; c < width; ++c)
                for (Index i = 0; i < kColumns; ++i) columns[c * kRows + r + i] = square[c * kColumns + i];
        }
    }

    // And back, to rows of kColumns numbers; columns that are missing are zeros.
    static void get_rows(const Number* columns, Index width, Number* rows, Index stride) {
        alignas(64) Number square[kColumns * kColumns] = {};
        for (Index r = 0; r < kRows; r += kColumns) {
            if (width == kColumns) {
                SquareTranspose<Number, kColumns>::run(columns + r, kRows, rows + r * stride, stride);
                continue;
            }
            for (Index c = 0; c < width; ++c)
                for (Index i = 0; i < kColumns; ++i) square[c * kColumns + i] = columns[c * kRows + r + i];
            SquareTranspose<Number, kColumns>::run(square, kColumns, rows + r * stride, stride);
        }
    }
};

}  // namespace
