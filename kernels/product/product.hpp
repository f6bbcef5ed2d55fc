// Products of a stored matrix with a few vectors, every number and every sum in float64.
#pragma once

#include "gram/view.hpp"

// out_p = A x_p, or A^T x_p, for `vectors` of them (a multiple of four), each contiguous. A has unit column stride. The
// same bits for any number of threads.
void multiply_vectors(const MatrixView& a, const double* x, double* out, Index vectors, bool transposed);
