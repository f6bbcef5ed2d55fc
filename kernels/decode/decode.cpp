// Rows shared out among threads; the inner loops are those of the best instruction set that is here.
#include "decode/decode.hpp"

#include <algorithm>

#include "cpu/features.hpp"
#include "decode/kernels.hpp"

const char* decode_kernel_name() { return BEST_OF(decode).name; }

void decode_scaled(const ScaledBlocks& shape, const std::uint8_t* codes, const float* table, const float* scales,
                   const float* zeros, float* out) {
    const DecodeIsa& isa = BEST_OF(decode);
    const std::int64_t across = (shape.columns + shape.block_columns - 1) / shape.block_columns;
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < shape.rows; ++row) {
        const std::int64_t first = row / shape.block_rows * across;
        for (std::int64_t block = 0; block < across; ++block) {
            const std::int64_t begin = block * shape.block_columns;
            const std::int64_t count = std::min(shape.block_columns, shape.columns - begin);
            const std::int64_t at = row * shape.columns + begin;
            isa.bytes(codes + at, count, table, zeros ? zeros[first + block] : 0.0F, scales[first + block], out + at);
        }
    }
}

void decode_nibbles(const NibbleGroups& shape, const std::uint8_t* codes, const float* table, const float* scales,
                    const float* zeros, float* out) {
    const DecodeIsa& isa = BEST_OF(decode);
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < shape.rows; ++row) {
        for (std::int64_t group = 0; group < shape.groups; ++group) {
            const std::int64_t at = (row * shape.groups + group) * shape.width;
            const std::int64_t count = std::min(shape.width, shape.count - at);
            const std::int64_t scale = row * shape.scale_stride + group;
            isa.nibbles(codes + row * shape.stride + group * shape.width / 2, count, table, zeros ? zeros[scale] : 0.0F,
                        scales[scale], shape.low_first, out + at);
        }
    }
}

void decode_groups(std::int64_t groups, const std::uint8_t* codes, const std::uint8_t* scales,
                   const std::uint16_t* tables, std::uint16_t* out) {
    const DecodeIsa& isa = BEST_OF(decode);
#pragma omp parallel for schedule(static)
    for (std::int64_t group = 0; group < groups; ++group) {
        isa.group(codes + 16 * group, tables + 16 * scales[group], out + 32 * group);
    }
}
