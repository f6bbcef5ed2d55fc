// Several messages hashed side by side (SHA-256, FIPS 180-4): which goes where, and how each ends.
#pragma once

#include <cstring>

#include "cpu/level.hpp"
#include "digest/digest.hpp"

namespace {

constexpr std::ptrdiff_t kBlock = 64;  // bytes

alignas(64) constexpr std::uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

struct State {
    std::uint32_t words[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

// Engine: what takes blocks into states,
//   kLanes                                            messages at a time, at least two;
//   static void all(State*, bytes of each, blocks)    blocks of each of kLanes messages;
//   static void one(State&, bytes, blocks)            of one.
template <class Engine>
class Messages {
    static constexpr int kLanes = Engine::kLanes;

  public:
    // A message that ends gives its lane to the next one. The last goes on alone.
    static void run(Message* messages, std::ptrdiff_t count) {
        Lane lanes[kLanes];
        State states[kLanes];
        for (std::ptrdiff_t next = 0;;) {
            int active = 0, last = 0;
            std::ptrdiff_t blocks = 0;
            for (int m = 0; m < kLanes; ++m) {
                while (lanes[m].message == nullptr || lanes[m].blocks() == 0) {
                    if (lanes[m].message != nullptr) finish(states[m], lanes[m]);
                    lanes[m] = {};
                    if (next == count) break;
                    lanes[m].message = messages + next++;
                    states[m] = {};
                }
                if (lanes[m].message == nullptr) continue;
                blocks = active++ == 0 || lanes[m].blocks() < blocks ? lanes[m].blocks() : blocks;
                last = m;
            }
            if (active < 2) return active == 1 ? finish(states[last], lanes[last]) : void();
            const std::uint8_t* bytes[kLanes];  // a lane without a message goes along with one
            for (int m = 0; m < kLanes; ++m) bytes[m] = lanes[lanes[m].message != nullptr ? m : last].rest();
            Engine::all(states, bytes, blocks);
            for (Lane& lane : lanes)
                if (lane.message != nullptr) lane.done += blocks * kBlock;
        }
    }

  private:
    struct Lane {
        Message* message = nullptr;
        std::ptrdiff_t done = 0;  // bytes, whole blocks

        std::ptrdiff_t left() const { return message->size - done; }
        std::ptrdiff_t blocks() const { return left() / kBlock; }
        const std::uint8_t* rest() const { return message->bytes + done; }
    };

    static void store_words(const std::uint32_t* words, int count, std::uint8_t* bytes) {
        for (int i = 0; i < 4 * count; ++i) bytes[i] = static_cast<std::uint8_t>(words[i / 4] >> (24 - 8 * (i % 4)));
    }

    // What is left of a message, and its digest.
    static void finish(State& state, const Lane& lane) {
        const std::ptrdiff_t whole = lane.blocks() * kBlock, left = lane.left() - whole;
        Engine::one(state, lane.rest(), whole / kBlock);
        std::uint8_t end[2 * kBlock] = {};  // what is left, a bit, zeros, and the length in bits
        if (left > 0) std::memcpy(end, lane.rest() + whole, static_cast<std::size_t>(left));
        end[left] = 0x80;
        const std::ptrdiff_t size = left + 9 <= kBlock ? kBlock : 2 * kBlock;
        const auto bits = 8 * static_cast<std::uint64_t>(lane.message->size);
        const std::uint32_t length[2] = {static_cast<std::uint32_t>(bits >> 32), static_cast<std::uint32_t>(bits)};
        store_words(length, 2, end + size - 8);
        Engine::one(state, end, size / kBlock);
        store_words(state.words, 8, lane.message->digest);
    }
};

}  // namespace
