// The border between the driver (inverse.cpp, baseline code) and the loops compiled once a level (inverse_numbers.cpp).
#pragma once

#include "gram/view.hpp"

constexpr Index kMostLanes = 8;

struct InverseKernel {
    Index lanes;  // shifts that go together
    // x (n + width - 1 rows of lanes, the last of them zeros) <- what `steps` solutions of (B - shift I) y = x leave,
    // in units of its length. `factor` holds as many rows of width x lanes numbers.
    void (*iterate)(const double* band, Index n, Index width, const double* shifts, int steps, double* factor,
                    double* x);
};

extern const InverseKernel inverse_portable;
extern const InverseKernel inverse_avx2;
extern const InverseKernel inverse_avx512;
