#include "product/product.hpp"

#include <algorithm>

#include "cpu/features.hpp"
#include "cpu/threads.hpp"
#include "product/kernels.hpp"

namespace {

constexpr Index kColumns = 4096;        // of four vectors: 128 KiB, which stay in L2
constexpr Index kBlockBytes = 1 << 19;  // of the matrix

// As few groups of columns as kColumns allows, as many for each thread; all but the last are whole lines of the
// weights.
Index choose_column_group(Index cols, Index threads) {
    const Index rounds = (cols + threads * kColumns - 1) / (threads * kColumns);
    return (cols + rounds * threads * 64 - 1) / (rounds * threads * 64) * 64;
}

}  // namespace

const ProductLoops& product_loops(Element element) {
    const ProductKernel& kernel = BEST_OF(product);
    if (element == Element::float64) return kernel.float64;
    if (element == Element::float32) return kernel.float32;
    return element == Element::float16 ? kernel.float16 : kernel.bfloat16;
}

void multiply_vectors(const MatrixView& a, const double* x, double* out, Index vectors, bool transposed) {
    const ProductLoops& loops = product_loops(a.element);
    const Index in = transposed ? a.rows : a.cols, outs = transposed ? a.cols : a.rows;
    const Index size = size_of(a.element);
    const auto* bytes = static_cast<const char*>(a.data);
    // Threads share what is summed into: groups of rows, or of columns. A block of the matrix is read by all vectors
    // while it is in L2.
    const Index rows = std::max<Index>(kBlockBytes / (kColumns * size), 8);
    const Index group = transposed ? choose_column_group(outs, omp_get_max_threads()) : rows;
    const Index groups = (outs + group - 1) / group, step = transposed ? rows : kColumns;
    std::fill(out, out + vectors * outs, 0.0);
#pragma omp parallel for schedule(static)
    for (Index g = 0; g < groups; ++g) {
        const Index first = g * group, count = std::min(group, outs - first);
        for (Index at = 0; at < in; at += step) {
            const Index terms = std::min(step, in - at);
            for (Index p = 0; p < vectors; p += kVectors) {
                const Vectors from{const_cast<double*>(x) + p * in + at, in}, to{out + p * outs + first, outs};
                if (transposed)
                    loops.transposed(bytes + (at * a.row_stride + first) * size, a.row_stride, terms, count, from, to);
                else
                    loops.forward(bytes + (first * a.row_stride + at) * size, a.row_stride, count, terms, from, to);
            }
        }
    }
}

void multiply_band_vectors(const double* bands, Index count, Index size, Index width, const double* x, double* out,
                           Index vectors) {
    const ProductLoops& loops = product_loops(Element::float64);
#pragma omp parallel for schedule(static)
    for (Index g = 0; g < count * (vectors / kVectors); ++g) {
        const double* band = bands + g / (vectors / kVectors) * size * width;
        double* from = const_cast<double*>(x) + g * kVectors * size;
        double* to = out + g * kVectors * size;
        std::fill(to, to + kVectors * size, 0.0);
        // Row j of a band is part of column j of the matrix, and by symmetry of row j.
        for (Index j = 0; j < size; ++j) {
            const double* row = band + j * width;
            const Index length = std::min(width, size - j);
            loops.forward(row, width, 1, length, {from + j, size}, {to + j, size});
            loops.transposed(row + 1, width, 1, length - 1, {from + j, size}, {to + j + 1, size});
        }
    }
}
