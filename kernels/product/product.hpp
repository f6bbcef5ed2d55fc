// Products of a stored matrix, or of a symmetric band, with a few vectors, every number and every sum in float64.
#pragma once

#include "gram/view.hpp"

// out_p = A x_p, or A^T x_p, for `vectors` of them (a multiple of four), each contiguous. A has unit column stride. The
// same bits for any number of threads.
void multiply_vectors(const MatrixView& a, const double* x, double* out, Index vectors, bool transposed);

// out_p = B x_p for symmetric bands one after the other, B(j + d, j) = band[j * width + d], and as many times `vectors`
// of them (a multiple of four). The same bits for any number of threads.
void multiply_band_vectors(const double* bands, Index count, Index size, Index width, const double* x, double* out,
                           Index vectors);

// x_p <- Q x_p for `count` vectors (a multiple of four), Q the orthogonal matrix of a reduction of a size x size matrix
// to a band of this half-width, by the Householder vectors that it left (kernels/band/kernels.hpp). T is float or
// double. The same bits for any number of threads.
template <class T>
void turn_back(const T* vectors, Index size, Index half_width, double* x, Index count);
