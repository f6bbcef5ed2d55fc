// The plain loops: all of the portable form, and the ends of the vector forms.
#pragma once

#include "decode/kernels.hpp"

namespace {

inline void bytes_plain(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale,
                        float* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = (table[codes[i]] - zero) * scale;
}

inline void nibbles_plain(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale,
                          bool low_first, float* out) {
    float values[16];
    for (int code = 0; code < 16; ++code) values[code] = (table[code] - zero) * scale;
    const int first = low_first ? 0 : 4, second = 4 - first;
    for (std::int64_t i = 0; i + 1 < count; i += 2) {
        out[i] = values[codes[i / 2] >> first & 15];
        out[i + 1] = values[codes[i / 2] >> second & 15];
    }
    if (count % 2 != 0) out[count - 1] = values[codes[count / 2] >> first & 15];
}

inline void group_plain(const std::uint8_t* codes, const std::uint16_t* table, std::uint16_t* out) {
    for (int i = 0; i < 16; ++i) {
        out[2 * i] = table[codes[i] & 15];
        out[2 * i + 1] = table[codes[i] >> 4];
    }
}

}  // namespace
