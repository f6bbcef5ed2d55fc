// One pass over a weight: largest absolute entry and sum of squares in float64, read at the speed of memory.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "bind.hpp"

namespace nb = nanobind;

// Multiversioned by the compiler: the loops below are plain enough to vectorise.
#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)
#define VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTOR_CLONES
#endif

namespace {

struct Extent {
    double max_abs = 0.0;
    double sum_of_squares = 0.0;
};

constexpr std::ptrdiff_t kBlock = 1 << 14;

// Absolute values as float64; the largest bit pattern is tracked too, because NaN and infinity are the largest patterns
// while a floating-point maximum may drop a NaN.
VECTOR_CLONES void block_bfloat16(const std::uint16_t* x, std::ptrdiff_t n, std::uint32_t& top, double& sum) {
    std::uint32_t largest = 0;
    double lanes[16] = {};
    std::ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int k = 0; k < 16; ++k) {
            const std::uint32_t bits = static_cast<std::uint32_t>(x[i + k] & 0x7fffU) << 16;
            largest = std::max(largest, bits);
            const double value = std::bit_cast<float>(bits);
            lanes[k] += value * value;
        }
    }
    for (; i < n; ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(x[i] & 0x7fffU) << 16;
        largest = std::max(largest, bits);
        const double value = std::bit_cast<float>(bits);
        lanes[0] += value * value;
    }
    for (const double lane : lanes) sum += lane;
    top = std::max(top, largest);
}

// float16 -> float32 exactly, subnormals included: shift the fields into place and multiply by 2^(127 - 15).
inline float widen_half(std::uint32_t magnitude) { return std::bit_cast<float>(magnitude << 13) * 0x1p112F; }

VECTOR_CLONES void block_float16(const std::uint16_t* x, std::ptrdiff_t n, std::uint32_t& top, double& sum) {
    std::uint32_t largest = 0;
    double lanes[16] = {};
    for (std::ptrdiff_t i = 0; i < n; ++i) {
        const std::uint32_t bits = x[i] & 0x7fffU;
        largest = std::max(largest, bits);
        const double value = widen_half(bits);
        lanes[i % 16] += value * value;
    }
    for (const double lane : lanes) sum += lane;
    top = std::max(top, largest);
}

VECTOR_CLONES void block_float32(const float* x, std::ptrdiff_t n, std::uint32_t& top, double& sum) {
    std::uint32_t largest = 0;
    double lanes[16] = {};
    std::ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int k = 0; k < 16; ++k) {
            largest = std::max(largest, std::bit_cast<std::uint32_t>(x[i + k]) & 0x7fffffffU);
            const double value = x[i + k];
            lanes[k] += value * value;
        }
    }
    for (; i < n; ++i) {
        largest = std::max(largest, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffU);
        lanes[0] += static_cast<double>(x[i]) * x[i];
    }
    for (const double lane : lanes) sum += lane;
    top = std::max(top, largest);
}

VECTOR_CLONES void block_float64(const double* x, std::ptrdiff_t n, std::uint64_t& top, double& sum) {
    std::uint64_t largest = 0;
    double lanes[8] = {};
    std::ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; ++k) {
            largest = std::max(largest, std::bit_cast<std::uint64_t>(x[i + k]) & ~(std::uint64_t{1} << 63));
            lanes[k] += x[i + k] * x[i + k];
        }
    }
    for (; i < n; ++i) {
        largest = std::max(largest, std::bit_cast<std::uint64_t>(x[i]) & ~(std::uint64_t{1} << 63));
        lanes[0] += x[i] * x[i];
    }
    for (const double lane : lanes) sum += lane;
    top = std::max(top, largest);
}

// Runs `block` over [0, n) in parallel; fixed blocks summed in order, so the result does not depend on the threads.
template <class Element, class Bits, class Block>
void over_blocks(const Element* x, std::ptrdiff_t n, Bits& top, double& sum, Block block) {
    const std::ptrdiff_t blocks = (n + kBlock - 1) / kBlock;
    constexpr std::ptrdiff_t kBatch = 4096;
    for (std::ptrdiff_t first = 0; first < blocks; first += kBatch) {
        const std::ptrdiff_t last = std::min(blocks, first + kBatch);
        double sums[kBatch];
        Bits tops[kBatch];
#pragma omp parallel for schedule(static)
        for (std::ptrdiff_t b = first; b < last; ++b) {
            sums[b - first] = 0.0;
            tops[b - first] = 0;
            block(x + b * kBlock, std::min(kBlock, n - b * kBlock), tops[b - first], sums[b - first]);
        }
        for (std::ptrdiff_t b = 0; b < last - first; ++b) {
            sum += sums[b];
            top = std::max(top, tops[b]);
        }
    }
}

Extent measure(const void* data, std::ptrdiff_t n, nb::dlpack::dtype dtype) {
    Extent result;
    std::uint32_t top = 0;
    if (dtype == nb::dtype<double>()) {
        std::uint64_t top64 = 0;
        over_blocks(static_cast<const double*>(data), n, top64, result.sum_of_squares, block_float64);
        result.max_abs = std::bit_cast<double>(top64);
        return result;
    }
    if (dtype == nb::dtype<float>()) {
        over_blocks(static_cast<const float*>(data), n, top, result.sum_of_squares, block_float32);
        result.max_abs = std::bit_cast<float>(top);
    } else if (dtype == nb::dtype<Bfloat16>()) {
        over_blocks(static_cast<const std::uint16_t*>(data), n, top, result.sum_of_squares, block_bfloat16);
        result.max_abs = std::bit_cast<float>(top);
    } else {
        over_blocks(static_cast<const std::uint16_t*>(data), n, top, result.sum_of_squares, block_float16);
        if (top > 0x7c00U) {
            result.max_abs = std::numeric_limits<double>::quiet_NaN();
        } else if (top == 0x7c00U) {
            result.max_abs = std::numeric_limits<double>::infinity();
        } else {
            result.max_abs = widen_half(top);
        }
    }
    return result;
}

}  // namespace

void bind_extent(nb::module_& m) {
    m.def(
        "measure",
        [](nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> weight) {
            const nb::dlpack::dtype dtype = weight.dtype();
            if (dtype != nb::dtype<double>() && dtype != nb::dtype<float>() && dtype != nb::dtype<Bfloat16>() &&
                dtype != nb::dtype<Float16>()) {
                throw nb::type_error("measure: expected float64, float32, float16 or bfloat16");
            }
            Extent extent;
            {
                nb::gil_scoped_release release;
                extent = measure(weight.data(), static_cast<std::ptrdiff_t>(weight.size()), dtype);
            }
            return nb::make_tuple(extent.max_abs, extent.sum_of_squares);
        },
        nb::arg("weight"), "(largest absolute entry, sum of squares in float64); NaN or infinity shows in the first.");
}
