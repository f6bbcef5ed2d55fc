// AVX2: eight table look-ups at a time.
#pragma once

#include <immintrin.h>

#include "decode/plain.hpp"

namespace {

void bytes(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale, float* out) {
    const __m256 zeros = _mm256_set1_ps(zero), scales = _mm256_set1_ps(scale);
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i raw = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i));
        const __m256 value = _mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(raw), 4);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_sub_ps(value, zeros), scales));
    }
    bytes_plain(codes + i, count - i, table, zero, scale, out + i);
}

void nibbles(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale, bool low_first,
             float* out) {
    const __m256 zeros = _mm256_set1_ps(zero), scales = _mm256_set1_ps(scale);
    const __m256 below = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(table), zeros), scales);
    const __m256 above = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(table + 8), zeros), scales);
    // A byte in each 64-bit lane becomes two 32-bit indices, first value in the lower half.
    const __m256i shift = _mm256_set1_epi64x(low_first ? 28 : 32);
    const __m256i first_shift = _mm256_set1_epi64x(low_first ? 0 : 4);
    const __m256i first_mask = _mm256_set1_epi64x(15);
    const __m256i second_mask = _mm256_set1_epi64x(15LL << 32);
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        std::uint32_t four;
        __builtin_memcpy(&four, codes + i / 2, 4);
        const __m256i raw = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(static_cast<int>(four)));
        const __m256i index = _mm256_or_si256(_mm256_and_si256(_mm256_srlv_epi64(raw, first_shift), first_mask),
                                              _mm256_and_si256(_mm256_sllv_epi64(raw, shift), second_mask));
        const __m256 upper_half = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
        _mm256_storeu_ps(out + i, _mm256_blendv_ps(_mm256_permutevar8x32_ps(below, index),
                                                   _mm256_permutevar8x32_ps(above, index), upper_half));
    }
    nibbles_plain(codes + i / 2, count - i, table, zero, scale, low_first, out + i);
}

void group(const std::uint8_t* codes, const std::uint16_t* table, std::uint16_t* out) {
    const auto* entries = reinterpret_cast<const __m128i*>(table);
    const __m128i a = _mm_loadu_si128(entries), b = _mm_loadu_si128(entries + 1);
    const __m128i byte = _mm_set1_epi16(255), nibble = _mm_set1_epi8(15);
    const __m128i low_bytes = _mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte));
    const __m128i high_bytes = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8));
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m128i low = _mm_and_si128(raw, nibble), high = _mm_and_si128(_mm_srli_epi16(raw, 4), nibble);
    const __m128i indices[2] = {_mm_unpacklo_epi8(low, high), _mm_unpackhi_epi8(low, high)};
    auto* target = reinterpret_cast<__m128i*>(out);
    for (int half = 0; half < 2; ++half) {
        const __m128i l = _mm_shuffle_epi8(low_bytes, indices[half]), h = _mm_shuffle_epi8(high_bytes, indices[half]);
        _mm_storeu_si128(target + 2 * half, _mm_unpacklo_epi8(l, h));
        _mm_storeu_si128(target + 2 * half + 1, _mm_unpackhi_epi8(l, h));
    }
}

}  // namespace
