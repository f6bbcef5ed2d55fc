// Eigenvectors of a symmetric band matrix by inverse iteration.
#pragma once

#include "gram/view.hpp"

// vectors (count x n, rows of unit length) <- those that `steps` solutions of (B - x I) y = y leave of what they hold,
// one for each of `count` shifts x. band as for band_values. The same bits for any number of threads.
void iterate_inverse(const double* band, Index n, Index half_width, const double* shifts, Index count, int steps,
                     double* vectors);
