#include "values/values.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/features.hpp"
#include "values/kernels.hpp"

namespace {

constexpr Index kSweeps = 8;  // that follow each other through the band while it is in the cache

struct Tridiagonal {
    std::vector<double> diagonal, squares;  // squares[i] = A[i, i - 1]^2, squares[0] = 0
};

const ChaseLoops& chase_of(const ValuesKernel& kernel, Index half_width) {
    return *std::find_if(std::begin(kernel.chases), std::end(kernel.chases) - 1,
                         [half_width](const ChaseLoops& chase) { return chase.half_width >= half_width; });
}

// Sweep s clears column s below the subdiagonal and moves the bulge that this makes down by b rows a step. Its step i
// may follow step i + 1 of sweep s - 1, so kSweeps of them go through the band in one wave.
void chase_bulges(const ChaseLoops& chase, Index n, double* columns) {
    const Index b = chase.half_width, stride = column_stride(b);
    std::vector<double> reflections(static_cast<std::size_t>(kSweeps * (b + 1)));
    for (Index first = 0; first + 2 < n; first += kSweeps) {
        const Index sweeps = std::min(kSweeps, n - 2 - first), last_step = (n - 2 - first) / b;
        for (Index wave = 0; wave <= last_step + 2 * (sweeps - 1); ++wave)
            for (Index k = 0; k < sweeps; ++k) {
                const Index sweep = first + k, step = wave - 2 * k, row = sweep + 1 + (step - 1) * b;
                double* const reflection = reflections.data() + k * (b + 1);
                if (step == 0)
                    chase.begin(columns + sweep * stride, reflection);
                else if (step > 0 && row + b < n)
                    chase.step(columns + row * stride, reflection);
            }
    }
}

Tridiagonal tridiagonal_of(const ValuesKernel& kernel, const double* band, Index n, Index half_width) {
    const ChaseLoops& chase = chase_of(kernel, half_width);
    const Index stride = column_stride(chase.half_width);
    // Zero rows behind the last one are reflected with it and stay zero; columns begin behind room for what is above.
    std::vector<double> memory(static_cast<std::size_t>((n + 2 * chase.half_width) * stride + kBehind));
    double* const columns = memory.data() + kBehind;
    for (Index j = 0; j < n; ++j)
        std::copy_n(band + j * (half_width + 1), std::min(half_width + 1, n - j), columns + j * stride);
    if (half_width > 1) chase_bulges(chase, n, columns);
    Tridiagonal found{std::vector<double>(static_cast<std::size_t>(n)),
                      std::vector<double>(static_cast<std::size_t>(n))};
    for (Index j = 0; j < n; ++j) {
        found.diagonal[j] = columns[j * stride];
        if (j + 1 < n && half_width > 0) found.squares[j + 1] = columns[j * stride + 1] * columns[j * stride + 1];
    }
    return found;
}

struct Bracket {
    double low, high;
    Index below_low, below_high;
};

// Counts at the middles of all brackets.
std::vector<std::int64_t> count_middles(const ValuesKernel& kernel, const Tridiagonal& of, double least,
                                        const std::vector<Bracket>& brackets) {
    const Index together = kernel.shifts, chunks = (static_cast<Index>(brackets.size()) + together - 1) / together;
    std::vector<double> shifts(static_cast<std::size_t>(chunks * together), brackets.front().low);
    std::transform(brackets.begin(), brackets.end(), shifts.begin(),
                   [](const Bracket& one) { return 0.5 * (one.low + one.high); });
    std::vector<std::int64_t> below(shifts.size());
#pragma omp parallel for schedule(static)
    for (Index chunk = 0; chunk < chunks; ++chunk)
        kernel.count(of.diagonal.data(), of.squares.data(), static_cast<Index>(of.diagonal.size()),
                     shifts.data() + chunk * together, least, below.data() + chunk * together);
    return below;
}

// Gershgorin's bounds, a little farther out, and the least pivot of LAPACK's dstebz.
Bracket whole_range(const Tridiagonal& of, double* least) {
    const Index n = static_cast<Index>(of.diagonal.size());
    double low = of.diagonal[0], high = of.diagonal[0], largest = 1.0;
    for (Index i = 0; i < n; ++i) {
        const double next = i + 1 < n ? std::sqrt(of.squares[i + 1]) : 0.0, reach = std::sqrt(of.squares[i]) + next;
        low = std::min(low, of.diagonal[i] - reach);
        high = std::max(high, of.diagonal[i] + reach);
        largest = std::max(largest, of.squares[i]);
    }
    *least = std::numeric_limits<double>::min() * largest;
    const double room =
        4 * static_cast<double>(n) * std::numeric_limits<double>::epsilon() * std::max(std::abs(low), std::abs(high)) +
        2 * *least;
    return {low - room, high + room, 0, n};
}

}  // namespace

void band_values(const double* band, Index n, Index half_width, double tolerance, double* values) {
    const ValuesKernel& kernel = BEST_OF(values);
    const Tridiagonal of = tridiagonal_of(kernel, band, n, half_width);
    double least = 0.0;
    std::vector<Bracket> open{whole_range(of, &least)}, next;
    while (!open.empty()) {
        const std::vector<std::int64_t> counts = count_middles(kernel, of, least, open);
        next.clear();
        for (std::size_t i = 0; i < open.size(); ++i) {
            const Bracket& one = open[i];
            const double middle = 0.5 * (one.low + one.high);
            if (one.high - one.low <= tolerance || middle <= one.low || middle >= one.high) {
                std::fill(values + one.below_low, values + one.below_high, middle);
                continue;
            }
            const Index below = std::clamp(static_cast<Index>(counts[i]), one.below_low, one.below_high);
            if (below > one.below_low) next.push_back({one.low, middle, one.below_low, below});
            if (below < one.below_high) next.push_back({middle, one.high, below, one.below_high});
        }
        open.swap(next);
    }
}
