// Brackets of order statistics, narrowed by counts. While a bracket holds several eigenvalues it is split evenly; one
// alone in it is a zero of the determinant, which the same sweep gives, and is found by interpolation.
//
// Source: Chandrupatla, Adv. Eng. Software 28 (1997): inverse quadratic interpolation where it can be trusted.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "sturm/groups.hpp"
#include "sturm/slice.hpp"

namespace {

// Shifts of a round, whatever the register and the number of threads: of one of AVX-512, where splitting brackets tells
// most a shift; and of two for a band so long that threads share them out (9 rounds for 13; with three 8, with four 7).
constexpr std::int64_t abreast = 8, rows_shared = 2048;
constexpr int most_rounds = 400;
constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

// Brackets that are not narrow enough and have a number between their ends, those of neighbours that are the same once.
std::vector<std::int64_t> wide_brackets(const double* lo, const double* hi, const double* enough, std::int64_t count) {
    std::vector<std::int64_t> wide;
    for (std::int64_t k = 0; k < count; ++k) {
        const bool is_shared = !wide.empty() && lo[k] == lo[wide.back()] && hi[k] == hi[wide.back()];
        if (hi[k] - lo[k] > enough[k] && std::nextafter(lo[k], hi[k]) < hi[k] && !is_shared) wide.push_back(k);
    }
    return wide;
}

// A number t and what a sweep tells of B - t^2 I. Of the ends of the first brackets nothing is known.
struct Point {
    double t;
    std::int64_t below = 0;  // negative eigenvalues
    double log = nan;        // binary logarithm of the size of the determinant

    // The determinant in units of what it is at another point.
    double relative_to(const Point& other) const {
        return ((below - other.below) % 2 == 0 ? 1 : -1) * std::exp2(log - other.log);
    }
};

// Where the determinant vanishes between a and b, by a parabola through a, b and c, which lies beyond a. NaN if there
// is not one eigenvalue between them, if a determinant is not known, or if the parabola turns back (Chandrupatla's
// test).
double zero_between(const Point& a, const Point& b, const Point& c) {
    if (std::abs(b.below - a.below) != 1) return nan;
    const double at_b = b.relative_to(a), at_c = c.relative_to(a);  // and 1 at a
    const double place = (a.t - b.t) / (c.t - b.t), level = (1 - at_b) / (at_c - at_b);
    if (!(level * level < place && (1 - level) * (1 - level) < 1 - place)) return nan;
    const double share =
        at_c / ((at_b - 1) * (at_b - at_c)) + (c.t - a.t) / (b.t - a.t) * at_b / ((at_c - 1) * (at_c - at_b));
    return a.t + share * (b.t - a.t);
}

// Appends `count` points of the bracket that begins at known[begin], evenly or around the zero in it.
void split(const std::vector<Point>& known, std::size_t begin, bool evenly, double enough, std::int64_t count,
           std::vector<double>& points) {
    const Point &left = known[begin - 1], &lo = known[begin], &hi = known[begin + 1], &right = known[begin + 2];
    double zero = nan;
    if (!evenly) {
        const double by_left = zero_between(lo, hi, left), by_right = zero_between(hi, lo, right);
        const bool is_left_nearer = lo.t - left.t < right.t - hi.t;
        zero = std::isnan(by_right) || (is_left_nearer && !std::isnan(by_left)) ? by_left : by_right;
    }
    const double step = (hi.t - lo.t) / static_cast<double>(count + 1);
    double first = lo.t + step, last = hi.t - step;
    if (!std::isnan(zero)) {
        const double least = enough / 16;
        first = zero - std::max((zero - lo.t) / 128, least);
        last = zero + std::max((hi.t - zero) / 128, least);
        if (count == 1) {
            // Next to an end the point goes beyond the zero, so that the other end moves as well.
            first = last = zero - lo.t < least ? lo.t + 2 * least : hi.t - zero < least ? hi.t - 2 * least : zero;
        }
    }
    const double gap = count > 1 ? (last - first) / static_cast<double>(count - 1) : 0;
    for (std::int64_t j = 0; j < count; ++j) {
        const double t = first + gap * static_cast<double>(j);
        if (lo.t < t && t < hi.t) points.push_back(t);
    }
}

}  // namespace

template <class T>
void narrow(const T* band, std::int64_t n, std::int64_t width, double* lo, double* hi, const std::int64_t* ranks,
            const double* enough, std::int64_t count) {
    std::vector<std::int64_t> wide = wide_brackets(lo, hi, enough, count), below;
    if (wide.empty()) return;
    const ScaledBand<T> scaled(band, n, width, sturm_kernels<T>());
    const std::int64_t together = n < rows_shared ? abreast : 2 * abreast;
    const auto earlier = [](const Point& a, const Point& b) { return a.t < b.t; };
    std::vector<Point> known{{-infinity}, {infinity}};
    for (std::int64_t k = 0; k < count; ++k) known.insert(known.end(), {Point{lo[k]}, Point{hi[k]}});
    std::sort(known.begin(), known.end(), earlier);
    known.erase(std::unique(known.begin(), known.end(), [](const Point& a, const Point& b) { return a.t == b.t; }),
                known.end());

    std::vector<double> widths(static_cast<std::size_t>(count), infinity), before = widths;  // of the last two rounds
    std::vector<double> points, shifts;
    std::vector<SturmProduct> products;
    for (int round = 0; round < most_rounds && !wide.empty(); ++round) {
        const auto brackets = static_cast<std::int64_t>(wide.size());
        const std::int64_t total = (brackets + together - 1) / together * together;
        points.clear();
        for (std::int64_t i = 0; i < brackets; ++i) {
            const std::int64_t k = wide[i];
            const auto begin = std::lower_bound(known.begin(), known.end(), Point{lo[k]}, earlier) - known.begin();
            const bool is_slow = hi[k] - lo[k] > 0.5 * before[k];
            before[k] = widths[k];
            widths[k] = hi[k] - lo[k];
            split(known, static_cast<std::size_t>(begin), is_slow, enough[k],
                  total / brackets + (i < total % brackets ? 1 : 0), points);
        }
        std::sort(points.begin(), points.end());
        points.erase(std::unique(points.begin(), points.end()), points.end());
        shifts.resize(points.size());
        std::transform(points.begin(), points.end(), shifts.begin(), [](double t) { return t * t; });
        multiply_pivots(scaled, n, shifts, products);
        // Rounding can make two counts one apart come in the wrong order; N itself never decreases.
        below.clear();
        const auto middle = static_cast<std::ptrdiff_t>(known.size());
        for (std::size_t s = 0; s < points.size(); ++s) {
            const SturmProduct& p = products[s];
            below.push_back(s == 0 ? p.below : std::max(p.below, below.back()));
            known.push_back({points[s], p.below, std::log2(p.mantissa) + static_cast<double>(p.exponent)});
        }
        std::inplace_merge(known.begin(), known.begin() + middle, known.end(), earlier);
        for (std::int64_t k = 0; k < count; ++k) {
            const auto passed =
                static_cast<std::size_t>(std::upper_bound(below.begin(), below.end(), ranks[k]) - below.begin());
            const double a = lo[k], b = hi[k];
            if (passed > 0 && a < points[passed - 1] && points[passed - 1] < b) lo[k] = points[passed - 1];
            if (passed < points.size() && a < points[passed] && points[passed] < b) hi[k] = points[passed];
        }
        wide = wide_brackets(lo, hi, enough, count);
    }
}

template void narrow(const float*, std::int64_t, std::int64_t, double*, double*, const std::int64_t*, const double*,
                     std::int64_t);
template void narrow(const double*, std::int64_t, std::int64_t, double*, double*, const std::int64_t*, const double*,
                     std::int64_t);
