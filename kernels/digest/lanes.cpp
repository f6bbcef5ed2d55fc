// SHA-256 (FIPS 180-4) by SHA instructions.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/level.hpp"
#include "digest/digest.hpp"

namespace {

constexpr std::ptrdiff_t kBlock = 64;

alignas(16) constexpr std::uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// The state of a message as the instructions take it, from the high lane to the low one.
struct State {
    __m128i abef = _mm_setr_epi32(static_cast<int>(0x9b05688c), 0x510e527f, static_cast<int>(0xbb67ae85), 0x6a09e667);
    __m128i cdgh = _mm_setr_epi32(0x5be0cd19, 0x1f83d9ab, static_cast<int>(0xa54ff53a), 0x3c6ef372);
};

// Takes `blocks` blocks of each of kLanes messages into their states, side by side.
template <int kLanes>
void compress(State* states, const std::uint8_t* const* bytes, std::ptrdiff_t blocks) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    State s[kLanes];
    for (int m = 0; m < kLanes; ++m) s[m] = states[m];
    for (std::ptrdiff_t b = 0; b < blocks; ++b) {
        State before[kLanes];
        for (int m = 0; m < kLanes; ++m) before[m] = s[m];
        __m128i words[kLanes][4];  // the last sixteen of each message's schedule
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            const __m128i k = _mm_load_si128(reinterpret_cast<const __m128i*>(kRounds) + i);
#pragma GCC unroll 2
            for (int m = 0; m < kLanes; ++m) {
                __m128i& w = words[m][i % 4];
                const __m128i last = words[m][(i + 3) % 4];
                if (i < 4) {
                    const auto* from = reinterpret_cast<const __m128i*>(bytes[m] + b * kBlock) + i;
                    w = _mm_shuffle_epi8(_mm_loadu_si128(from), big_endian);
                } else {
                    const __m128i seven_ago = _mm_alignr_epi8(last, words[m][(i + 2) % 4], 4);
                    w = _mm_add_epi32(_mm_sha256msg1_epu32(w, words[m][(i + 1) % 4]), seven_ago);
                    w = _mm_sha256msg2_epu32(w, last);
                }
                const __m128i sum = _mm_add_epi32(w, k);
                s[m].cdgh = _mm_sha256rnds2_epu32(s[m].cdgh, s[m].abef, sum);
                s[m].abef = _mm_sha256rnds2_epu32(s[m].abef, s[m].cdgh, _mm_unpackhi_epi64(sum, sum));
            }
        }
        for (int m = 0; m < kLanes; ++m) {
            s[m].abef = _mm_add_epi32(s[m].abef, before[m].abef);
            s[m].cdgh = _mm_add_epi32(s[m].cdgh, before[m].cdgh);
        }
    }
    for (int m = 0; m < kLanes; ++m) states[m] = s[m];
}

void store_words(const std::uint32_t* words, int count, std::uint8_t* bytes) {
    for (int i = 0; i < 4 * count; ++i) bytes[i] = static_cast<std::uint8_t>(words[i / 4] >> (24 - 8 * (i % 4)));
}

// The digest of a message whose first `done` bytes, whole blocks, are in its state.
void finish(State& state, std::ptrdiff_t done, Message& message) {
    const std::uint8_t* rest = message.bytes + done;
    const std::ptrdiff_t blocks = (message.size - done) / kBlock, left = (message.size - done) % kBlock;
    compress<1>(&state, &rest, blocks);
    std::uint8_t end[2 * kBlock] = {};  // what is left, a bit, zeros, and the length in bits
    if (left > 0) std::memcpy(end, rest + blocks * kBlock, static_cast<std::size_t>(left));
    end[left] = 0x80;
    const std::ptrdiff_t size = left + 9 <= kBlock ? kBlock : 2 * kBlock;
    const auto bits = 8 * static_cast<std::uint64_t>(message.size);
    const std::uint32_t length[2] = {static_cast<std::uint32_t>(bits >> 32), static_cast<std::uint32_t>(bits)};
    store_words(length, 2, end + size - 8);
    const std::uint8_t* padded = end;
    compress<1>(&state, &padded, size / kBlock);
    alignas(16) std::uint32_t s[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(s), state.abef);
    _mm_store_si128(reinterpret_cast<__m128i*>(s + 4), state.cdgh);
    const std::uint32_t words[8] = {s[3], s[2], s[7], s[6], s[1], s[0], s[5], s[4]};
    store_words(words, 8, message.digest);
}

}  // namespace

void LEVELLED(sha256)(Message* messages, std::ptrdiff_t count) {
    struct Lane {
        Message* message = nullptr;
        std::ptrdiff_t done = 0;  // bytes
        std::ptrdiff_t blocks() const { return (message->size - done) / kBlock; }
    };
    Lane lanes[2];
    State states[2];
    for (std::ptrdiff_t next = 0;;) {
        for (int m = 0; m < 2; ++m) {
            while (lanes[m].message == nullptr || lanes[m].blocks() == 0) {
                if (lanes[m].message != nullptr) finish(states[m], lanes[m].done, *lanes[m].message);
                lanes[m].message = nullptr;
                if (next == count) break;
                lanes[m] = {messages + next++};
                states[m] = {};
            }
        }
        if (lanes[0].message == nullptr || lanes[1].message == nullptr) break;
        const std::ptrdiff_t blocks = std::min(lanes[0].blocks(), lanes[1].blocks());
        const std::uint8_t* const bytes[2] = {lanes[0].message->bytes + lanes[0].done,
                                              lanes[1].message->bytes + lanes[1].done};
        compress<2>(states, bytes, blocks);
        for (Lane& lane : lanes) lane.done += blocks * kBlock;
    }
    for (int m = 0; m < 2; ++m) {
        if (lanes[m].message != nullptr) finish(states[m], lanes[m].done, *lanes[m].message);
    }
}
