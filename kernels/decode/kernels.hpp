// The border between the driver of decoding (decode.cpp, baseline code) and the inner loops compiled once a level
// (numbers.cpp): plain pointers only. Every loop does the same two roundings an entry, in the same order, as the torch
// reference, so that results are equal to the bit.
#pragma once

#include <cstdint>

struct DecodeIsa {
    const char* name;
    // out[i] = (table[codes[i]] - zero) * scale; table of 256
    void (*bytes)(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale,
                  float* out);
    // Two values a byte, `count` values: out[i] = (table[nibble i] - zero) * scale; table of 16
    void (*nibbles)(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale,
                    bool low_first, float* out);
    // One group: 16 bytes to 32 values of 16 bits by a table of 16, low nibble first
    void (*group)(const std::uint8_t* codes, const std::uint16_t* table, std::uint16_t* out);
};

extern const DecodeIsa decode_avx512;
extern const DecodeIsa decode_avx2;
extern const DecodeIsa decode_portable;
