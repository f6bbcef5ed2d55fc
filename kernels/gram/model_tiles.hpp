// The AMX instructions that TileKernel uses, in plain C++: the same tile shapes and the same pairing of bfloat16.
// For tests on processors without AMX; it is slow.
#pragma once

#include <cstdint>
#include <cstring>

#include "gram/pack.hpp"
#include "gram/view.hpp"

namespace {

class Tiles {
  public:
    Tiles() { std::memset(registers(), 0, sizeof(Tile) * 8); }
    ~Tiles() {}
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

    template <int kTile>  // tilezero
    static void zero() {
        std::memset(&registers()[kTile], 0, sizeof(Tile));
    }

    template <int kTile>  // tileloadd
    static void load(const void* from, Index row_bytes) {
        for (int r = 0; r < 16; ++r)
            std::memcpy(registers()[kTile].row[r], static_cast<const char*>(from) + r * row_bytes, 64);
    }

    template <int kTile>  // tilestored
    static void store(void* to, Index row_bytes) {
        for (int r = 0; r < 16; ++r) std::memcpy(static_cast<char*>(to) + r * row_bytes, registers()[kTile].row[r], 64);
    }

    // tdpbf16ps: sum[m][n] += left[m][2k] right[k][2n] + left[m][2k + 1] right[k][2n + 1]
    template <int kSum, int kLeft, int kRight>
    static void multiply() {
        for (int m = 0; m < 16; ++m) {
            float sum[16];
            std::memcpy(sum, registers()[kSum].row[m], 64);
            for (int k = 0; k < 16; ++k) {
                for (int n = 0; n < 16; ++n) {
                    const std::uint16_t* left = registers()[kLeft].row[m];
                    const std::uint16_t* right = registers()[kRight].row[k];
                    sum[n] += ReadBfloat16::read(left[2 * k]) * ReadBfloat16::read(right[2 * n]);
                    sum[n] += ReadBfloat16::read(left[2 * k + 1]) * ReadBfloat16::read(right[2 * n + 1]);
                }
            }
            std::memcpy(registers()[kSum].row[m], sum, 64);
        }
    }

  private:
    struct Tile {
        std::uint16_t row[16][32];
    };
    static Tile* registers() {
        thread_local Tile tiles[8];
        return tiles;
    }
};

}  // namespace
