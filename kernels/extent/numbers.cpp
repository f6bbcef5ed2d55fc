// Largest absolute entry and sum of squares of a block, for any level: sixteen lanes, summed each for itself and in
// order at the end. They are added up in vectors of a register: GCC keeps a wider one that a loop carries in memory.
#include <cstddef>
#include <cstdint>

#include "cpu/level.hpp"
#include "extent/kernels.hpp"
#include "gram/pack.hpp"

namespace {

constexpr std::ptrdiff_t kLanes = 16;

typedef std::uint16_t Words __attribute__((vector_size(2 * kLanes)));
typedef std::uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef double Doubles __attribute__((vector_size(8 * kLanes)));
typedef std::uint64_t LongBits __attribute__((vector_size(4 * kLanes)));
typedef double HalfDoubles __attribute__((vector_size(4 * kLanes)));
typedef double Register __attribute__((vector_size(KERNEL_VECTOR_BYTES)));
typedef float HalfRegister __attribute__((vector_size(KERNEL_VECTOR_BYTES / 2)));

template <class To, class From>
inline To load_as(const From* from) {
    To to;
    std::memcpy(&to, from, sizeof(To));
    return to;
}

// Adds the lanes to a sum, and raises `top` to the largest of theirs.
template <class Sums, class Tops, class Bit>
inline void gather(const Sums& sums, const Tops& tops, double& sum, Bit& top) {
    for (std::size_t k = 0; k < sizeof(Sums) / sizeof(double); ++k) sum += sums[k];
    for (std::size_t k = 0; k < sizeof(Tops) / sizeof(Bit); ++k) top = tops[k] > top ? tops[k] : top;
}

// Widen: 16 words of a stored type to the bits and the values of 16 absolute numbers in float32; both given one by one
// too. The numbers left at the end go to lane 0, or, kCyclic, to the lanes in turn.
template <class Widen, class Stored, bool kCyclic>
void block_of_floats(const Stored* x, std::ptrdiff_t n, std::uint32_t& top, double& sum) {
    Bits tops = {};
    constexpr int parts = sizeof(Doubles) / sizeof(Register);
    Register partial[parts] = {};
    std::ptrdiff_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        const Bits bits = Widen::bits(x + i);
        tops = bits > tops ? bits : tops;
        const Floats values = Widen::values(bits);
        HalfRegister narrow[parts];
        std::memcpy(narrow, &values, sizeof(values));
        for (int part = 0; part < parts; ++part) {
            const Register value = __builtin_convertvector(narrow[part], Register);
            partial[part] += value * value;
        }
    }
    auto sums = load_as<Doubles>(partial);
    for (std::ptrdiff_t lane = 0; i < n; ++i, lane += kCyclic) {
        const std::uint32_t bits = Widen::bits_of(x[i]);
        top = bits > top ? bits : top;
        const double value = Widen::value_of(bits);
        sums[lane] += value * value;
    }
    gather(sums, tops, sum, top);
}

struct WidenFloat32 {
    static Bits bits(const float* x) { return load_as<Bits>(x) & 0x7fffffffU; }
    static Floats values(const Bits& bits) { return reinterpret_cast<const Floats&>(bits); }
    static std::uint32_t bits_of(float x) { return bit_copy<std::uint32_t>(x) & 0x7fffffffU; }
    static float value_of(std::uint32_t bits) { return bit_copy<float>(bits); }
};

struct WidenBfloat16 {
    static Bits bits(const std::uint16_t* x) {
        return __builtin_convertvector(load_as<Words>(x) & std::uint16_t{0x7fff}, Bits) << 16;
    }
    static Floats values(const Bits& bits) { return reinterpret_cast<const Floats&>(bits); }
    static std::uint32_t bits_of(std::uint16_t x) { return static_cast<std::uint32_t>(x & 0x7fffU) << 16; }
    static float value_of(std::uint32_t bits) { return bit_copy<float>(bits); }
};

// Exactly, subnormals included: the fields shifted into place and multiplied by 2^(127 - 15).
struct WidenFloat16 {
    static Bits bits(const std::uint16_t* x) {
        return __builtin_convertvector(load_as<Words>(x) & std::uint16_t{0x7fff}, Bits);
    }
    static Floats values(const Bits& bits) {
        const Bits shifted = bits << 13;
        return reinterpret_cast<const Floats&>(shifted) * 0x1p112F;
    }
    static std::uint32_t bits_of(std::uint16_t x) { return x & 0x7fffU; }
    static float value_of(std::uint32_t bits) { return bit_copy<float>(bits << 13) * 0x1p112F; }
};

void block_float64(const double* x, std::ptrdiff_t n, std::uint64_t& top, double& sum) {
    constexpr std::uint64_t magnitude = ~(std::uint64_t{1} << 63);
    LongBits tops = {};
    HalfDoubles sums = {};
    std::ptrdiff_t i = 0;
    for (; i + kLanes / 2 <= n; i += kLanes / 2) {
        const LongBits bits = load_as<LongBits>(x + i) & magnitude;
        tops = bits > tops ? bits : tops;
        const HalfDoubles value = load_as<HalfDoubles>(x + i);
        sums += value * value;
    }
    for (; i < n; ++i) {
        const std::uint64_t bits = bit_copy<std::uint64_t>(x[i]) & magnitude;
        top = bits > top ? bits : top;
        sums[0] += x[i] * x[i];
    }
    gather(sums, tops, sum, top);
}

}  // namespace

extern constexpr ExtentKernel LEVELLED(extent){
    block_float64,
    block_of_floats<WidenFloat32, float, false>,
    block_of_floats<WidenFloat16, std::uint16_t, true>,
    block_of_floats<WidenBfloat16, std::uint16_t, false>,
};
