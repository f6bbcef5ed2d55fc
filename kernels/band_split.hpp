// The sweep on bfloat16 matrix units, to float32 accuracy: every float32 x is split into high = bf16(x) and
// low = bf16(x - high), and a product is high high + high low + low high, summed in float32.
//
// Same steps and interface as Sweep; the matrix itself stays float32. Operands are held in pairs along the depth
// (gemm_pack.hpp), 32 rows a strip, in squares of 16 pairs (512 elements). A right operand has its pairs in order,
// square[p * 32 + r]; a left one too, or, for a kernel with two packings, square[r * 16 + p] (gemm_amx.hpp).
#pragma once

#include <cstdint>

#include "band_panel.hpp"
#include "band_tiles.hpp"
#include "gemm_memory.hpp"
#include "gemm_pack.hpp"
#include "gemm_view.hpp"

namespace {

using Pair = std::uint32_t;
constexpr Index kSquare = 512;  // 32 rows x 16 pairs

// To nearest even; the numbers here are finite.
inline std::uint32_t round_to_bfloat16(float x) {
    const std::uint32_t bits = bit_copy<std::uint32_t>(x);
    return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

inline std::uint32_t low_part(float x, std::uint32_t high) { return round_to_bfloat16(x - bit_copy<float>(high << 16)); }

// The two parts of a square.
struct SquareParts {
    Pair* high;
    Pair* low;
};

// 32 x 16 -> 16 x 32.
inline void transpose_square(const Pair* from, Pair* to) {
    for (Index p = 0; p < 16; ++p)
        for (Index r = 0; r < 32; ++r) to[p * 32 + r] = from[r * 16 + p];
}

// 16 x 32 -> 32 x 16.
inline void transpose_back(const Pair* from, Pair* to) {
    for (Index r = 0; r < 32; ++r)
        for (Index p = 0; p < 16; ++p) to[r * 16 + p] = from[p * 32 + r];
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
    using Session = typename Kernel::Session;
    static constexpr Index kStrip = Kernel::kStrip, kBlock = Tall::kBlock;
    static_assert(kStrip == 32 && 32 % kBlock == 0);
    using Tiles = TriangleTiles<float, kStrip>;

    SplitSweep(const Tiles& tiles, Index cols, int threads)
        : tiles_(tiles), cols_(cols), strips_((cols + kStrip - 1) / kStrip), rows_(tiles.blocks() * tiles.edge()),
          squares_(tiles.edge() / 32), left_{Scratch<Pair>(vector_pairs()), Scratch<Pair>(vector_pairs())},
          right_{Scratch<Pair>(vector_pairs()), Scratch<Pair>(vector_pairs())}, factor_(vector_pairs() / 2),
          split_(threads * 4 * squares_ * squares_ * kSquare), sums_(threads * rows_ * strips_ * kStrip) {}

    void exchange() { current_ = 1 - current_; }

    void set_v(Index row, const double* block) const {
        set_vectors(row, block, 0);
        // The right operand of A V: pairs along the rows, a strip for each 32 columns of V, high and then low.
        for (Index q = 0; q < strips_; ++q) {
            Pair* high = factor_.data() + (2 * q * rows_ + row) / 2 * kStrip;
            Pair* low = high + rows_ / 2 * kStrip;
            for (Index c = 0; c < kStrip; ++c) {
                const Index col = q * kStrip + c;
                for (Index r = 0; r < kBlock; r += 2) {
                    const float even = col < cols_ ? static_cast<float>(block[col * kBlock + r]) : 0.0F;
                    const float odd = col < cols_ ? static_cast<float>(block[col * kBlock + r + 1]) : 0.0F;
                    put_pair(even, odd, high + r / 2 * kStrip + c, low + r / 2 * kStrip + c);
                }
            }
        }
    }

    void set_z(Index row, const double* block) const { set_vectors(row, block, 1); }

    void clear(int thread, Index begin) const {
        for (Index q = 0; q < strips_; ++q) {
            float* sums = thread_sums(thread) + q * rows_ * kStrip;
            for (Index i = begin * kStrip; i < rows_ * kStrip; ++i) sums[i] = 0;
        }
    }

    // Tile -= V_I Z_J^T + Z_I V_J^T: the left operands are negated, and their counterparts lie crosswise.
    void update(Index block_row, Index block_col, bool last) const {
        const int set = last ? 1 - current_ : current_;
        const Index edge = tiles_.edge(), depth = strips_ * 16, part = depth * kStrip;
        float* tile = tiles_.tile(block_row, block_col);
        for (Index c = 0; c < edge; c += kStrip) {
            const Pair* right = right_[set].data() + (block_col * edge + c) / kStrip * 4 * part;
            for (Index r = 0; r < edge; r += kStrip) {
                const Pair* left = left_[set].data() + (block_row * edge + r) / kStrip * 4 * part;
                float* to = tile + c * edge + r * kStrip;
                for (Index which = 0; which < 2; ++which) {
                    const Pair *a = left + 2 * which * part, *b = right + 2 * (1 - which) * part;
                    multiply_split(depth, a, a + part, b, b + part, to);
                }
            }
        }
    }

    void multiply(Index block_row, Index block_col, int thread) const {
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
            float* sums = thread_sums(thread) + q * rows_ * kStrip;
            add_product(depth, plain, high, block_col, sums, block_row);
            if (block_row != block_col) add_product(depth, transposed, high, block_row, sums, block_col);
        }
    }

    void read_sums(Index row, Index begin, int threads, double* block) const {
        for (Index c = 0; c < cols_; ++c) {
            const Index offset = (c / kStrip * rows_ + row) * kStrip + c % kStrip;
            for (Index r = 0; r < kBlock; ++r) {
                double sum = 0;
                for (int t = 0; t < threads; ++t) sum += static_cast<double>(thread_sums(t)[offset + r * kStrip]);
                block[c * kBlock + r] = row + r < begin ? 0.0 : sum;
            }
        }
    }

  private:
    // V and Z, high and low, all rows, columns rounded up to whole strips.
    Index vector_pairs() const { return rows_ * 4 * strips_ * 16; }
    float* thread_sums(int thread) const { return sums_.data() + thread * rows_ * strips_ * kStrip; }

    static void put_pair(float even, float odd, Pair* high, Pair* low) {
        const std::uint32_t e = round_to_bfloat16(even), o = round_to_bfloat16(odd);
        *high = e | o << 16;
        *low = low_part(even, e) | low_part(odd, o) << 16;
    }

    // One strip (32 x 32 of C): the three products.
    static void multiply_split(Index depth, const Pair* a_high, const Pair* a_low, const Pair* b_high, const Pair* b_low,
                               float* c) {
        for (Index r = 0; r < kStrip; r += Kernel::kRows) {
            float* to = c + r * kStrip;
            Kernel::multiply_strips(depth, a_low + r, b_high, to);
            Kernel::multiply_strips(depth, a_high + r, b_low, to);
            Kernel::multiply_strips(depth, a_high + r, b_high, to);
        }
    }

    // X of tile row `to` += split tile times V of tile row `from`.
    void add_product(Index depth, const Pair* split, const Pair* high, Index from, float* sums, Index to) const {
        const Index edge = tiles_.edge(), part = squares_ * squares_ * kSquare;
        const Pair* b = high + from * edge / 2 * kStrip;
        for (Index s = 0; s < squares_; ++s) {
            const Pair* a = split + s * squares_ * kSquare;
            multiply_split(depth, a, a + part, b, b + rows_ / 2 * kStrip, sums + (to * edge + s * 32) * kStrip);
        }
    }

    // Rows [row, row + kBlock) of V (which = 0) or Z (1) as operands of the update; the left one is negated.
    void set_vectors(Index row, const double* block, Index which) const {
        const Index part = strips_ * kSquare, offset = row / kStrip * 4 * part + 2 * which * part;
        Pair *right = right_[current_].data() + offset, *left = left_[current_].data() + offset;
        for (Index p = 0; p < strips_ * 16; ++p) {
            for (Index i = 0; i < kBlock; ++i) {
                const Index r = row % kStrip + i;
                const bool there = 2 * p < cols_;  // cols is even
                const float even = there ? static_cast<float>(block[2 * p * kBlock + i]) : 0.0F;
                const float odd = there ? static_cast<float>(block[(2 * p + 1) * kBlock + i]) : 0.0F;
                put_pair(even, odd, right + p * kStrip + r, right + part + p * kStrip + r);
                const Index at = Kernel::kTwoPackings ? p / 16 * kSquare + r * 16 + p % 16 : p * kStrip + r;
                put_pair(-even, -odd, left + at, left + part + at);
            }
        }
    }

    const Tiles& tiles_;
    Index cols_, strips_, rows_, squares_;
    Scratch<Pair> left_[2], right_[2], factor_, split_;
    Scratch<float> sums_;
    int current_ = 0;
};

}  // namespace
