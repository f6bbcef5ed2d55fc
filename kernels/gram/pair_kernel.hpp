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

    // C (kRows x kStrip, contiguous) += (or, where kFirst, =) sum over t < count of A_t B_t, `depth` pairs each. With
    // kVectors = 1 only the first half of the columns; with kAhead a line from `next` on is asked for (into L2) every
    // four pairs.
    template <Index kVectors = 2, bool kAhead = false, bool kFirst = false>
    static inline void multiply_terms(Index count, Index depth, const Packed* const* a, const Packed* const* b,
                                      float* c, const char* next = nullptr) {
        __m512 sum[kRows][kVectors];
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i)
            for (Index v = 0; v < kVectors; ++v) sum[i][v] = _mm512_setzero_ps();
        for (Index t = 0; t < count; ++t) {
            const Packed *left = a[t], *right = b[t];
            const auto add_pairs = [&](Index k) __attribute__((always_inline)) {
                __m512bh columns[kVectors];
                for (Index v = 0; v < kVectors; ++v)
                    columns[v] = (__m512bh)_mm512_loadu_si512(right + k * kStrip + v * kLanes);
#pragma GCC unroll 16
                for (Index i = 0; i < kRows; ++i) {
                    const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(left[k * kStrip + i]));
                    for (Index v = 0; v < kVectors; ++v) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], x, columns[v]);
                }
            };
            const Index whole = depth / 4 * 4;
            for (Index k = 0; k < whole; k += 4) {
                if constexpr (kAhead) __builtin_prefetch(next + k * kAheadBytes, 0, 2);
#pragma GCC unroll 4
                for (Index u = 0; u < 4; ++u) add_pairs(k + u);
            }
            for (Index k = whole; k < depth; ++k) add_pairs(k);
        }
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i) {
            for (Index v = 0; v < kVectors; ++v) {
                float* row = c + i * kStrip + v * kLanes;
                _mm512_storeu_ps(row, kFirst ? sum[i][v] : _mm512_add_ps(_mm512_loadu_ps(row), sum[i][v]));
            }
        }
    }

    // C += A B, or C = A B; a function of its own, as FmaKernel's, that asks for as much.
    static constexpr Index kAheadBytes = 16;
    template <Index kVectors, bool kFirst>
    static __attribute__((noinline)) void multiply_strips(Index depth, const Packed* a, const Packed* b, float* c,
                                                          const char* next) {
        multiply_terms<kVectors, true, kFirst>(1, depth, &a, &b, c, next);
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
