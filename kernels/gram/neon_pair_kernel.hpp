// The bfloat16 micro-kernel on NEON's BFMMLA, which adds the product of a 2 x 4 and a 4 x 2 block of bfloat16 to a
// 2 x 2 block of float32 sums: 8 x 8 entries of C in 16 registers.
//
// A register holds four neighbours along the depth of two rows, for the left operand as for the right one; so one
// packing serves both: pairs (gram/pack.hpp, pack_pairs), two and two of which are woven: the pair p of row r lies at
// strip[p / 2 * 2 * kStrip + 2 * r + p % 2]. The architecture rounds each addition of two products to odd and takes
// subnormal numbers as zero, as AVX512-BF16 does: what the rounding amounts to is measured on the matrix at hand.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "gram/pack.hpp"
#include "gram/view.hpp"

namespace {

struct NeonPairKernel {
    using Packed = std::uint32_t;
    using Sum = float;
    static constexpr Index kRows = 8;
    static constexpr Index kStrip = 8;
    static constexpr Index kDepthStep = 2;
    static constexpr bool kTwoPackings = false;

    struct Session {
        Session() {}
    };

    // C (8 x 8, contiguous) += or = A B, `depth` pairs, an even number.
    static constexpr Index kAheadBytes = 0;
    template <Index, bool kFirst>
    static inline void multiply_strips(Index depth, const Packed* a, const Packed* b, float* c, const char*) {
        float32x4_t sum[4][4] = {};  // [i][j]: rows 2 i and 2 i + 1, columns 2 j and 2 j + 1
        for (Index k = 0; k < depth; k += kDepthStep) {
            bfloat16x8_t left[4], right[4];
#pragma GCC unroll 4
            for (Index i = 0; i < 4; ++i) {
                left[i] = vreinterpretq_bf16_u32(vld1q_u32(a + k * kStrip + 4 * i));
                right[i] = vreinterpretq_bf16_u32(vld1q_u32(b + k * kStrip + 4 * i));
            }
#pragma GCC unroll 4
            for (Index i = 0; i < 4; ++i)
#pragma GCC unroll 4
                for (Index j = 0; j < 4; ++j) sum[i][j] = vbfmmlaq_f32(sum[i][j], left[i], right[j]);
        }
        for (Index i = 0; i < 4; ++i) {
            for (Index j = 0; j < 4; j += 2) {
                float* even = c + 2 * i * kStrip + 2 * j;
                float* odd = even + kStrip;
                const float32x4_t low = vcombine_f32(vget_low_f32(sum[i][j]), vget_low_f32(sum[i][j + 1]));
                const float32x4_t high = vcombine_f32(vget_high_f32(sum[i][j]), vget_high_f32(sum[i][j + 1]));
                vst1q_f32(even, kFirst ? low : vaddq_f32(vld1q_f32(even), low));
                vst1q_f32(odd, kFirst ? high : vaddq_f32(vld1q_f32(odd), high));
            }
        }
    }
};

struct NeonPairPacker {
    static constexpr Index kColumns = 2;
    static constexpr Index kStrip = NeonPairKernel::kStrip;
    static Index depth(Index cols) { return (cols + 3) / 4 * 2; }
    static void pack(const MatrixView& view, Index row, Index col, Index depth, std::uint32_t*, std::uint32_t* strip) {
        pack_pairs<kStrip>(view, row, col, depth, strip);
        for (Index k = 0; k < depth; k += 2) {
            std::uint32_t* pairs = strip + k * kStrip;
            const uint32x4x2_t low{{vld1q_u32(pairs), vld1q_u32(pairs + kStrip)}};
            const uint32x4x2_t high{{vld1q_u32(pairs + 4), vld1q_u32(pairs + kStrip + 4)}};
            vst2q_u32(pairs, low);  // stores the two alternately
            vst2q_u32(pairs + kStrip, high);
        }
    }
};

}  // namespace
