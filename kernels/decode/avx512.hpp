// AVX-512: a table of sixteen is one register, so that a look-up is one permutation.
#pragma once

#include <immintrin.h>

#include "decode/plain.hpp"

namespace {

void bytes(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale, float* out) {
    const __m512 zeros = _mm512_set1_ps(zero), scales = _mm512_set1_ps(scale);
    std::int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
        const __m512 value = _mm512_i32gather_ps(_mm512_cvtepu8_epi32(raw), table, 4);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_sub_ps(value, zeros), scales));
    }
    bytes_plain(codes + i, count - i, table, zero, scale, out + i);
}

void nibbles(const std::uint8_t* codes, std::int64_t count, const float* table, float zero, float scale, bool low_first,
             float* out) {
    const __m512 values =
        _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(table), _mm512_set1_ps(zero)), _mm512_set1_ps(scale));
    // A byte in each 64-bit lane becomes two 32-bit indices, first value in the lower half; a permutation looks at the
    // lowest four bits of an index only.
    const __m128i first = _mm_cvtsi32_si128(low_first ? 0 : 4), second = _mm_cvtsi32_si128(low_first ? 28 : 32);
    const __mmask16 odd = 0xAAAA;
    std::int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m512i raw = _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i / 2)));
        const __m512i index = _mm512_mask_mov_epi32(_mm512_srl_epi64(raw, first), odd, _mm512_sll_epi64(raw, second));
        _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(index, values));
    }
    nibbles_plain(codes + i / 2, count - i, table, zero, scale, low_first, out + i);
}

void group(const std::uint8_t* codes, const std::uint16_t* table, std::uint16_t* out) {
    const __m512i entries = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(table)));
    const __m512i raw = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    const __m512i index =
        _mm512_or_si512(_mm512_and_si512(raw, _mm512_set1_epi32(15)), _mm512_slli_epi32(_mm512_srli_epi32(raw, 4), 16));
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(index, entries));
}

}  // namespace
