// V and Z of a panel in the numbers of the matrix, as its update reads them: of each strip of rows the columns of V,
// then those of Z.
//
// Where Z will be stands X = A V before: Z = X T + V S, S from V^T X. Both are summed in float64, of numbers that are
// rounded already: in float32 they would add two thirds to the rounding of the whole reduction, and V^T X with a V that
// is not the one of the update a tenth.
#pragma once

#include "band/panel.hpp"
#include "band/strips.hpp"
#include "cpu/scratch.hpp"
#include "cpu/threads.hpp"
#include "gram/view.hpp"

namespace {

template <class Number, int kVectorBytes>
class UpdateVectors {
    using Tall = Panel<kVectorBytes>;
    static constexpr Index kBlock = Tall::kBlock;
    static constexpr Index kWide = 256;  // rows in float64 at a time, which stay in L2

  public:
    static constexpr Index kRows = Strips<Number, kVectorBytes>::kRows;

    UpdateVectors(Index rows, Index cols, int threads)
        : cols_(cols),
          data_(rows * 2 * cols),
          wide_(threads * kWide, 2 * cols),
          wide_v_(wide_.columns(0, cols)),
          wide_z_(wide_.columns(cols, cols)) {}

    // The columns of V, and of Z, of the strip with this row, kRows numbers each.
    Number* v(Index row) const { return data_.data() + row / kRows * 2 * cols_ * kRows; }
    Number* z(Index row) const { return v(row) + cols_ * kRows; }

    // Takes over rows [row, row + kBlock) of V, a block of a panel.
    void set_v(Index row, const double* block) const {
        for (Index r = 0; r < kBlock; r += kRows) narrow(block + r, v(row + r));
    }

    // Takes over rows [row, end) of X, zeros before row `begin`; inner += V^T X of them, its lower half.
    template <class Sums>
    void set_x(Index row, Index end, Index begin, const Sums& sums, double* inner) const {
        for (Index r = row; r < end; r += kRows) sums.read(r, begin, z(r));
        for_wide(row, end, [&](Index, Index first, Index count) {
            Tall::add_inner_products(wide_v_, wide_z_, first, first + count, inner);
        });
    }

    // X of rows [row, end) becomes Z = X T + V S; T is upper triangular.
    void finish(Index row, Index end, const double* t, const double* s) const {
        for_wide(row, end, [&](Index from, Index first, Index count) {
            for (Index i = 0; i < count; ++i) {
                wide_z_.combine(first + i, t, wide_v_, s);
                for (Index r = 0; r < kBlock; r += kRows)
                    narrow(wide_z_.block(first + i) + r, z(from + i * kBlock + r));
            }
        });
    }

  private:
    // Runs work(row, first block, count) over rows [row, end), some at a time, which are then in these blocks in
    // float64.
    template <class Work>
    void for_wide(Index row, Index end, const Work& work) const {
        const Index first = omp_get_thread_num() * kWide / kBlock;
        for (Index from = row; from < end; from += kWide) {
            const Index count = (end - from < kWide ? end - from : kWide) / kBlock;
            for (Index i = 0; i < count; ++i) {
                double* block = wide_.block(first + i);
                for (Index r = 0; r < kBlock; r += kRows) {
                    const Number* strip = v(from + i * kBlock + r);
                    for (Index c = 0; c < 2 * cols_; ++c)
                        for (Index k = 0; k < kRows; ++k)
                            block[c * kBlock + r + k] = static_cast<double>(strip[c * kRows + k]);
                }
            }
            work(from, first, count);
        }
    }

    // kRows rows of a block of a panel, rounded.
    void narrow(const double* block, Number* strip) const {
        for (Index c = 0; c < cols_; ++c)
            for (Index k = 0; k < kRows; ++k) strip[c * kRows + k] = static_cast<Number>(block[c * kBlock + k]);
    }

    Index cols_;
    Scratch<Number> data_;
    Tall wide_, wide_v_, wide_z_;
};

}  // namespace
