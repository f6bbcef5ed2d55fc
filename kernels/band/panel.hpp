// Tall, narrow float64 matrices ("panels") and the four things the reduction does with them, one block of rows at a
// time: inner products, triangular solves, products with small matrices, access to single elements.
//
// A panel is stored in blocks of kBlock rows; element (r, c) lies at data[r / kBlock * stride + c * kBlock + r %
// kBlock], so that every operation runs over vectors of rows, kVectors of them for a block. Numbers of type T are
// worked on in float64: products with small matrices in float32 would add two thirds to the rounding of the whole
// reduction. The number of columns is a multiple of 8 (padding columns are zeros). Small matrices are row-major, cols x
// cols.
#pragma once

#include "cpu/scratch.hpp"
#include "gram/transpose.hpp"
#include "gram/view.hpp"

namespace {

template <int kVectorBytes>
class Panel {
  public:
    static constexpr Index kLanes = kVectorBytes / static_cast<Index>(sizeof(double));
    static constexpr Index kVectors = 4;
    static constexpr Index kBlock = kVectors * kLanes;

    Panel(Index rows, Index cols)
        : cols_(cols), stride_(cols * kBlock), owned_((rows + kBlock - 1) / kBlock * stride_), data_(owned_.data()) {}

    // Columns [first, first + count) of this panel, in the same memory.
    Panel columns(Index first, Index count) const { return Panel(data_ + first * kBlock, count, stride_); }

    Index cols() const { return cols_; }
    double* block(Index index) const { return data_ + index * stride_; }
    double& at(Index row, Index col) const { return block(row / kBlock)[col * kBlock + row % kBlock]; }

    // sums(i, j) += sum over the rows of blocks [begin, end) of left(., i) right(., j), for i >= j (and a few above).
    static void add_inner_products(const Panel& left, const Panel& right, Index begin, Index end, double* sums) {
        add_products<true>(left, right, 0, begin, end, sums);
    }

    // The same for all i and j, or half of them; the rows of `right` that belong to these begin with block `offset`.
    template <bool kHalf>
    static void add_products(const Panel& left, const Panel& right, Index offset, Index begin, Index end,
                             double* sums) {
        constexpr Index across = kVectorBytes >= 64 ? 4 : 2, count = 4 * across;  // as registers allow
        static_assert(count % kLanes == 0);
        const Index cols = right.cols_;
        for (Index i = 0; i < left.cols_; i += 4) {
            for (Index j = 0; j < (kHalf ? i + 4 : cols); j += across) {
                Vector sum[count] = {};
                for (Index n = begin; n < end; ++n) {
                    const Vector *x = vectors(left.block(n) + i * kBlock),
                                 *y = vectors(right.block(offset + n) + j * kBlock);
                    for (Index v = 0; v < kVectors; ++v) {
#pragma GCC unroll 4
                        for (Index p = 0; p < 4; ++p) {
#pragma GCC unroll 4
                            for (Index q = 0; q < across; ++q)
                                sum[p * across + q] += x[p * kVectors + v] * y[q * kVectors + v];
                        }
                    }
                }
                alignas(64) double totals[count];
                for (Index k = 0; k < count; k += kLanes)
                    SquareTranspose<double, kLanes>::add(reinterpret_cast<const double*>(sum + k), totals + k);
                for (Index k = 0; k < count; ++k) sums[(i + k / across) * cols + j + k % across] += totals[k];
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

    // Block <- block * upper + block of other * other_upper, both triangular.
    void combine(Index index, const double* upper, const Panel& other, const double* other_upper) const {
        for (Index j = cols_ - kColumns; j >= 0; j -= kColumns) {  // no column is needed after its own turn
            Vector sum[kColumns][kVectors] = {};
            accumulate(block(index), upper + j, 0, j + kColumns, sum);
            accumulate(other.block(index), other_upper + j, 0, j + kColumns, sum);
            Vector* x = vectors(block(index) + j * kBlock);
#pragma GCC unroll 4
            for (Index q = 0; q < kColumns; ++q)
#pragma GCC unroll 4
                for (Index v = 0; v < kVectors; ++v) x[q * kVectors + v] = sum[q][v];
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
    static constexpr Index kColumns = kVectorBytes >= 64 ? 4 : 2;  // columns at a time, as registers allow

    typedef double Vector __attribute__((vector_size(kVectorBytes)));

    Panel(double* data, Index cols, Index stride) : cols_(cols), stride_(stride), data_(data) {}

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

    Index cols_, stride_;
    Scratch<double> owned_;
    double* data_;
};

}  // namespace
