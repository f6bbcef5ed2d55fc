// The border between the driver (product.cpp, baseline code) and the loops compiled once a level (numbers.cpp).
#pragma once

#include "gram/view.hpp"

constexpr Index kVectors = 4;  // vectors that go together: 16 sums of a register each, with four rows

// Four vectors of float64, each contiguous, `stride` numbers from one to the next.
struct Vectors {
    double* data;
    Index stride;
};

// With the `rows` x `cols` numbers that begin at `data`, rows `row_stride` numbers apart:
struct ProductLoops {
    // out_p[i] += sum_j a_ij x_p[j]
    void (*forward)(const void* data, Index row_stride, Index rows, Index cols, Vectors x, Vectors out);
    // out_p[j] += sum_i a_ij x_p[i]
    void (*transposed)(const void* data, Index row_stride, Index rows, Index cols, Vectors x, Vectors out);
};

struct ProductKernel {
    ProductLoops float64, float32, float16, bfloat16;
};

extern const ProductKernel product_portable;
extern const ProductKernel product_avx2;
extern const ProductKernel product_avx512;

// Those of the best level here for numbers of this type.
const ProductLoops& product_loops(Element element);
