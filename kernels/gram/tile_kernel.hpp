// The bfloat16 micro-kernel on AMX tiles: a 32 x 32 block of C in 2 x 2 tiles of 16 x 16 float32.
//
// Written against a `Tiles` policy with the instructions it needs: the processor's (processor_tiles.hpp) or a software
// model of them (model_tiles.hpp), so that the kernel, its packing and the driver run under test on any machine. The
// right operand is packed in pairs (pack_pairs: the layout that tdpbf16ps wants of its second source). The left one is
// packed in blocks of 16 pairs: element (row r, pair p) of a strip lies at left[p / 16 * 512 + r * 16 + p % 16].
#pragma once

#include <cstdint>

#include "gram/pack.hpp"
#include "gram/view.hpp"

namespace {

template <class Tiles>
struct TileKernel {
    using Packed = std::uint32_t;
    using Sum = float;
    using Session = Tiles;  // configures the tiles of a thread, and releases them at the end
    static constexpr Index kRows = 32;
    static constexpr Index kStrip = 32;
    static constexpr Index kDepthStep = 16;
    static constexpr bool kTwoPackings = true;

    // C (32 x 32, contiguous) += sum over t < count of A_t B_t, `depth` pairs each, a multiple of 16.
    static inline void multiply_terms(Index count, Index depth, const Packed* const* a, const Packed* const* b,
                                      float* c) {
        // Summed apart, so that C gathers sums of blocks rather than single products.
        alignas(64) float block[kRows * kStrip];
        zero_sums();
        for (Index t = 0; t < count; ++t) add_products(depth, a[t], b[t]);
        store_sums(block);
        for (Index i = 0; i < kRows * kStrip; ++i) c[i] += block[i];
    }

    static constexpr Index kAheadBytes = 0;
    template <Index, bool kFirst>
    static inline void multiply_strips(Index depth, const Packed* a, const Packed* b, float* c, const char*) {
        if constexpr (kFirst)
            for (Index i = 0; i < kRows * kStrip; ++i) c[i] = 0;
        multiply_terms(1, depth, &a, &b, c);
    }

    // The left layout, from the pairs of the right one.
    static void pack_left(Index depth, const Packed* right, Packed* left) {
        for (Index p = 0; p < depth; ++p)
            for (Index r = 0; r < kStrip; ++r) left[p / 16 * 512 + r * 16 + p % 16] = right[p * kStrip + r];
    }

  private:
    // Tiles 0-3 hold C, 4-5 A, 6-7 B.
    static inline void zero_sums() {
        Tiles::template zero<0>();
        Tiles::template zero<1>();
        Tiles::template zero<2>();
        Tiles::template zero<3>();
    }

    static inline void add_products(Index depth, const Packed* a, const Packed* b) {
        constexpr Index a_bytes = 16 * sizeof(Packed), b_bytes = kStrip * sizeof(Packed);
        for (Index k = 0; k < depth; k += kDepthStep) {
            Tiles::template load<4>(a + k * kStrip, a_bytes);
            Tiles::template load<6>(b + k * kStrip, b_bytes);
            Tiles::template load<7>(b + k * kStrip + 16, b_bytes);
            Tiles::template multiply<0, 4, 6>();
            Tiles::template multiply<1, 4, 7>();
            Tiles::template load<5>(a + k * kStrip + 16 * 16, a_bytes);
            Tiles::template multiply<2, 5, 6>();
            Tiles::template multiply<3, 5, 7>();
        }
    }

    static inline void store_sums(float* c) {
        constexpr Index c_bytes = kStrip * sizeof(float);
        Tiles::template store<0>(c, c_bytes);
        Tiles::template store<1>(c + 16, c_bytes);
        Tiles::template store<2>(c + 16 * kStrip, c_bytes);
        Tiles::template store<3>(c + 16 * kStrip + 16, c_bytes);
    }
};

template <class Tiles>
struct TilePacker {
    using Kernel = TileKernel<Tiles>;
    static constexpr Index kColumns = 2;
    static Index depth(Index cols) {
        return (cols + 2 * Kernel::kDepthStep - 1) / (2 * Kernel::kDepthStep) * Kernel::kDepthStep;
    }
    static void pack(const MatrixView& view, Index row, Index col, Index depth, std::uint32_t* left,
                     std::uint32_t* right) {
        pack_pairs<Kernel::kStrip>(view, row, col, depth, right);
        Kernel::pack_left(depth, right, left);
    }
};

}  // namespace
