#include "sturm/slice.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/features.hpp"
#include "cpu/threads.hpp"
#include "sturm/kernels.hpp"

namespace {

const SturmKernels<float>& kernels_of(const SturmIsa& isa, float) { return isa.f32; }
const SturmKernels<double>& kernels_of(const SturmIsa& isa, double) { return isa.f64; }

// x = m * 2^exponent with m in [1/2, 1); 0 for x = 0.
int exponent_of(double x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    return exponent;
}

constexpr int exponent_of_zero = -1200;
// A shift of 2^far_beyond max |B| or more is so far that log(lambda - z) and log(-z) are one number.
constexpr int far_beyond = 60;

// A band copied into the layout of the sweep and scaled by 2^-exponent, so that neither squares of pivots nor their
// reciprocals leave the range of T whatever the scale of B. A zero one has the exponent of no double.
template <class T>
struct ScaledBand {
    std::vector<T> entries, pivot_floor, live;
    SturmBand<T> view{};
    int exponent = 0;
    bool zero = true;

    ScaledBand(const T* band, std::int64_t n, std::int64_t width, const SturmShape& shape) {
        const int order = static_cast<int>(n), panel = shape.panel;
        const int b = static_cast<int>(std::min(width, n) - 1);
        const int panels = (order + panel - 1) / panel;
        view.order = panels * panel;
        view.half_width = b;
        view.rows = sturm_rows(shape, b);
        view.ring = sturm_ring(shape, b);

        pivot_floor.assign(view.order, T(0));
        T largest = 0;
        bool finite = true;
        for (int j = 0; j < order; ++j) {
            T of_column = 0;
            for (int d = 0; d <= std::min(b, order - 1 - j); ++d) {
                const T size = std::abs(band[j * width + d]);
                finite &= size <= std::numeric_limits<T>::max();
                of_column = size > of_column ? size : of_column;
            }
            pivot_floor[j] = of_column;
            largest = std::max(largest, of_column);
        }
        if (!finite) throw std::invalid_argument("bands: expected finite entries, found NaN or infinity");
        zero = largest == 0;
        exponent = zero ? exponent_of_zero : exponent_of(largest);

        // A pivot d fills a block with entries of size 1 / d, which costs eps / d; moving it to the floor costs the
        // floor. eps^(3/4) keeps both small; it is relative to the column, because graded bands (a few huge
        // eigenvalues at the head) need a local scale. See the docstring of
        // spectrum_fast.measure.ops.sturm.count_below.
        constexpr T eps = std::numeric_limits<T>::epsilon();
        constexpr T guard = sizeof(T) == 8 ? T(0x1p-39) : T(0x1p-17);
        const int halved = zero ? 0 : exponent / 2, rest = zero ? 0 : exponent - halved;
        const T half_factor = std::ldexp(T(1), -halved);  // two steps, so that neither overflows
        const T other_half = std::ldexp(T(1), -rest);
        entries.assign(static_cast<std::size_t>(view.order) * view.rows, T(0));
        live.assign(view.order, T(0));
        for (int j = 0; j < order; ++j) {
            T* const column =
                entries.data() + (static_cast<std::size_t>(j / panel) * view.rows + j % panel) * panel + j % panel;
            for (int d = 0; d <= std::min(b, order - 1 - j); ++d)
                column[d * panel] = band[j * width + d] * half_factor * other_half;
            const T scale = std::max(eps, pivot_floor[j] * half_factor * other_half);
            pivot_floor[j] = zero ? std::numeric_limits<T>::min() : guard * scale;
            live[j] = 1;
        }
        view.entries = entries.data();
        view.pivot_floor = pivot_floor.data();
        view.live = live.data();
    }
};

// Aligned, zeroed scratch memory of one thread.
class Workspace {
  public:
    explicit Workspace(std::size_t bytes) : memory_(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
        if (memory_ == nullptr) throw std::bad_alloc();
        std::memset(memory_, 0, bytes);
    }
    ~Workspace() { std::free(memory_); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    void* data() const { return memory_; }

  private:
    void* memory_;
};

// Calls body(places, how many, scratch) for every lane group of these places of shifts, in parallel. The scratch memory
// of all threads is taken before the parallel region: no exception may leave one.
template <class Body>
void for_lane_groups(const std::vector<std::int64_t>& places, const SturmShape& shape, int rows, int ring, int threads,
                     const Body& body) {
    const auto count = static_cast<std::int64_t>(places.size());
    if (count == 0) return;
    const std::int64_t groups = (count + shape.lanes - 1) / shape.lanes;
    threads = static_cast<int>(std::min<std::int64_t>(threads, groups));
    std::vector<std::unique_ptr<Workspace>> scratch;
    for (int t = 0; t < threads; ++t) {
        scratch.push_back(std::make_unique<Workspace>(sturm_workspace_bytes(shape, rows, ring)));
    }
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        void* const mine = scratch[omp_get_thread_num()]->data();
#pragma omp for schedule(dynamic)
        for (std::int64_t first = 0; first < count; first += shape.lanes)
            body(places.data() + first, std::min<std::int64_t>(shape.lanes, count - first), mine);
    }
}

constexpr int most_lanes = 16;
constexpr double pi = 3.14159265358979323846, ln2 = 0.69314718055994530942;
// Shifts of a round of narrowing, whatever the register: of one of AVX-512, where halving brackets tells most a shift;
// and more for a band so long that threads share them out.
constexpr std::int64_t abreast = 8, rows_abreast = 2048;
constexpr int most_rounds = 400;

template <class T>
void count_scaled(const ScaledBand<T>& scaled, std::int64_t n, const double* shifts, std::int64_t count,
                  std::int64_t* below) {
    const SturmKernels<T>& kernels = kernels_of(BEST_OF(sturm), T(0));
    const SturmShape& shape = kernels.real_shape;
    std::vector<std::int64_t> places;
    for (std::int64_t s = 0; s < count; ++s) {
        if (std::isfinite(shifts[s])) places.push_back(s);
        below[s] = shifts[s] > 0 ? n : 0;  // of an infinite one
    }
    // Gershgorin: |lambda| <= (2 b + 1) max|B|, so a shift beyond twice that counts like one there.
    const double limit = 4.0 * scaled.view.half_width + 2.0;
    for_lane_groups(places, shape, scaled.view.rows, scaled.view.ring, omp_get_max_threads(),
                    [&](const std::int64_t* mine, std::int64_t used, void* workspace) {
                        alignas(64) T lanes[most_lanes];
                        alignas(64) std::int64_t counts[most_lanes];
                        for (int lane = 0; lane < shape.lanes; ++lane) {
                            const double shift = shifts[mine[std::min<std::int64_t>(lane, used - 1)]];
                            lanes[lane] =
                                static_cast<T>(std::clamp(std::ldexp(shift, -scaled.exponent), -limit, limit));
                        }
                        kernels.count(scaled.view, lanes, counts, workspace);
                        for (std::int64_t lane = 0; lane < used; ++lane) below[mine[lane]] = counts[lane];
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
    const ScaledBand<T> scaled(band, n, width, kernels_of(BEST_OF(sturm), T(0)).real_shape);
    count_scaled(scaled, n, shifts, count, below);
}

template <class T>
void narrow(const T* band, std::int64_t n, std::int64_t width, double* lo, double* hi, const std::int64_t* ranks,
            const double* enough, std::int64_t count) {
    const ScaledBand<T> scaled(band, n, width, kernels_of(BEST_OF(sturm), T(0)).real_shape);
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
    const SturmKernels<T>& kernels = kernels_of(BEST_OF(sturm), T(0));
    const ScaledBand<T> scaled(band, n, width, kernels.complex_shape);
    const double far = std::ldexp(1.0, scaled.exponent + far_beyond);
    std::vector<std::int64_t> real, complex;
    for (std::int64_t s = 0; s < count; ++s) {
        const std::complex<double> z = shifts[s];
        values[s] = 0;
        if (wanted != nullptr && !wanted[s]) continue;
        if (std::max(std::abs(z.real()), z.imag()) > far) {
            values[s] = static_cast<double>(n) * std::log(-z);
        } else {
            (z.imag() == 0 ? real : complex).push_back(s);
        }
    }
    const auto log_of = [&](const SturmProduct& p) -> std::complex<double> {
        const double exponent = static_cast<double>(p.exponent) + static_cast<double>(n) * scaled.exponent;
        const double angle = std::atan2(p.im == 0 ? 0.0 : p.im, p.re) - 2 * pi * static_cast<double>(p.turns);
        return {std::log(std::hypot(p.re, p.im)) + exponent * ln2, angle};
    };
    for_lane_groups(complex, kernels.complex_shape, scaled.view.rows, scaled.view.ring, omp_get_max_threads(),
                    [&](const std::int64_t* mine, std::int64_t used, void* workspace) {
                        alignas(64) T re[most_lanes], im[most_lanes];
                        SturmProduct products[most_lanes];
                        for (int lane = 0; lane < kernels.complex_shape.lanes; ++lane) {
                            const std::complex<double> z = shifts[mine[std::min<std::int64_t>(lane, used - 1)]];
                            re[lane] = static_cast<T>(std::ldexp(z.real(), -scaled.exponent));
                            im[lane] = static_cast<T>(std::ldexp(z.imag(), -scaled.exponent));
                        }
                        kernels.complex_product(scaled.view, re, im, products, workspace);
                        for (int lane = 0; lane < used; ++lane) values[mine[lane]] = log_of(products[lane]);
                    });
    if (real.empty()) return;
    const ScaledBand<T> packed(band, n, width, kernels.real_shape);
    for_lane_groups(real, kernels.real_shape, packed.view.rows, packed.view.ring, omp_get_max_threads(),
                    [&](const std::int64_t* mine, std::int64_t used, void* workspace) {
                        alignas(64) T lanes[most_lanes];
                        SturmProduct products[most_lanes];
                        for (int lane = 0; lane < kernels.real_shape.lanes; ++lane) {
                            const std::complex<double> z = shifts[mine[std::min<std::int64_t>(lane, used - 1)]];
                            lanes[lane] = static_cast<T>(std::ldexp(z.real(), -scaled.exponent));
                        }
                        kernels.real_product(packed.view, lanes, products, workspace);
                        for (int lane = 0; lane < used; ++lane) values[mine[lane]] = log_of(products[lane]);
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
