#include "sturm/slice.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "sturm/groups.hpp"

namespace {

constexpr double ln2 = 0.69314718055994530942;
// A shift of more than 2^far_beyond max |B| is so far that |lambda - z| and |z| are one number.
constexpr int far_beyond = 60;

}  // namespace

const char* sturm_kernel_name() { return BEST_OF(sturm).name; }

template <class T>
void count_below(const T* band, std::int64_t n, std::int64_t width, const double* shifts, std::int64_t count,
                 std::int64_t* below) {
    const std::vector<double> asked(shifts, shifts + count);
    if (std::any_of(asked.begin(), asked.end(), [](double x) { return std::isnan(x); })) {
        throw std::invalid_argument("shifts: expected numbers, found NaN");
    }
    std::vector<SturmProduct> products;
    multiply_pivots(ScaledBand<T>(band, n, width, sturm_kernels<T>()), n, asked, products);
    std::transform(products.begin(), products.end(), below, [](const SturmProduct& p) { return p.below; });
}

template <class T>
void log_abs_det(const T* band, std::int64_t n, std::int64_t width, const std::complex<double>* shifts,
                 std::int64_t count, double* values, const bool* wanted) {
    for (std::int64_t s = 0; s < count; ++s) {
        if (wanted != nullptr && !wanted[s]) continue;
        if (!std::isfinite(shifts[s].real()) || !std::isfinite(shifts[s].imag()) || shifts[s].imag() < 0) {
            throw std::invalid_argument("shifts: expected finite numbers with imaginary part >= 0");
        }
    }
    const SturmKernels<T>& kernels = sturm_kernels<T>();
    const ScaledBand<T> scaled(band, n, width, kernels);
    // Near an eigenvalue a pivot is small in truth, and its logarithm is what is asked for.
    const std::vector<T> least(static_cast<std::size_t>(scaled.view.order), sizeof(T) == 8 ? T(1e-32) : T(1e-16));
    SturmBand<T> view = scaled.view;
    view.pivot_floor = least.data();

    const double far = std::ldexp(1.0, scaled.exponent + far_beyond);
    LaneGroups complex{{}, kernels.lanes}, real{{}, kernels.lanes};
    for (std::int64_t s = 0; s < count; ++s) {
        const std::complex<double> z = shifts[s];
        values[s] = 0;
        if (wanted != nullptr && !wanted[s]) continue;
        if (std::max(std::abs(z.real()), z.imag()) > far) {
            values[s] = static_cast<double>(n) * std::log(z).real();  // never overflows, as |z| may
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
                   for (int lane = 0; lane < kernels.lanes; ++lane) {
                       const std::complex<double> z = shifts[mine.place(group, lane)];
                       re[lane] = static_cast<T>(std::ldexp(z.real(), -scaled.exponent));
                       im[lane] = static_cast<T>(std::ldexp(z.imag(), -scaled.exponent));
                   }
                   SturmProduct products[most_lanes];
                   if (is_complex) {
                       kernels.complex_product(view, re, im, products, workspace);
                   } else {
                       kernels.real_product(view, re, products, workspace);
                   }
                   const double power = is_complex ? 0.5 : 1.0;  // of complex pivots the squares were multiplied
                   for (int lane = 0; lane < kernels.lanes; ++lane) {
                       const SturmProduct& p = products[lane];
                       const double exponent = power * static_cast<double>(p.exponent);
                       values[mine.place(group, lane)] =
                           power * std::log(p.mantissa) + ln2 * (exponent + static_cast<double>(n) * scaled.exponent);
                   }
               });
}

template void count_below(const float*, std::int64_t, std::int64_t, const double*, std::int64_t, std::int64_t*);
template void count_below(const double*, std::int64_t, std::int64_t, const double*, std::int64_t, std::int64_t*);
template void log_abs_det(const float*, std::int64_t, std::int64_t, const std::complex<double>*, std::int64_t, double*,
                          const bool*);
template void log_abs_det(const double*, std::int64_t, std::int64_t, const std::complex<double>*, std::int64_t, double*,
                          const bool*);
