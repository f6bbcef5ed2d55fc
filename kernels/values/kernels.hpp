// The border between the driver (values.cpp, baseline code) and the loops compiled once a level (numbers.cpp).
#pragma once

#include <cstdint>

#include "gram/view.hpp"

// A symmetric matrix on its way from a band of half-width b to a tridiagonal one: lower halves of columns, each in
// `stride` numbers, A[j + d, j] = columns[j * stride + d] for d < 2 b. What lies behind may hold anything.
constexpr Index kBehind = 8;  // as many numbers as the longest register has lanes
static constexpr Index column_stride(Index half_width) { return 2 * half_width + kBehind; }

struct ChaseLoops {
    Index half_width;
    // A reflection of the b rows below `diagonal`, the place of A[s, s], that leaves one number of its column; applied
    // from both sides to the block that these rows share. Its vector (b numbers) and factor go to `reflection`.
    void (*begin)(double* diagonal, double* reflection);
    // `reflection` acts on b rows that begin at `diagonal`. It is applied to the block of the b rows below; a new one
    // clears the first column of that but for one number and takes the old one's place; it is applied from both sides.
    void (*step)(double* diagonal, double* reflection);
};

struct ValuesKernel {
    ChaseLoops chases[4];  // of half-widths 16, 32, 48, 64
    Index shifts;          // that are counted together
    // below[k] <- eigenvalues below shifts[k] of the tridiagonal matrix with this diagonal and squares of its
    // neighbours (squares[i] beside diagonal[i], squares[0] = 0). A pivot smaller than `least` is moved to -least.
    void (*count)(const double* diagonal, const double* squares, Index n, const double* shifts, double least,
                  std::int64_t* below);
};

extern const ValuesKernel values_portable;
extern const ValuesKernel values_avx2;
extern const ValuesKernel values_avx512;
