// The border between the driver (groups.hpp, baseline code) and what is compiled once a level (numbers.cpp): plain
// pointers only.
#pragma once

#include <cstddef>
#include <cstdint>

// A sweep takes B in square blocks of so many rows and columns.
constexpr int sturm_block = 4;

// One band matrix, scaled by a power of two to max |B| in [1/2, 1) (or zero). The order is padded to whole blocks with
// decoupled unit pivots.
template <class T>
struct SturmBand {
    const T* entries;      // [order][stride]: B[j + d, j], zero past the half-width and past the end; 1 for padding
    const T* pivot_floor;  // [order]: a pivot of smaller magnitude is replaced
    const T* live;         // [order]: 1 for a column of B, 0 for padding
    int order;             // columns, padded
    int blocks;            // below that of the diagonal, at least one; the last is upper triangular
    int stride;            // blocks * sturm_block + 1
};

// A product of magnitudes of pivots or of their squares, mantissa * 2^exponent; and how many pivots are negative, of
// real ones.
struct SturmProduct {
    double mantissa;
    std::int64_t exponent;
    std::int64_t below;
};

template <class T>
struct SturmKernels {
    int lanes;  // shifts of a sweep
    // sizes[j] <- max |B[j + d, j]| over d <= half_width and inside of B; returns the largest, not finite if any is not
    T (*measure)(const T* band, std::ptrdiff_t n, std::ptrdiff_t width, std::ptrdiff_t half_width, T* sizes);
    // entries[j * stride + d] <- B[j + d, j] * first * second, zeros beyond the half-width and outside of B
    void (*scale)(const T* band, std::ptrdiff_t n, std::ptrdiff_t width, std::ptrdiff_t half_width, T first, T second,
                  T* entries, std::ptrdiff_t stride);
    // products[lane] <- prod |d_i|, d_i the pivots of B - shifts[lane] I
    void (*real_product)(const SturmBand<T>& band, const T* shifts, SturmProduct* products, void* workspace);
    // products[lane] <- prod |d_i|^2, d_i the pivots of B - (re + i im)[lane] I
    void (*complex_product)(const SturmBand<T>& band, const T* re, const T* im, SturmProduct* products,
                            void* workspace);
};

struct SturmIsa {
    const char* name;
    SturmKernels<float> f32;
    SturmKernels<double> f64;
};

extern const SturmIsa sturm_avx512;
extern const SturmIsa sturm_avx2;
extern const SturmIsa sturm_portable;

// Workspace of one sweep, aligned to 64 bytes: blocks of M that are still needed, those of L for the current panel, and
// reciprocal pivots, of real numbers or of complex ones.
template <class T>
std::size_t sturm_workspace_bytes(const SturmKernels<T>& kernels, int blocks, bool is_complex) {
    const auto columns = static_cast<std::size_t>(blocks) * sturm_block;
    const std::size_t entries = columns * (columns + sturm_block + 1);
    return entries * sizeof(T) * static_cast<std::size_t>(is_complex ? 2 * kernels.lanes : kernels.lanes);
}
