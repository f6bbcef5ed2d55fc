// The loops of decoding, for any level.
#include "cpu/level.hpp"
#include "decode/plain.hpp"

#if KERNEL_VECTOR_BYTES == 64
#include "decode/avx512.hpp"
#elif KERNEL_VECTOR_BYTES == 32
#include "decode/avx2.hpp"
#else
namespace {
constexpr auto& bytes = bytes_plain;
constexpr auto& nibbles = nibbles_plain;
constexpr auto& group = group_plain;
}  // namespace
#endif

extern constexpr DecodeIsa LEVELLED(decode){LEVEL_NAME, bytes, nibbles, group};
