// SHA-256 of messages, some at a time.
#pragma once

#include <cstddef>
#include <cstdint>

struct Message {
    const std::uint8_t* bytes;
    std::ptrdiff_t size;
    std::uint8_t digest[32];  // written
};

// By the processor's SHA instructions (CpuFeatures::sha), two messages at a time, or in the lanes of its vectors, eight
// or sixteen. A message that ends gives its place to the next one; the longest ones first leave few alone for long.
void sha256_sha(Message* messages, std::ptrdiff_t count);
void sha256_avx2(Message* messages, std::ptrdiff_t count);
void sha256_avx512(Message* messages, std::ptrdiff_t count);
