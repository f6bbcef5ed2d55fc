#include "sturm/slice.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "cpu/features.hpp"
#include "cpu/threads.hpp"
#include "sturm/kernels.hpp"
#include "sturm/scaled_band.hpp"

namespace {

constexpr int most_lanes = 16;
constexpr double pi = 3.14159265358979323846, ln2 = 0.69314718055994530942;
// A shift of more than 2^far_beyond max |B| is so far that log(lambda - z) and log(-z) are one number.
constexpr int far_beyond = 60;
// Shifts of a round of narrowing, whatever the register: of one of AVX-512, where halving brackets tells most a shift;
// and more for a band so long that threads share them out.
constexpr std::int64_t abreast = 8, rows_abreast = 2048;
constexpr int most_rounds = 400;

template <class T>
const SturmKernels<T>& kernels_of(const SturmIsa& isa) {
    if constexpr (sizeof(T) == sizeof(float))
        return isa.f32;
    else
        return isa.f64;
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

template <class T>
void count_scaled(const ScaledBand<T>& scaled, std::int64_t n, const double* shifts, std::int64_t count,
                  std::int64_t* below) {
    const SturmKernels<T>& kernels = kernels_of<T>(BEST_OF(sturm));
    LaneGroups finite{{}, kernels.lanes};
    for (std::int64_t s = 0; s < count; ++s) {
        if (std::isfinite(shifts[s])) finite.places.push_back(s);
        below[s] = shifts[s] > 0 ? n : 0;  // of an infinite one
    }
    // Gershgorin: |lambda| <= (2 b + 1) max|B|, so a shift beyond twice that counts like one there.
    const double limit = 4.0 * scaled.view.stride;
    for_groups(finite.count(), sturm_workspace_bytes(kernels, scaled.view.blocks, false),
               [&](std::int64_t group, void* workspace) {
                   alignas(64) T lanes[most_lanes];
                   std::int64_t counts[most_lanes];
                   for (int lane = 0; lane < kernels.lanes; ++lane) {
                       const double shift = std::ldexp(shifts[finite.place(group, lane)], -scaled.exponent);
                       lanes[lane] = static_cast<T>(std::clamp(shift, -limit, limit));
                   }
                   kernels.count(scaled.view, lanes, counts, workspace);
                   for (int lane = 0; lane < kernels.lanes; ++lane) below[finite.place(group, lane)] = counts[lane];
               });
}

}  // namespace

const char* sturm_kernel_name() { return BEST_OF(sturm).name; }

template <class T>
void count_below(const T* band, std::int64_t n, std::int64_t width, const double* shifts, std::int64_t count,
                 std::int64_t* below) {
    for (std::int64_t s = 0; s < count; ++s) {
        if (std::isnan(shifts[s])) throw std::invalid_argument("shifts: expected numbers, found NaN");
    }
    const ScaledBand<T> scaled(band, n, width, kernels_of<T>(BEST_OF(sturm)));
    count_scaled(scaled, n, shifts, count, below);
}

template <class T>
void narrow(const T* band, std::int64_t n, std::int64_t width, double* lo, double* hi, const std::int64_t* ranks,
            const double* enough, std::int64_t count) {
    const ScaledBand<T> scaled(band, n, width, kernels_of<T>(BEST_OF(sturm)));
    const std::int64_t together = abreast * (1 + n / rows_abreast);
    std::vector<std::int64_t> wide, below;
    std::vector<double> points, shifts;
    for (int round = 0; round < most_rounds; ++round) {
        wide.clear();
        for (std::int64_t k = 0; k < count; ++k) {
            const bool is_shared = !wide.empty() && lo[k] == lo[wide.back()] && hi[k] == hi[wide.back()];
            if (hi[k] - lo[k] > enough[k] && std::nextafter(lo[k], hi[k]) < hi[k] && !is_shared) wide.push_back(k);
        }
        if (wide.empty()) return;
        const auto brackets = static_cast<std::int64_t>(wide.size());
        const std::int64_t total = (brackets + together - 1) / together * together;
        points.clear();
        for (std::int64_t i = 0; i < brackets; ++i) {
            const double a = lo[wide[i]], b = hi[wide[i]];
            const auto inside = total / brackets + (i < total % brackets ? 1 : 0);
            for (std::int64_t j = 1; j <= inside; ++j)
                points.push_back(a + (b - a) * (static_cast<double>(j) / static_cast<double>(inside + 1)));
        }
        std::sort(points.begin(), points.end());
        shifts.resize(points.size());
        std::transform(points.begin(), points.end(), shifts.begin(), [](double t) { return t * t; });
        below.resize(points.size());
        count_scaled(scaled, n, shifts.data(), total, below.data());
        // Rounding can make two counts one apart come in the wrong order; N itself never decreases.
        for (std::size_t s = 1; s < below.size(); ++s) below[s] = std::max(below[s], below[s - 1]);
        for (std::int64_t k = 0; k < count; ++k) {
            const auto passed = std::upper_bound(below.begin(), below.end(), ranks[k]) - below.begin();
            const double a = lo[k], b = hi[k];
            if (passed > 0 && a < points[passed - 1] && points[passed - 1] < b) lo[k] = points[passed - 1];
            if (passed < total && a < points[passed] && points[passed] < b) hi[k] = points[passed];
        }
    }
}

template <class T>
void log_det(const T* band, std::int64_t n, std::int64_t width, const std::complex<double>* shifts, std::int64_t count,
             std::complex<double>* values, const bool* wanted) {
    for (std::int64_t s = 0; s < count; ++s) {
        if (wanted != nullptr && !wanted[s]) continue;
        if (!std::isfinite(shifts[s].real()) || !std::isfinite(shifts[s].imag()) || shifts[s].imag() < 0) {
            throw std::invalid_argument("shifts: expected finite numbers with imaginary part >= 0");
        }
    }
    const SturmKernels<T>& kernels = kernels_of<T>(BEST_OF(sturm));
    const ScaledBand<T> scaled(band, n, width, kernels);
    const double far = std::ldexp(1.0, scaled.exponent + far_beyond);
    LaneGroups complex{{}, kernels.lanes}, real{{}, kernels.lanes};
    for (std::int64_t s = 0; s < count; ++s) {
        const std::complex<double> z = shifts[s];
        values[s] = 0;
        if (wanted != nullptr && !wanted[s]) continue;
        if (std::max(std::abs(z.real()), z.imag()) > far) {
            values[s] = static_cast<double>(n) * std::log(-z);
        } else {
            (z.imag() > 0 ? complex : real).places.push_back(s);
        }
    }
    // Complex ones first: they take longer.
    for_groups(complex.count() + real.count(), sturm_workspace_bytes(kernels, scaled.view.blocks, complex.count() > 0),
               [&](std::int64_t group, void* workspace) {
                   const bool is_complex = group < complex.count();
                   const LaneGroups& mine = is_complex ? complex : real;
                   if (!is_complex) group -= complex.count();
                   alignas(64) T re[most_lanes], im[most_lanes];
                   SturmProduct products[most_lanes];
                   for (int lane = 0; lane < kernels.lanes; ++lane) {
                       const std::complex<double> z = shifts[mine.place(group, lane)];
                       re[lane] = static_cast<T>(std::ldexp(z.real(), -scaled.exponent));
                       im[lane] = static_cast<T>(std::ldexp(z.imag(), -scaled.exponent));
                   }
                   if (is_complex)
                       kernels.complex_product(scaled.view, re, im, products, workspace);
                   else
                       kernels.real_product(scaled.view, re, products, workspace);
                   for (int lane = 0; lane < kernels.lanes; ++lane) {
                       const SturmProduct& p = products[lane];
                       const double exponent = static_cast<double>(p.exponent + n * scaled.exponent);
                       const double angle = std::atan2(p.im == 0 ? 0.0 : p.im, p.re);
                       values[mine.place(group, lane)] = {std::log(std::hypot(p.re, p.im)) + exponent * ln2,
                                                          angle - 2 * pi * static_cast<double>(p.turns)};
                   }
               });
}

template void count_below(const float*, std::int64_t, std::int64_t, const double*, std::int64_t, std::int64_t*);
template void count_below(const double*, std::int64_t, std::int64_t, const double*, std::int64_t, std::int64_t*);
template void narrow(const float*, std::int64_t, std::int64_t, double*, double*, const std::int64_t*, const double*,
                     std::int64_t);
template void narrow(const double*, std::int64_t, std::int64_t, double*, double*, const std::int64_t*, const double*,
                     std::int64_t);
template void log_det(const float*, std::int64_t, std::int64_t, const std::complex<double>*, std::int64_t,
                      std::complex<double>*, const bool*);
template void log_det(const double*, std::int64_t, std::int64_t, const std::complex<double>*, std::int64_t,
                      std::complex<double>*, const bool*);
