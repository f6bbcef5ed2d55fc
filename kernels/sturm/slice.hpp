// Spectrum slicing of a symmetric band matrix: eigenvalue counts at real shifts, log-determinants at complex ones.
#pragma once

#include <complex>
#include <cstdint>

// "avx512", "avx2" or "portable": what the two functions below run here.
const char* sturm_kernel_name();

// below[s] <- number of eigenvalues of B below shifts[s], for count shifts; band is n x width, row-major,
// band[j * width + d] = B[j + d, j]. Arithmetic in T. Infinite shifts cost nothing. Throws std::invalid_argument on NaN
// or infinity in the band or NaN among the shifts.
template <class T>
void count_below(const T* band, std::int64_t n, std::int64_t width, const double* shifts, std::int64_t count,
                 std::int64_t* below);

// Brackets of order statistics, ranks[k] ascending from 0: with N(t) the number of eigenvalues below t^2,
// N(lo[k]) <= ranks[k] < N(hi[k]). Narrowed until hi[k] - lo[k] <= enough[k], or no number lies between them.
template <class T>
void narrow(const T* band, std::int64_t n, std::int64_t width, double* lo, double* hi, const std::int64_t* ranks,
            const double* enough, std::int64_t count);

// values[s] <- log |det(B - shifts[s] I)|, Im shifts[s] >= 0. Pivots in T, their product in double. Where `wanted` (may
// be null) is false, nothing is asked of the shift and the value is 0. Throws std::invalid_argument on NaN or infinity,
// and on Im shifts[s] < 0.
template <class T>
void log_abs_det(const T* band, std::int64_t n, std::int64_t width, const std::complex<double>* shifts,
                 std::int64_t count, double* values, const bool* wanted = nullptr);
