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

    // C (kRows x kStrip, contiguous) += sum over t < count of A_t B_t, `depth` pairs each. With kVectors = 1 only the
    // first half of the columns.
    template <Index kVectors = 2>
    static inline void multiply_terms(Index count, Index depth, const Packed* const* a, const Packed* const* b,
                                      float* c) {
        __m512 sum[kRows][kVectors];
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i)
            for (Index v = 0; v < kVectors; ++v) sum[i][v] = _mm512_setzero_ps();
        for (Index t = 0; t < count; ++t) {
            const Packed *left = a[t], *right = b[t];
#pragma GCC unroll 4
            for (Index k = 0; k < depth; ++k) {
                __m512bh columns[kVectors];
                for (Index v = 0; v < kVectors; ++v) columns[v] = (__m512bh)_mm512_loadu_si512(right + v * kLanes);
#pragma GCC unroll 16
                for (Index i = 0; i < kRows; ++i) {
                    const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(left[i]));
                    for (Index v = 0; v < kVectors; ++v) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], x, columns[v]);
                }
                left += kStrip;
                right += kStrip;
            }
        }
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i) {
            for (Index v = 0; v < kVectors; ++v) {
                float* row = c + i * kStrip + v * kLanes;
                _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), sum[i][v]));
            }
        }
    }

    // C += A B, in sums of kTerms pairs each; a function of its own, as FmaKernel's.
    template <Index kVectors, Index kTerms>
    static __attribute__((noinline)) void multiply_strips(Index depth, const Packed* a, const Packed* b, float* c) {
        for (; depth >= kTerms; depth -= kTerms, a += kTerms * kStrip, b += kTerms * kStrip)
            multiply_terms<kVectors>(1, kTerms, &a, &b, c);
        if (depth > 0) multiply_terms<kVectors>(1, depth, &a, &b, c);
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
