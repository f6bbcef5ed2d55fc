// A band matrix as the sweeps read it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "cpu/scratch.hpp"
#include "sturm/kernels.hpp"

namespace {

// A band padded to whole blocks and scaled by 2^-exponent, so that neither squares of pivots nor their reciprocals
// leave the range of T whatever the scale of B. A zero one has an exponent below that of every double.
template <class T>
struct ScaledBand {
    Scratch<T> memory;
    SturmBand<T> view{};
    int exponent = -1200;

    ScaledBand(const T* band, std::int64_t n, std::int64_t width, const SturmKernels<T>& kernels) {
        const int order = static_cast<int>(n), b = static_cast<int>(std::min(width, n) - 1);
        view.order = (order + sturm_block - 1) / sturm_block * sturm_block;
        view.blocks = std::max(1, (b + sturm_block - 1) / sturm_block);
        view.stride = view.blocks * sturm_block + 1;
        memory = Scratch<T>(static_cast<std::ptrdiff_t>(view.order) * (view.stride + 2));
        T* const entries = memory.data();
        T* const pivot_floor = entries + static_cast<std::ptrdiff_t>(view.order) * view.stride;
        T* const live = pivot_floor + view.order;

        const T largest = kernels.measure(band, n, width, b, pivot_floor);
        if (!std::isfinite(largest)) {
            throw std::invalid_argument("bands: expected finite entries, found NaN or infinity");
        }
        int scale = 0;
        std::frexp(largest, &scale);
        if (largest > 0) exponent = scale;
        const T half_factor = std::ldexp(T(1), -(scale / 2));  // two steps, so that neither overflows
        const T other_half = std::ldexp(T(1), scale / 2 - scale);
        kernels.scale(band, n, width, b, half_factor, other_half, entries, view.stride);

        // A pivot d fills a block with entries of size 1 / d, which costs eps / d; moving it to the floor costs the
        // floor. eps^(3/4) keeps both small; it is relative to the column, because graded bands (a few huge
        // eigenvalues at the head) need a local scale. See the docstring of
        // spectrum_fast.measure.ops.sturm.count_below.
        constexpr T eps = std::numeric_limits<T>::epsilon();
        constexpr T guard = sizeof(T) == 8 ? T(0x1p-39) : T(0x1p-17);
        for (int j = 0; j < view.order; ++j) {
            live[j] = j < order ? T(1) : T(0);
            if (j >= order) {
                T* const column = entries + static_cast<std::ptrdiff_t>(j) * view.stride;
                std::fill(column, column + view.stride, T(0));
                column[0] = 1;
                pivot_floor[j] = 0;
            } else if (largest == 0) {
                pivot_floor[j] = std::numeric_limits<T>::min();
            } else {
                pivot_floor[j] = guard * std::max(eps, pivot_floor[j] * half_factor * other_half);
            }
        }
        view.entries = entries;
        view.pivot_floor = pivot_floor;
        view.live = live;
    }
};

}  // namespace
