// SHA-256 of messages, some at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

struct Message {
    const std::uint8_t* bytes;
    std::ptrdiff_t size;
    std::uint8_t digest[32];  // written
};

// A message that ends gives its place to the next one; the longest ones first leave few alone for long.
struct DigestKernel {
    const char* instructions;  // "sha", or the vectors whose lanes hold a message each: "avx512" or "avx2"
    int lanes;                 // messages at a time
    void (*hash)(Message* messages, std::ptrdiff_t count);
};

extern const DigestKernel digest_sha;
extern const DigestKernel digest_avx2;
extern const DigestKernel digest_avx512;

// Those that this processor has, the best one first.
std::vector<DigestKernel> digest_kernels();
