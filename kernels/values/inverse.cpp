#include "values/inverse.hpp"

#include <algorithm>
#include <memory>

#include "cpu/features.hpp"
#include "cpu/scratch.hpp"
#include "cpu/threads.hpp"
#include "values/inverse_kernels.hpp"

void iterate_inverse(const double* band, Index n, Index half_width, const double* shifts, Index count, int steps,
                     double* vectors) {
    const InverseKernel& kernel = BEST_OF(inverse);
    const Index lanes = kernel.lanes, groups = (count + lanes - 1) / lanes, width = half_width + 1;
    const Index factors = (n + half_width) * width * lanes, room = factors + (n + half_width) * lanes;
    Scratch<double> scratch(groups * room);
#pragma omp parallel for schedule(static)
    for (Index group = 0; group < groups; ++group) {
        double* const factor = scratch.data() + group * room;
        double* const x = factor + factors;
        double of_lanes[kMostLanes];
        const Index first = group * lanes;
        // Lanes without a shift of their own repeat the last one.
        for (Index lane = 0; lane < lanes; ++lane) {
            const Index k = std::min(first + lane, count - 1);
            of_lanes[lane] = shifts[k];
            for (Index i = 0; i < n + half_width; ++i) x[i * lanes + lane] = i < n ? vectors[k * n + i] : 0.0;
        }
        kernel.iterate(band, n, width, of_lanes, steps, factor, x);
        for (Index lane = 0; lane < std::min(lanes, count - first); ++lane)
            for (Index i = 0; i < n; ++i) vectors[(first + lane) * n + i] = x[i * lanes + lane];
    }
}
