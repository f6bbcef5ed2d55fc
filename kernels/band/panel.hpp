// Tall, narrow float64 matrices ("panels") and the four things the reduction does with them, one block of rows at a
// time: inner products, triangular solves, products with small matrices, access to single elements.
//
// A panel is stored in blocks of kBlock rows; element (r, c) lies at
// data[r / kBlock * cols * kBlock + c * kBlock + r % kBlock], so that every operation runs over vectors of rows.
// The number of columns is a multiple of 8 (padding columns are zeros). Small matrices are row-major, cols x cols.
#pragma once

#include "cpu/scratch.hpp"
#include "gram/transpose.hpp"
#include "gram/view.hpp"

namespace {

template <int kVectorBytes>
class Panel {
  public:
    typedef double Vector __attribute__((vector_size(kVectorBytes)));
    static constexpr Index kLanes = kVectorBytes / static_cast<Index>(sizeof(double));
    static constexpr Index kVectors = 4;
    static constexpr Index kBlock = kVectors * kLanes;
    static constexpr Index kColumns = kVectorBytes >= 64 ? 4 : 2;  // columns at a time, as registers allow

    Panel(Index rows, Index cols) : cols_(cols), data_((rows + kBlock - 1) / kBlock * kBlock * cols) {}

    Index cols() const { return cols_; }
    double* block(Index index) const { return data_.data() + index * cols_ * kBlock; }
    double& at(Index row, Index col) const { return block(row / kBlock)[col * kBlock + row % kBlock]; }

    // Between kWidth columns of a block and kBlock rows of kWidth numbers; kWidth is a multiple of kLanes.
    template <Index kWidth>
    static void put_rows(const double* rows, double* columns) {
        for (Index r = 0; r < kBlock; r += kLanes)
            for (Index c = 0; c < kWidth; c += kLanes)
                SquareTranspose<double, kLanes>::run(rows + r * kWidth + c, kWidth, columns + c * kBlock + r, kBlock);
    }
    template <Index kWidth>
    static void get_rows(const double* columns, double* rows) {
        for (Index c = 0; c < kWidth; c += kLanes)
            for (Index r = 0; r < kBlock; r += kLanes)
                SquareTranspose<double, kLanes>::run(columns + c * kBlock + r, kBlock, rows + r * kWidth + c, kWidth);
    }

    // sums(i, j) += sum over the rows of blocks [begin, end) of left(., i) right(., j), for i >= j (and a few above).
    static void add_inner_products(const Panel& left, const Panel& right, Index begin, Index end, double* sums) {
        add_products<true>(left, right, 0, begin, end, sums);
    }

    // The same for all i and j, or half of them; the rows of `right` that belong to these begin with block `offset`.
    template <bool kHalf>
    static void add_products(const Panel& left, const Panel& right, Index offset, Index begin, Index end,
                             double* sums) {
        const Index cols = right.cols_;
        for (Index i = 0; i < left.cols_; i += 4) {
            for (Index j = 0; j < (kHalf ? i + 4 : cols); j += kColumns) {
                Vector sum[4][kColumns] = {};
                for (Index n = begin; n < end; ++n) {
                    const Vector* x = vectors(left.block(n) + i * kBlock);
                    const Vector* y = vectors(right.block(offset + n) + j * kBlock);
                    for (Index v = 0; v < kVectors; ++v) {
#pragma GCC unroll 4
                        for (Index p = 0; p < 4; ++p) {
#pragma GCC unroll 4
                            for (Index q = 0; q < kColumns; ++q) sum[p][q] += x[p * kVectors + v] * y[q * kVectors + v];
                        }
                    }
                }
                for (Index p = 0; p < 4; ++p) {
                    for (Index q = 0; q < kColumns; ++q) {
                        double total = 0;
                        for (Index lane = 0; lane < kLanes; ++lane) total += sum[p][q][lane];
                        sums[(i + p) * cols + j + q] += total;
                    }
                }
            }
        }
    }

    // Block <- block * upper^-1, upper triangular.
    void solve(Index index, const double* upper) const {
        for (Index j = 0; j < cols_; j += kColumns) {
            Vector* x = vectors(block(index) + j * kBlock);
            Vector sum[kColumns][kVectors];
#pragma GCC unroll 4
            for (Index q = 0; q < kColumns; ++q)
#pragma GCC unroll 4
                for (Index v = 0; v < kVectors; ++v) sum[q][v] = -x[q * kVectors + v];
            accumulate(block(index), upper + j, 0, j, sum);
#pragma GCC unroll 4
            for (Index q = 0; q < kColumns; ++q) {
                const double* row = upper + (j + q) * cols_ + j;
                const double inverse = -1.0 / row[q];
#pragma GCC unroll 4
                for (Index v = 0; v < kVectors; ++v) {
                    x[q * kVectors + v] = sum[q][v] * inverse;
#pragma GCC unroll 4
                    for (Index p = q + 1; p < kColumns; ++p) sum[p][v] += x[q * kVectors + v] * row[p];
                }
            }
        }
    }

    // Block of `to` <- block * upper + block of other * square; upper is triangular, `to` is neither panel.
    void combine(Index index, const double* upper, const Panel& other, const double* square, const Panel& to) const {
        for (Index j = 0; j < cols_; j += kColumns) {
            Vector sum[kColumns][kVectors] = {};
            accumulate(block(index), upper + j, 0, j + kColumns, sum);
            accumulate(other.block(index), square + j, 0, cols_, sum);
            Vector* z = vectors(to.block(index) + j * kBlock);
#pragma GCC unroll 4
            for (Index q = 0; q < kColumns; ++q)
#pragma GCC unroll 4
                for (Index v = 0; v < kVectors; ++v) z[q * kVectors + v] = sum[q][v];
        }
    }

    // Block += block of other * factor, which has as many columns as this.
    void add_multiple(Index index, const Panel& other, Index other_index, const double* factor) const {
        for (Index j = 0; j < cols_; j += kColumns) {
            Vector sum[kColumns][kVectors] = {};
            accumulate(other.block(other_index), factor + j, 0, other.cols_, sum);
            Vector* x = vectors(block(index) + j * kBlock);
#pragma GCC unroll 4
            for (Index q = 0; q < kColumns; ++q)
#pragma GCC unroll 4
                for (Index v = 0; v < kVectors; ++v) x[q * kVectors + v] += sum[q][v];
        }
    }

  private:
    static Vector* vectors(double* p) { return reinterpret_cast<Vector*>(p); }

    // sum(q, .) += sum over begin <= i < end of column i of the block times small(i, q).
    inline __attribute__((always_inline)) void accumulate(double* from, const double* small, Index begin, Index end,
                                                          Vector (&sum)[kColumns][kVectors]) const {
        for (Index i = begin; i < end; ++i) {
            const Vector* x = vectors(from + i * kBlock);
            const double* row = small + i * cols_;
#pragma GCC unroll 4
            for (Index q = 0; q < kColumns; ++q)
#pragma GCC unroll 4
                for (Index v = 0; v < kVectors; ++v) sum[q][v] += x[v] * row[q];
        }
    }

    Index cols_;
    Scratch<double> data_;
};

}  // namespace
