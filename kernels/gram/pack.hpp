// Packing: copies rows of a strided matrix of any element type into strips of the micro-kernel's type.
//
// A strip holds kStrip rows; its element (r, k) lies at strip[k * kStrip + r]. Rows past the end are zeros.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "gram/transpose.hpp"
#include "gram/view.hpp"

namespace {

template <class To, class From>
inline To bit_copy(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

// How each stored element becomes a number; exact for both 16-bit types.
struct ReadFloat64 {
    using Stored = double;
    static double read(double x) { return x; }
};
struct ReadFloat32 {
    using Stored = float;
    static float read(float x) { return x; }
};
struct ReadBfloat16 {
    using Stored = std::uint16_t;
    static float read(std::uint16_t bits) { return bit_copy<float>(static_cast<std::uint32_t>(bits) << 16); }
};
struct ReadFloat16 {
    using Stored = std::uint16_t;
    // Shift the fields into place, then repair the exponent bias by a multiplication (which also normalises
    // subnormals); infinity and NaN keep the highest exponent.
    static float read(std::uint16_t bits) {
        const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fffU) << 13;
        const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
        const float scaled = bit_copy<float>(magnitude) * 0x1p112F;
        const std::uint32_t special = magnitude >= 0x0f800000U ? 0x7f800000U : 0U;
        return bit_copy<float>(bit_copy<std::uint32_t>(scaled) | special | sign);
    }
};
// Two neighbours along the depth, kept as bits: the operand of the bf16 dot-product instructions.
struct ReadPair {
    using Stored = std::uint16_t;
};

// to[i] = from[i] as a number. The compiler does not know that an instruction widens float16.
template <class Read, class To>
inline void read_row(const typename Read::Stored* from, Index count, To* to) {
    Index i = 0;
#if defined(__F16C__)
    if constexpr (std::is_same_v<Read, ReadFloat16> && std::is_same_v<To, float>) {
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
#endif
    for (; i < count; ++i) to[i] = static_cast<To>(Read::read(from[i]));
}

// strip[k * kStrip + r] = rows[r * stride + k * n] as a To, for k < width; a To is n neighbours as they are stored.
template <class To, Index kStrip, class Stored>
inline void transpose_strip(const Stored* rows, Index stride, Index width, To* strip) {
    constexpr Index lanes = kStrip / 2, n = sizeof(To) / sizeof(Stored);
    const Index whole = width / lanes * lanes;
    for (Index half = 0; half < kStrip; half += lanes)  // few rows at a time: as many streams as the caches foresee
        for (Index k = 0; k < whole; k += lanes)
            SquareTranspose<To, lanes>::run(rows + half * stride + k * n, stride, strip + k * kStrip + half, kStrip);
    for (Index k = whole; k < width; ++k)
        for (Index r = 0; r < kStrip; ++r) std::memcpy(strip + k * kStrip + r, rows + r * stride + k * n, sizeof(To));
}

// bfloat16 whose depth is contiguous, as float32: pairs are transposed, then taken apart. What is written a block later
// is asked for, as it has left the caches since the last slab.
template <Index kStrip>
void pack_halves(const std::uint16_t* rows, Index stride, Index depth, float* strip) {
    constexpr Index block = 32, line = 16;
    alignas(64) std::uint32_t pairs[block * kStrip];
    for (Index k = 0; k < depth; k += 2 * block) {
        const Index width = depth - k < 2 * block ? depth - k : 2 * block;
        float* to = strip + k * kStrip;
        for (Index i = 0; i < 2 * block * kStrip; i += line) __builtin_prefetch(to + 2 * block * kStrip + i, 1);
        transpose_strip<std::uint32_t, kStrip>(rows + k, stride, width / 2, pairs);
        for (Index p = 0; p < width / 2; ++p, to += 2 * kStrip) {
            for (Index r = 0; r < kStrip; ++r) {
                const std::uint32_t pair = pairs[p * kStrip + r];
                to[r] = bit_copy<float>(pair << 16);
                to[kStrip + r] = bit_copy<float>(pair & 0xffff0000U);
            }
        }
        if (width % 2 != 0)
            for (Index r = 0; r < kStrip; ++r) to[r] = ReadBfloat16::read(rows[r * stride + depth - 1]);
    }
}

// Rows [row, row + kStrip) and columns [col, col + depth) of the view, turned into numbers of type To.
template <class Read, class To, Index kStrip>
void pack_strip(const MatrixView& view, Index row, Index col, Index depth, To* strip) {
    using Stored = typename Read::Stored;
    constexpr Index block = 64;
    const Index rows = view.rows - row < kStrip ? view.rows - row : kStrip;
    const Stored* source = static_cast<const Stored*>(view.data) + row * view.row_stride + col * view.col_stride;
    if (view.col_stride != 1) {
        for (Index k = 0; k < depth; ++k) {
            const Stored* from = source + k * view.col_stride;
            To* to = strip + k * kStrip;
            if (view.row_stride == 1 && rows == kStrip) {
                read_row<Read>(from, kStrip, to);
            } else {
                for (Index r = 0; r < rows; ++r) to[r] = static_cast<To>(Read::read(from[r * view.row_stride]));
                for (Index r = rows; r < kStrip; ++r) to[r] = To{};
            }
        }
        return;
    }
    if constexpr (std::is_same_v<Stored, To>) {
        if (rows == kStrip) return transpose_strip<To, kStrip>(source, view.row_stride, depth, strip);
    }
    if constexpr (std::is_same_v<Read, ReadBfloat16> && std::is_same_v<To, float>) {
        if (rows == kStrip) return pack_halves<kStrip>(source, view.row_stride, depth, strip);
    }
    // Depth is contiguous: transpose numbers through a small buffer.
    constexpr Index stride = block + 64 / static_cast<Index>(sizeof(To));
    alignas(64) To buffer[kStrip][stride];
    for (Index r = rows; r < kStrip; ++r) std::memset(buffer[r], 0, sizeof(buffer[r]));
    for (Index k0 = 0; k0 < depth; k0 += block) {
        const Index width = depth - k0 < block ? depth - k0 : block;
        for (Index r = 0; r < rows; ++r) {
            const Stored* from = source + r * view.row_stride + k0;
            read_row<Read>(from, width, buffer[r]);
        }
        transpose_strip<To, kStrip>(buffer[0], stride, width, strip + k0 * kStrip);
    }
}

template <class To, Index kStrip>
void pack_numbers(const MatrixView& view, Index row, Index col, Index depth, To* strip) {
    switch (view.element) {
        case Element::float64:
            return pack_strip<ReadFloat64, To, kStrip>(view, row, col, depth, strip);
        case Element::float32:
            return pack_strip<ReadFloat32, To, kStrip>(view, row, col, depth, strip);
        case Element::float16:
            return pack_strip<ReadFloat16, To, kStrip>(view, row, col, depth, strip);
        case Element::bfloat16:
            return pack_strip<ReadBfloat16, To, kStrip>(view, row, col, depth, strip);
    }
}

// bfloat16 only: strip[p * kStrip + r] = columns (col + 2 p, col + 2 p + 1) of row r, the even one in the low half.
// `pairs` may reach past the last column: the missing halves are zeros.
template <Index kStrip>
void pack_pairs(const MatrixView& view, Index row, Index col, Index pairs, std::uint32_t* strip) {
    constexpr Index block = 64;
    const Index rows = view.rows - row < kStrip ? view.rows - row : kStrip;
    const auto* source = static_cast<const std::uint16_t*>(view.data) + row * view.row_stride + col * view.col_stride;
    const Index width = view.cols - col < 2 * pairs ? view.cols - col : 2 * pairs;
    const Index whole = width / 2;
    if (view.col_stride == 1 && rows == kStrip && whole == pairs)
        return transpose_strip<std::uint32_t, kStrip>(source, view.row_stride, pairs, strip);
    constexpr Index stride = block + 16;
    alignas(64) std::uint32_t buffer[kStrip][stride];
    for (Index r = rows; r < kStrip; ++r) std::memset(buffer[r], 0, sizeof(buffer[r]));
    for (Index p0 = 0; p0 < pairs; p0 += block) {
        const Index count = pairs - p0 < block ? pairs - p0 : block;
        const Index full = whole - p0 < 0 ? 0 : (whole - p0 < count ? whole - p0 : count);
        if (view.row_stride == 1 && view.col_stride != 1 && rows == kStrip) {
            for (Index p = 0; p < full; ++p) {
                const std::uint16_t* low = source + 2 * (p0 + p) * view.col_stride;
                const std::uint16_t* high = low + view.col_stride;
                std::uint32_t* to = strip + (p0 + p) * kStrip;
                for (Index r = 0; r < kStrip; ++r)
                    to[r] = static_cast<std::uint32_t>(low[r]) | static_cast<std::uint32_t>(high[r]) << 16;
            }
        } else {
            for (Index r = 0; r < rows; ++r) {
                const std::uint16_t* from = source + r * view.row_stride + 2 * p0 * view.col_stride;
                if (view.col_stride == 1) {
                    std::memcpy(buffer[r], from, static_cast<std::size_t>(full) * sizeof(std::uint32_t));
                } else {
                    for (Index p = 0; p < full; ++p)
                        buffer[r][p] = static_cast<std::uint32_t>(from[2 * p * view.col_stride]) |
                                       static_cast<std::uint32_t>(from[(2 * p + 1) * view.col_stride]) << 16;
                }
            }
            transpose_strip<std::uint32_t, kStrip>(buffer[0], stride, full, strip + p0 * kStrip);
        }
        for (Index p = full; p < count; ++p) {  // at most one half pair, then padding
            std::uint32_t* to = strip + (p0 + p) * kStrip;
            const bool half = 2 * (p0 + p) < width;
            for (Index r = 0; r < kStrip; ++r)
                to[r] = half && r < rows ? source[r * view.row_stride + 2 * (p0 + p) * view.col_stride] : 0U;
        }
    }
}

}  // namespace
