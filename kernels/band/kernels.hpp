// The compiled forms of the band reduction, one set per instruction set, and the choice between them.
#pragma once

#include "gram/view.hpp"

constexpr Index kCarried = 8;

// A symmetric matrix (size x size, row-major, contiguous; only its lower half is read) and where its band goes:
// band[j * (half_width + 1) + d] = B(j + d, j), zeros past the end. The two must not overlap.
// kCarried vectors of `size` numbers, if there are any, are taken along: each x becomes Q^T x.
// Householder vectors go to `vectors` (size x size, may be the matrix itself), if there is such a place: row j holds
// that of column j, from the first row of its panel on.
template <class T>
struct BandTask {
    const T* matrix;
    Index size;
    Index half_width;
    T* band;
    double* carried = nullptr;
    T* vectors = nullptr;
};

struct BandKernel {
    const char* name;  // "amx-bf16x3", "avx512-bf16x3", "avx512", "avx2", "neon" or "portable"
    void (*float32)(const BandTask<float>& task);
    void (*float64)(const BandTask<double>& task);
};

extern const BandKernel band_portable;
extern const BandKernel band_avx2;
extern const BandKernel band_avx512;
extern const BandKernel band_neon;

// float32 to working accuracy out of three bfloat16 products (hi hi + hi lo + lo hi) on matrix units.
void band_pairs_avx512_bf16(const BandTask<float>& task);
void band_pairs_amx(const BandTask<float>& task);
void band_pairs_amx_model(const BandTask<float>& task);  // AMX on a software model of the tiles

enum class Product { automatic, float32, bf16x3 };

// The kernel for this processor; throws std::invalid_argument if `product` cannot run on it.
BandKernel choose_band_kernel(Product product);
