// The sweep on bfloat16 matrix units, to float32 accuracy: every float32 x is split into high = bf16(x) and
// low = bf16(x - high), and a product is high high + high low + low high, summed in float32.
//
// Same steps and interface as Sweep; the matrix itself stays float32. Operands are held in pairs along the depth
// (gram/pack.hpp), 32 rows a strip, in squares of 16 pairs (512 elements). A right operand has its pairs in order,
// square[p * 32 + r]; a left one too, or, for a kernel with two packings, square[r * 16 + p] (gram/tile_kernel.hpp).
#pragma once

#include <cstdint>

#include "band/panel.hpp"
#include "band/sums.hpp"
#include "band/tiles.hpp"
#include "band/vectors.hpp"
#include "cpu/scratch.hpp"
#include "gram/pack.hpp"
#include "gram/transpose.hpp"
#include "gram/view.hpp"

namespace {

using Pair = std::uint32_t;
constexpr Index kSquare = 512;  // 32 rows x 16 pairs

// To nearest even; the numbers here are finite.
inline std::uint32_t round_to_bfloat16(float x) {
    const std::uint32_t bits = bit_copy<std::uint32_t>(x);
    return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

inline std::uint32_t low_part(float x, std::uint32_t high) {
    return round_to_bfloat16(x - bit_copy<float>(high << 16));
}

// The two parts of a square.
struct SquareParts {
    Pair* high;
    Pair* low;
};

// 32 x 16 -> 16 x 32, and back.
inline void transpose_square(const Pair* from, Pair* to) {
    SquareTranspose<Pair, 16>::run(from, 16, to, 32);
    SquareTranspose<Pair, 16>::run(from + 16 * 16, 16, to + 16, 32);
}
inline void transpose_back(const Pair* from, Pair* to) {
    SquareTranspose<Pair, 16>::run(from, 32, to, 16);
    SquareTranspose<Pair, 16>::run(from + 16, 32, to + 16 * 16, 16);
}

// A 32 x 32 block of floats (32 to a row) as two left operands: itself (depth along its rows), and transposed.
template <bool kTwoPackings>
void split_left(const float* block, const SquareParts& plain, const SquareParts& transposed) {
    alignas(64) std::uint32_t high[32][32], low[32][32];
    for (Index r = 0; r < 32; ++r) {
        for (Index c = 0; c < 32; ++c) {
            high[r][c] = round_to_bfloat16(block[r * 32 + c]);
            low[r][c] = low_part(block[r * 32 + c], high[r][c]);
        }
    }
    alignas(64) Pair rows_high[kSquare], rows_low[kSquare], cols_high[kSquare], cols_low[kSquare];
    for (Index r = 0; r < 32; ++r) {
        for (Index p = 0; p < 16; ++p) {
            rows_high[r * 16 + p] = high[r][2 * p] | high[r][2 * p + 1] << 16;
            rows_low[r * 16 + p] = low[r][2 * p] | low[r][2 * p + 1] << 16;
        }
    }
    for (Index p = 0; p < 16; ++p) {
        for (Index c = 0; c < 32; ++c) {
            cols_high[p * 32 + c] = high[2 * p][c] | high[2 * p + 1][c] << 16;
            cols_low[p * 32 + c] = low[2 * p][c] | low[2 * p + 1][c] << 16;
        }
    }
    if constexpr (kTwoPackings) {
        std::memcpy(plain.high, rows_high, sizeof(rows_high));
        std::memcpy(plain.low, rows_low, sizeof(rows_low));
        transpose_back(cols_high, transposed.high);
        transpose_back(cols_low, transposed.low);
    } else {
        transpose_square(rows_high, plain.high);
        transpose_square(rows_low, plain.low);
        std::memcpy(transposed.high, cols_high, sizeof(cols_high));
        std::memcpy(transposed.low, cols_low, sizeof(cols_low));
    }
}

template <class Kernel, int kVectorBytes>
class SplitSweep {
  public:
    using Number = float;
    using Tall = Panel<kVectorBytes>;
    using Vectors = UpdateVectors<float, kVectorBytes>;
    using Session = typename Kernel::Session;
    static constexpr Index kStrip = Kernel::kStrip, kBlock = Vectors::kRows;
    static_assert(kStrip == 32 && 32 % kBlock == 0);
    using Tiles = TriangleTiles<float, kStrip>;

    SplitSweep(const Tiles& tiles, Index cols, int threads)
        : tiles_(tiles),
          cols_(cols),
          strips_((cols + kStrip - 1) / kStrip),
          rows_(tiles.blocks() * tiles.edge()),
          squares_(tiles.edge() / 32),
          vectors_(rows_, cols, threads),
          left_{Scratch<Pair>(vector_pairs()), Scratch<Pair>(vector_pairs())},
          right_{Scratch<Pair>(vector_pairs()), Scratch<Pair>(vector_pairs())},
          factor_(vector_pairs() / 2),
          split_(threads * 4 * squares_ * squares_ * kSquare),
          sums_(rows_, cols, kStrip, threads) {}

    static Index choose_edge(Index size) { return size <= 2048 ? 64 : 96; }

    // Products take tiles as a whole.
    Index first_row(Index begin) const { return begin / tiles_.edge() * tiles_.edge(); }

    void set_v(Index set, Index row, const double* block) const {
        vectors_.set_v(row, block);
        for (Index r = row; r < row + Tall::kBlock; r += kBlock) {
            set_vectors(set, r, vectors_.v(r), 0);
            set_factor(r, vectors_.v(r));
        }
    }

    void set_x(Index, Index row, Index end, Index begin, double* inner) const {
        vectors_.set_x(row, end, begin, sums_, inner);
    }

    void set_z(Index set, Index row, Index end, const double* t, const double* s) const {
        vectors_.finish(row, end, t, s);
        for (Index r = row; r < end; r += kBlock) set_vectors(set, r, vectors_.z(r), 1);
    }

    void update(Index set, Index block_row, Index block_col, Index begin) const {
        const Index edge = tiles_.edge(), before = begin - block_col * edge;
        for (Index c = before > 0 ? before / kStrip * kStrip : 0; c < edge; c += kStrip)
            update_strip(set, block_row * edge, (block_row + 1) * edge, block_col * edge + c, begin);
    }

    // Rows [row, end) of a tile's strip -= V_I Z_J^T + Z_I V_J^T: the left operands are negated, and their counterparts
    // lie crosswise. Products take tiles as a whole: also above the diagonal.
    void update_strip(Index set, Index row, Index end, Index col, Index) const {
        const Index depth = strips_ * 16, part = depth * kStrip;
        const Pair* right = right_[set].data() + col / kStrip * 4 * part;
        const Pair *v_right = right, *z_right = right + 2 * part;
        const Index top = col / tiles_.edge() * tiles_.edge();
        for (Index r = row < top ? top : row; r < end; r += kStrip) {
            const Pair* v = left_[set].data() + r / kStrip * 4 * part;
            const Pair* z = v + 2 * part;
            const Pair* a[] = {v + part, v, z + part, z, v, z};
            const Pair* const b[] = {z_right, z_right + part, v_right, v_right + part, z_right, v_right};
            multiply_terms<6>(depth, a, b, tiles_.column(r, col));
        }
    }

    void multiply(Index block_row, Index block_col, Index, int thread) const {
        const Index edge = tiles_.edge(), depth = edge / 2, part = squares_ * squares_ * kSquare;
        const float* tile = tiles_.tile(block_row, block_col);
        Pair *plain = split_.data() + thread * 4 * part, *transposed = plain + 2 * part;
        for (Index c = 0; c < squares_; ++c) {
            for (Index r = 0; r < squares_; ++r) {
                const Index at = (r * squares_ + c) * kSquare, across = (c * squares_ + r) * kSquare;
                split_left<Kernel::kTwoPackings>(tile + c * edge * kStrip + r * 32 * kStrip,
                                                 {plain + at, plain + at + part},
                                                 {transposed + across, transposed + across + part});
            }
        }
        for (Index q = 0; q < strips_; ++q) {
            const Pair* high = factor_.data() + q * rows_ * kStrip;
            float* sums = sums_.strip(thread, q);
            add_product(depth, plain, high, block_col, sums, block_row);
            if (block_row != block_col) add_product(depth, transposed, high, block_row, sums, block_col);
        }
    }

    void clear(int thread, Index begin) const { sums_.clear(thread, begin); }

  private:
    // V and Z, high and low, all rows, columns rounded up to whole strips.
    Index vector_pairs() const { return rows_ * 4 * strips_ * 16; }

    static void put_pair(float even, float odd, Pair* high, Pair* low) {
        const std::uint32_t e = round_to_bfloat16(even), o = round_to_bfloat16(odd);
        *high = e | o << 16;
        *low = low_part(even, e) | low_part(odd, o) << 16;
    }

    // One strip (32 x 32 of C) += the sum of the products of these operands, each `depth` pairs deep.
    template <Index kCount>
    static void multiply_terms(Index depth, const Pair* (&a)[kCount], const Pair* const (&b)[kCount], float* c) {
        for (Index r = 0; r < kStrip; r += Kernel::kRows) {
            Kernel::multiply_terms(kCount, depth, a, b, c + r * kStrip);
            for (const Pair*& left : a) left += Kernel::kRows;  // one strip of rows is one packing
        }
    }

    // X of tile row `to` += split tile times V of tile row `from`.
    void add_product(Index depth, const Pair* split, const Pair* high, Index from, float* sums, Index to) const {
        const Index edge = tiles_.edge(), part = squares_ * squares_ * kSquare;
        const Pair *v = high + from * edge / 2 * kStrip, *v_low = v + rows_ / 2 * kStrip;
        for (Index s = 0; s < squares_; ++s) {
            const Pair* x = split + s * squares_ * kSquare;
            const Pair *a[] = {x + part, x, x}, *const b[] = {v, v_low, v};
            multiply_terms<3>(depth, a, b, sums + (to * edge + s * 32) * kStrip);
        }
    }

    // Rows [row, row + kBlock) of V as the right operand of A V: pairs along the rows, a strip for each 32 columns of
    // V, high and then low.
    void set_factor(Index row, const float* block) const {
        for (Index q = 0; q < strips_; ++q) {
            Pair* high = factor_.data() + (2 * q * rows_ + row) / 2 * kStrip;
            Pair* low = high + rows_ / 2 * kStrip;
            for (Index c = 0; c < kStrip; ++c) {
                const Index col = q * kStrip + c;
                for (Index r = 0; r < kBlock; r += 2) {
                    const float even = col < cols_ ? block[col * kBlock + r] : 0.0F;
                    const float odd = col < cols_ ? block[col * kBlock + r + 1] : 0.0F;
                    put_pair(even, odd, high + r / 2 * kStrip + c, low + r / 2 * kStrip + c);
                }
            }
        }
    }

    // Rows [row, row + kBlock) of V (which = 0) or Z (1) as operands of the update; the left one is negated.
    void set_vectors(Index set, Index row, const float* block, Index which) const {
        const Index part = strips_ * kSquare, offset = row / kStrip * 4 * part + 2 * which * part;
        Pair *right = right_[set].data() + offset, *left = left_[set].data() + offset;
        for (Index p = 0; p < strips_ * 16; ++p) {
            for (Index i = 0; i < kBlock; ++i) {
                const Index r = row % kStrip + i;
                const bool there = 2 * p < cols_;  // cols is even
                const float even = there ? block[2 * p * kBlock + i] : 0.0F;
                const float odd = there ? block[(2 * p + 1) * kBlock + i] : 0.0F;
                put_pair(even, odd, right + p * kStrip + r, right + part + p * kStrip + r);
                const Index at = Kernel::kTwoPackings ? p / 16 * kSquare + r * 16 + p % 16 : p * kStrip + r;
                put_pair(-even, -odd, left + at, left + part + at);
            }
        }
    }

    const Tiles& tiles_;
    Index cols_, strips_, rows_, squares_;
    Vectors vectors_;
    Scratch<Pair> left_[2], right_[2], factor_, split_;
    ThreadSums<float, kVectorBytes> sums_;
};

}  // namespace
