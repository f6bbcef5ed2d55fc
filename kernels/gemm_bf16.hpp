// The bfloat16 micro-kernel on AVX512-BF16: vdpbf16ps adds two products a lane to a float32 sum.
//
// Operands are packed in pairs along the depth (gemm_pack.hpp, pack_pairs); otherwise it is FmaKernel's twin, with the
// same strips and the same addressing.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "gemm_pack.hpp"
#include "gemm_view.hpp"

namespace {

struct PairKernel {
    using Packed = std::uint32_t;
    using Sum = float;
    static constexpr Index kRows = 8;
    static constexpr Index kLanes = 16;
    static constexpr Index kStrip = 32;
    static constexpr Index kDepthStep = 1;
    static constexpr bool kTwoPackings = false;

    struct Session {
        Session() {}
    };

    // C (kRows x kStrip, contiguous) += or -= sum over o < outer, k < inner of A(., o, k) B(o, k, .), counted in pairs;
    // operands are addressed as in FmaKernel::multiply.
    template <Index kRowStep, Index kDepth, bool kSubtract>
    static inline void multiply(Index outer, Index inner, const Packed* a, Index a_outer, const Packed* b, Index b_outer,
                                float* c) {
        __m512 sum[kRows][2];
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
        for (Index o = 0; o < outer; ++o) {
            const Packed* left = a + o * a_outer;
            const Packed* right = b + o * b_outer;
            for (Index k = 0; k < inner; ++k) {
                const __m512bh b0 = (__m512bh)_mm512_loadu_si512(right);
                const __m512bh b1 = (__m512bh)_mm512_loadu_si512(right + kLanes);
#pragma GCC unroll 16
                for (Index i = 0; i < kRows; ++i) {
                    const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(left[i * kRowStep]));
                    sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, b0);
                    sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, b1);
                }
                left += kDepth;
                right += kStrip;
            }
        }
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i) {
            for (Index v = 0; v < 2; ++v) {
                float* row = c + i * kStrip + v * kLanes;
                const __m512 old = _mm512_loadu_ps(row);
                _mm512_storeu_ps(row, kSubtract ? _mm512_sub_ps(old, sum[i][v]) : _mm512_add_ps(old, sum[i][v]));
            }
        }
    }

    static inline void multiply_strips(Index depth, const Packed* a, const Packed* b, float* c) {
        multiply<1, kStrip, false>(1, depth, a, 0, b, 0, c);
    }
};

struct PairPacker {
    static constexpr Index kColumns = 2;
    static Index depth(Index cols) { return (cols + 1) / 2; }
    static void pack(const MatrixView& view, Index row, Index col, Index depth, std::uint32_t*, std::uint32_t* right) {
        pack_pairs<PairKernel::kStrip>(view, row, col, depth, right);
    }
};

}  // namespace
