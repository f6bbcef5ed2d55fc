// All eigenvalues of a symmetric band matrix: to tridiagonal form by chasing bulges, then bisection by counts.
#pragma once

#include "gram/view.hpp"

constexpr Index kWidestBand = 64;

// values (n, ascending) <- the middles of brackets no wider than `tolerance` (or than what float64 can split) that hold
// the eigenvalues of the tridiagonal matrix. band is n x (b + 1), row-major, band[j * (b + 1) + d] = B[j + d, j]; what
// lies past the end is not read. b <= kWidestBand. The same bits for any number of threads.
void band_values(const double* band, Index n, Index half_width, double tolerance, double* values);
