// The AMX instructions that TileKernel uses, as the processor executes them.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "gram/view.hpp"

namespace {

// Eight tiles of 16 rows x 64 bytes. An object configures them for its thread and releases them when it goes.
class Tiles {
  public:
    Tiles() {
        struct alignas(64) {
            std::uint8_t palette, start_row, reserved[14];
            std::uint16_t row_bytes[16];
            std::uint8_t rows[16];
        } config = {};
        config.palette = 1;
        for (int t = 0; t < 8; ++t) {
            config.row_bytes[t] = 64;
            config.rows[t] = 16;
        }
        asm volatile("" ::"m"(config) : "memory");
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

    // The intrinsics want literal tile numbers, hence the ladders.
    template <int kTile>
    static inline void zero() {
        if constexpr (kTile == 0) _tile_zero(0);
        if constexpr (kTile == 1) _tile_zero(1);
        if constexpr (kTile == 2) _tile_zero(2);
        if constexpr (kTile == 3) _tile_zero(3);
    }

    template <int kTile>
    static inline void load(const void* from, Index row_bytes) {
        asm volatile("" ::: "memory");  // GCC's tileloadd does not say that it reads memory
        if constexpr (kTile == 4) _tile_loadd(4, from, row_bytes);
        if constexpr (kTile == 5) _tile_loadd(5, from, row_bytes);
        if constexpr (kTile == 6) _tile_loadd(6, from, row_bytes);
        if constexpr (kTile == 7) _tile_loadd(7, from, row_bytes);
    }

    template <int kTile>
    static inline void store(void* to, Index row_bytes) {
        if constexpr (kTile == 0) _tile_stored(0, to, row_bytes);
        if constexpr (kTile == 1) _tile_stored(1, to, row_bytes);
        if constexpr (kTile == 2) _tile_stored(2, to, row_bytes);
        if constexpr (kTile == 3) _tile_stored(3, to, row_bytes);
    }

    template <int kSum, int kLeft, int kRight>
    static inline void multiply() {
        static_assert(kLeft == 4 + kSum / 2 && kRight == 6 + kSum % 2);
        if constexpr (kSum == 0) _tile_dpbf16ps(0, 4, 6);
        if constexpr (kSum == 1) _tile_dpbf16ps(1, 4, 7);
        if constexpr (kSum == 2) _tile_dpbf16ps(2, 5, 6);
        if constexpr (kSum == 3) _tile_dpbf16ps(3, 5, 7);
    }
};

}  // namespace
