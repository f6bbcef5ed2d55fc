// Sweeps of many shifts: a register full of them at a time, groups shared out among threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/features.hpp"
#include "cpu/threads.hpp"
#include "sturm/kernels.hpp"
#include "sturm/scaled_band.hpp"

namespace {

constexpr int most_lanes = 16;

template <class T>
const SturmKernels<T>& sturm_kernels() {
    if constexpr (sizeof(T) == sizeof(float))
        return BEST_OF(sturm).f32;
    else
        return BEST_OF(sturm).f64;
}

// Places of shifts, a register full of them at a time; the last one fills the last register up.
struct LaneGroups {
    std::vector<std::int64_t> places;
    int lanes;

    std::int64_t count() const { return (static_cast<std::int64_t>(places.size()) + lanes - 1) / lanes; }
    std::int64_t place(std::int64_t group, int lane) const {
        return places[std::min(static_cast<std::size_t>(group * lanes + lane), places.size() - 1)];
    }
};

// Calls body(group, scratch) for every group, in parallel. The scratch memory of all threads is taken before the
// parallel region: no exception may leave one.
template <class Body>
void for_groups(std::int64_t groups, std::size_t scratch_bytes, const Body& body) {
    const int threads = static_cast<int>(std::min<std::int64_t>(omp_get_max_threads(), groups));
    const auto bytes = static_cast<std::ptrdiff_t>((scratch_bytes + 63) / 64 * 64);
    const Scratch<char> scratch(threads * bytes);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        char* const mine = scratch.data() + omp_get_thread_num() * bytes;
#pragma omp for schedule(dynamic)
        for (std::int64_t group = 0; group < groups; ++group) body(group, mine);
    }
}

// products[s] <- pivots of B - shifts[s] I, those nearer to zero than their floors moved there; of the determinant of
// an infinite shift nothing is known.
template <class T>
void multiply_pivots(const ScaledBand<T>& scaled, std::int64_t n, const std::vector<double>& shifts,
                     std::vector<SturmProduct>& products) {
    const SturmKernels<T>& kernels = sturm_kernels<T>();
    LaneGroups finite{{}, kernels.lanes};
    products.resize(shifts.size());
    for (std::size_t s = 0; s < shifts.size(); ++s) {
        if (std::isfinite(shifts[s])) finite.places.push_back(static_cast<std::int64_t>(s));
        products[s] = {std::numeric_limits<double>::quiet_NaN(), 0, shifts[s] > 0 ? n : 0};
    }
    // Gershgorin: |lambda| <= (2 b + 1) max|B|, so a shift beyond twice that counts like one there.
    const double limit = 4.0 * scaled.view.stride;
    for_groups(finite.count(), sturm_workspace_bytes(kernels, scaled.view.blocks, false),
               [&](std::int64_t group, void* workspace) {
                   alignas(64) T lanes[most_lanes];
                   SturmProduct found[most_lanes];
                   for (int lane = 0; lane < kernels.lanes; ++lane) {
                       const double shift = std::ldexp(shifts[finite.place(group, lane)], -scaled.exponent);
                       lanes[lane] = static_cast<T>(std::clamp(shift, -limit, limit));
                   }
                   kernels.real_product(scaled.view, lanes, found, workspace);
                   for (int lane = 0; lane < kernels.lanes; ++lane) products[finite.place(group, lane)] = found[lane];
               });
}

}  // namespace
