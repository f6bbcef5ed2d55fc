// Quantised codes to numbers on the CPU; the layouts are those of spectrum_fast/measure/ops/decode.
#pragma once

#include <cstdint>

// One scale (and zero point, if given) for each block_rows x block_columns block of codes [rows, columns].
struct ScaledBlocks {
    std::int64_t rows, columns, block_rows, block_columns;
};

// Groups of `width` values, two a byte: `rows` rows of `groups` groups, a row of codes every `stride` bytes; scales and
// zeros [rows or 1, groups]. `count` values are written in all: the last row may be cut short.
struct NibbleGroups {
    std::int64_t rows, groups, width, stride, scale_stride, count;
    bool low_first;
};

void decode_scaled(const ScaledBlocks& shape, const std::uint8_t* codes, const float* table, const float* scales,
                   const float* zeros, float* out);
void decode_nibbles(const NibbleGroups& shape, const std::uint8_t* codes, const float* table, const float* scales,
                    const float* zeros, float* out);
// tables [256][16]: the values of each of the 16 codes under each of the 256 scales
void decode_groups(std::int64_t groups, const std::uint8_t* codes, const std::uint8_t* scales,
                   const std::uint16_t* tables, std::uint16_t* out);
const char* decode_kernel_name();
