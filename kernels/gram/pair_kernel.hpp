// The bfloat16 micro-kernel on AVX512-BF16: vdpbf16ps adds two products a lane to a float32 sum.
//
// Operands are packed in pairs along the depth (gram/pack.hpp, pack_pairs); otherwise it is FmaKernel's twin, with the
// same strips.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "gram/pack.hpp"
#include "gram/view.hpp"

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

    // C (kRows x kStrip, contiguous) += sum over t < count of A_t B_t, `depth` pairs each.
    static inline void multiply_terms(Index count, Index depth, const Packed* const* a, const Packed* const* b,
                                      float* c) {
        __m512 sum[kRows][2];
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
        for (Index t = 0; t < count; ++t) {
            const Packed *left = a[t], *right = b[t];
            for (Index k = 0; k < depth; ++k) {
                const __m512bh b0 = (__m512bh)_mm512_loadu_si512(right);
                const __m512bh b1 = (__m512bh)_mm512_loadu_si512(right + kLanes);
#pragma GCC unroll 16
                for (Index i = 0; i < kRows; ++i) {
                    const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(left[i]));
                    sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, b0);
                    sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, b1);
                }
                left += kStrip;
                right += kStrip;
            }
        }
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i) {
            for (Index v = 0; v < 2; ++v) {
                float* row = c + i * kStrip + v * kLanes;
                _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), sum[i][v]));
            }
        }
    }

    static inline void multiply_strips(Index depth, const Packed* a, const Packed* b, float* c) {
        multiply_terms(1, depth, &a, &b, c);
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
