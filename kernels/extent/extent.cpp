#include "extent/extent.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cpu/features.hpp"
#include "extent/kernels.hpp"

namespace {

constexpr std::ptrdiff_t kBlock = 1 << 14;

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

double from_float16_bits(std::uint32_t bits) {
    if (bits > 0x7c00U) return std::numeric_limits<double>::quiet_NaN();
    if (bits == 0x7c00U) return std::numeric_limits<double>::infinity();
    return std::bit_cast<float>(bits << 13) * 0x1p112F;  // the fields in place, times 2^(127 - 15): exact
}

}  // namespace

Extent measure_extent(const void* data, std::ptrdiff_t n, Element element) {
    const ExtentKernel& kernel = BEST_OF(extent);
    Extent result;
    double& sum = result.sum_of_squares;
    std::uint32_t top = 0;
    if (element == Element::float64) {
        std::uint64_t top64 = 0;
        over_blocks(static_cast<const double*>(data), n, top64, sum, kernel.float64);
        result.max_abs = std::bit_cast<double>(top64);
    } else if (element == Element::float32) {
        over_blocks(static_cast<const float*>(data), n, top, sum, kernel.float32);
        result.max_abs = std::bit_cast<float>(top);
    } else if (element == Element::bfloat16) {
        over_blocks(static_cast<const std::uint16_t*>(data), n, top, sum, kernel.bfloat16);
        result.max_abs = std::bit_cast<float>(top);
    } else {
        over_blocks(static_cast<const std::uint16_t*>(data), n, top, sum, kernel.float16);
        result.max_abs = from_float16_bits(top);
    }
    return result;
}
