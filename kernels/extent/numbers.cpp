// Largest absolute entry and sum of squares of a block, for any level: sixteen sums, added up in order at the end. They
// are kept in vectors of a register: GCC keeps a wider one that a loop carries in memory.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cpu/lanes.hpp"
#include "extent/kernels.hpp"

namespace {

constexpr Index kSums = 16;

// Read: how a stored number becomes one, of 16, 32 or 64 bits. The largest is found among the bits without the sign,
// which are in the order of the numbers; kShift to the left they are those of float32. The numbers left at the end go
// to the first sum.
template <class Read, class Bits, int kShift = 0>
void block(const typename Read::Stored* x, std::ptrdiff_t n, Bits& top, double& sum) {
    using Word = std::conditional_t<sizeof(typename Read::Stored) == 2, std::uint16_t, Bits>;
    constexpr Index words = KERNEL_VECTOR_BYTES / sizeof(Word) < kSums ? KERNEL_VECTOR_BYTES / sizeof(Word) : kSums,
                    parts = kSums / kLanes;
    typedef Word Words __attribute__((vector_size(words * sizeof(Word))));
    constexpr Word magnitude = static_cast<Word>(~Word{0}) >> 1;
    constexpr bool halves = std::is_same_v<Read, ReadFloat16>;
    Words tops[kSums / words] = {};
    Lanes partial[parts] = {};
    std::ptrdiff_t i = 0;
    for (; i + kSums <= n; i += kSums) {
        for (Index k = 0; k < kSums; k += words) {
            Words bits;
            std::memcpy(&bits, x + i + k, sizeof(bits));
            bits &= magnitude;
            tops[k / words] = bits > tops[k / words] ? bits : tops[k / words];
        }
        float narrow[kSums];
        if constexpr (halves) read_row<Read>(x + i, kSums, narrow);
        for (Index part = 0; part < parts; ++part) {
            Lanes value;
            if constexpr (halves) {
                value = widen<ReadFloat32>(narrow + part * kLanes);
            } else {
                value = widen<Read>(x + i + part * kLanes);
            }
            partial[part] += value * value;
        }
    }
    double sums[kSums];
    std::memcpy(sums, partial, sizeof(sums));
    Word largest = 0;
    for (Index k = 0; k < kSums; ++k) {
        const Word bits = tops[k / words][k % words];
        largest = bits > largest ? bits : largest;
    }
    for (; i < n; ++i) {
        const Word bits = bit_copy<Word>(x[i]) & magnitude;
        largest = bits > largest ? bits : largest;
        const double value = static_cast<double>(Read::read(x[i]));
        sums[0] += value * value;
    }
    for (const double each : sums) sum += each;
    const Bits found = static_cast<Bits>(largest) << kShift;
    top = found > top ? found : top;
}

}  // namespace

extern constexpr ExtentKernel LEVELLED(extent){
    block<ReadFloat64, std::uint64_t>,
    block<ReadFloat32, std::uint32_t>,
    block<ReadFloat16, std::uint32_t>,
    block<ReadBfloat16, std::uint32_t, 16>,
};
