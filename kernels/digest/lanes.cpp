// SHA-256 of as many messages as a vector register has lanes of 32 bits, for processors without SHA instructions.
#include "digest/messages.hpp"
#include "gram/transpose.hpp"

namespace {

struct VectorLanes {
    static constexpr int kLanes = KERNEL_VECTOR_BYTES / 4;

    static void all(State* states, const std::uint8_t* const* bytes, std::ptrdiff_t blocks) {
        Words s[8];
        for (int m = 0; m < kLanes; ++m)
            for (int i = 0; i < 8; ++i) s[i][m] = states[m].words[i];
        for (std::ptrdiff_t b = 0; b < blocks; ++b) {
            std::uint32_t rows[kLanes][16];
            for (int m = 0; m < kLanes; ++m) std::memcpy(rows[m], bytes[m] + b * kBlock, kBlock);
            Words w[16];
            for (int i = 0; i < 16; i += kLanes)
                SquareTranspose<std::uint32_t, kLanes>::run(&rows[0][i], 16, reinterpret_cast<std::uint32_t*>(w + i),
                                                            kLanes);
            compress(s, w);
        }
        for (int m = 0; m < kLanes; ++m)
            for (int i = 0; i < 8; ++i) states[m].words[i] = s[i][m];
    }

    static void one(State& state, const std::uint8_t* bytes, std::ptrdiff_t blocks) {
        for (std::ptrdiff_t b = 0; b < blocks; ++b) {
            std::uint32_t w[16];
            std::memcpy(w, bytes + b * kBlock, kBlock);
            compress(state.words, w);
        }
    }

  private:
    typedef std::uint32_t Words __attribute__((vector_size(KERNEL_VECTOR_BYTES)));

    template <class Word>
    static inline __attribute__((always_inline)) Word turned(Word x, int n) {
        return x >> n | x << (32 - n);
    }

    // One block, its words as they lie in memory, into a state. Word: a number of 32 bits, or a vector of them.
    template <class Word>
    static inline __attribute__((always_inline)) void compress(Word (&state)[8], Word (&w)[16]) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) w[i] = (turned(w[i], 8) & 0xff00ff00U) | (turned(w[i], 24) & 0x00ff00ffU);
        Word s[8];
        for (int i = 0; i < 8; ++i) s[i] = state[i];
        for (int begin = 0; begin < 64; begin += 16) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                // s[(k - i) & 7] is what the standard calls a, b, ... h in this round.
                Word &a = s[-i & 7], &b = s[(1 - i) & 7], &c = s[(2 - i) & 7], &d = s[(3 - i) & 7];
                Word &e = s[(4 - i) & 7], &f = s[(5 - i) & 7], &g = s[(6 - i) & 7], &h = s[(7 - i) & 7];
                h += (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + kRounds[begin + i] + w[i];
                d += h;
                h += (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            }
            if (begin == 48) break;
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                const Word early = w[(i + 1) % 16], late = w[(i + 14) % 16];
                w[i] += (turned(early, 7) ^ turned(early, 18) ^ early >> 3) + w[(i + 9) % 16] +
                        (turned(late, 17) ^ turned(late, 19) ^ late >> 10);
            }
        }
        for (int i = 0; i < 8; ++i) state[i] += s[i];
    }
};

}  // namespace

const DigestKernel LEVELLED(digest) = {LEVEL_NAME, VectorLanes::kLanes, Messages<VectorLanes>::run};
