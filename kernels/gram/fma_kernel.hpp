// The float32 / float64 micro-kernel: a kRows x kStrip block of C kept in registers while A and B stream by.
//
// Written with the vector types of GCC and Clang, so that one text serves AVX-512, AVX2 and plain SSE2 or NEON: the
// instruction set comes from the flags of the source file that includes it.
//
// Every operand is stored in strips: element (r, k) of a strip lies at strip[k * kStrip + r]. One packing therefore
// serves as left operand (kRows neighbouring r are broadcast) and as right operand (kStrip of them are loaded).
#pragma once

#include "gram/view.hpp"

namespace {

enum class Store { add, subtract, set };  // what becomes of C by a product

template <class T, int kVectorBytes, int kBlockRows>
struct FmaKernel {
    using Packed = T;  // what operands are packed to
    using Sum = T;     // what C is accumulated in
    static constexpr Index kRows = kBlockRows;
    static constexpr Index kLanes = kVectorBytes / static_cast<Index>(sizeof(T));
    static constexpr Index kStrip = 2 * kLanes;
    static constexpr Index kDepthStep = 1;       // the packed depth is a multiple of this
    static constexpr bool kTwoPackings = false;  // left and right operands share one packing

    struct Session {  // what a thread sets up before it multiplies: nothing
        Session() {}
    };

    typedef T Vector __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));

    // C (kRows x kWidth, contiguous) +=, -= or = sum over o < outer, k < inner of A(., o, k) B(o, k, .)
    //   A(i, o, k) = a[o * a_outer + i * kRowStep + k * kDepth],   B(o, k, j) = b[o * b_outer + k * kWidth + j].
    // Rows of B and C are kWidth numbers, of which kVectors vectors are worked on. `inner` is a multiple of
    // kUnroll, for each of which, where kAhead, a line from `next` on is asked for (into L2).
    template <Index kRowStep, Index kDepth, Store kStore, Index kVectors = 2, Index kUnroll = 1, Index kWidth = kStrip,
              bool kAhead = false>
    static inline void multiply(Index outer, Index inner, const T* a, Index a_outer, const T* b, Index b_outer, T* c,
                                const char* next = nullptr) {
        if constexpr (kStore == Store::subtract) {
            // The update of a big matrix finds C in memory: fetch the block that follows it meanwhile.
#pragma GCC unroll 16
            for (Index i = 0; i < kRows * kStrip; i += 64 / static_cast<Index>(sizeof(T)))
                __builtin_prefetch(c + kRows * kStrip + i, 1);
        }
        Vector sum[kRows][kVectors] = {};
        for (Index o = 0; o < outer; ++o) {
            const T* left = a + o * a_outer;
            const T* right = b + o * b_outer;
            for (Index k = 0; k < inner; k += kUnroll) {
                if constexpr (kAhead) __builtin_prefetch(next + k * 64 / kUnroll, 0, 2);
#pragma GCC unroll 4
                for (Index u = 0; u < kUnroll; ++u) {
                    const Vector* columns = reinterpret_cast<const Vector*>(right);
#pragma GCC unroll 16
                    for (Index i = 0; i < kRows; ++i) {
                        const Vector x = left[i * kRowStep] - Vector{};
#pragma GCC unroll 2
                        for (Index v = 0; v < kVectors; ++v) sum[i][v] += x * columns[v];
                    }
                    left += kDepth;
                    right += kWidth;
                }
            }
        }
#pragma GCC unroll 16
        for (Index i = 0; i < kRows; ++i) {
            Vector* row = reinterpret_cast<Vector*>(c + i * kWidth);
#pragma GCC unroll 2
            for (Index v = 0; v < kVectors; ++v) {
                if constexpr (kStore == Store::set) {
                    row[v] = sum[i][v];
                } else {
                    row[v] = kStore == Store::subtract ? row[v] - sum[i][v] : row[v] + sum[i][v];
                }
            }
        }
    }

    // The form that the symmetric product uses: both operands packed in strips, C += A B or, where kFirst, C = A B
    // (with one of two vectors the other half is left); meanwhile it asks for depth * kAheadBytes from `next` on. A
    // function of its own: C kept in registers by its caller would drive the sums out of them where there are sixteen.
    // Counting the loop takes issue slots that cores of two products a cycle have no other time for; but of more steps
    // at once GCC makes an order in which eight sums wait for one another (AVX2, two steps for four: 98 for 94 % of the
    // register rate).
    static constexpr Index kAheadBytes = kStrip * kRows * static_cast<Index>(sizeof(T)) / 64;  // a tile of 128, once
    template <Index kVectors, bool kFirst>
    static __attribute__((noinline)) void multiply_strips(Index depth, const T* a, const T* b, T* c, const char* next) {
        constexpr Store store = kFirst ? Store::set : Store::add;
        constexpr Index unroll = kVectorBytes == 32 ? 2 : 4;
        constexpr bool along =
            kAheadBytes * unroll == 64;  // a line for each round of the loop, or all at its beginning
        if constexpr (!along)
            for (Index i = 0; i < depth * kAheadBytes; i += 64) __builtin_prefetch(next + i, 0, 2);
        if (depth % unroll == 0)
            return multiply<1, kStrip, store, kVectors, unroll, kStrip, along>(1, depth, a, 0, b, 0, c, next);
        multiply<1, kStrip, store, kVectors>(1, depth, a, 0, b, 0, c);
    }
};

}  // namespace
