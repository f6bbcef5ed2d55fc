// The border between the driver (slice.cpp, baseline code) and the sweep compiled once a level (numbers.cpp): plain
// pointers only.
#pragma once

#include <cstddef>
#include <cstdint>

// One band matrix, scaled by a power of two to max |B| in [1/2, 1) (or zero) and laid out for a sweep whose panels are
// `panel` columns wide. The order is padded to whole panels with decoupled unit pivots.
template <class T>
struct SturmBand {
    const T* entries;      // [order / panel][rows][panel]: B[panel * q + i, panel * q + c], zero outside lower band
    const T* pivot_floor;  // [order]: a pivot of smaller magnitude is replaced
    const T* live;         // [order]: 1 for a column of B, 0 for padding
    int order;             // columns, padded
    int half_width;        // b
    int rows;              // rows kept for each panel, see sturm_rows
    int ring;              // panels kept at a time, see sturm_ring
};

// How one sweep walks: shifts a call, columns a panel, rows a register tile, bytes of one matrix entry of all lanes.
struct SturmShape {
    int lanes;
    int panel;
    int tile;
    int entry_bytes;
};

// prod d_i = (re + i im) * 2^exponent; arguments summed without reduction: atan2(im, re) - 2 pi * turns, im = 0 read
// as +0.
struct SturmProduct {
    double re;
    double im;
    std::int64_t exponent;
    std::int64_t turns;
};

template <class T>
struct SturmKernels {
    SturmShape real_shape;
    SturmShape complex_shape;
    // below[lane] <- negative pivots of B - shifts[lane] I
    void (*count)(const SturmBand<T>& band, const T* shifts, std::int64_t* below, void* workspace);
    // products[lane] <- product of the pivots of B - shifts[lane] I; im = 0, and a negative pivot has argument -pi
    void (*real_product)(const SturmBand<T>& band, const T* shifts, SturmProduct* products, void* workspace);
    // products[lane] <- product of the pivots of B - (re + i im)[lane] I
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

// Rows of a panel: its own diagonal block, the b rows below in whole tiles, and zeros for tiles that begin above the
// first column that reaches them.
static inline int sturm_rows(const SturmShape& shape, int half_width) {
    const int below = (half_width + shape.tile - 1) / shape.tile * shape.tile;
    return shape.panel + below + (shape.panel > shape.tile ? shape.panel : shape.tile);
}

// Panels that can reach the current one, and the current one.
static inline int sturm_ring(const SturmShape& shape, int half_width) {
    return (half_width + shape.panel - 1) / shape.panel + 1;
}

// Ring of eliminated panels, their rows divided by the pivots for the current panel, reciprocal pivots.
static inline std::size_t sturm_workspace_bytes(const SturmShape& shape, int rows, int ring) {
    const std::size_t entries = static_cast<std::size_t>(ring) * shape.panel * (rows + shape.panel + 1);
    return entries * shape.entry_bytes;
}
