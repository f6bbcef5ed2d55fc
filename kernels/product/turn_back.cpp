// Vectors turned back through a band reduction: x <- Q x, Q the product over all panels of H = I - V T V^T.
#include <algorithm>
#include <vector>

#include "cpu/threads.hpp"
#include "product/kernels.hpp"
#include "product/product.hpp"

namespace {

// V of a panel as the reduction left it: columns as rows, `stride` numbers apart, from the first row of the panel on.
template <class T>
struct Panel {
    const T* v;
    Index stride, columns, rows, begin;
};

template <class T>
Panel<T> panel_at(const T* vectors, Index size, Index half_width, Index number) {
    const Index column = number * half_width, begin = column + half_width;
    return {vectors + column * size + begin, size, half_width, size - begin, begin};
}

// The lower half of `products` (columns x columns) <- V^T V; `wide` holds four vectors of float64.
template <class T>
void multiply_columns(const ProductLoops& loops, const Panel<T>& panel, double* wide, double* products) {
    for (Index j = 0; j < panel.columns; j += kVectors) {
        const Index together = std::min(kVectors, panel.columns - j);
        for (Index p = 0; p < together; ++p)
            std::copy_n(panel.v + (j + p) * panel.stride, panel.rows, wide + p * panel.rows);
        double* const to = products + j * panel.columns;
        std::fill_n(to, kVectors * panel.columns, 0.0);
        loops.forward(panel.v, panel.stride, j + together, panel.rows, {wide, panel.rows}, {to, panel.columns});
    }
}

// u <- -T u, with T^-1 + T^-T = V^T V; a column of V that is zero reflects nothing.
void apply_t(const double* products, Index columns, double* u) {
    for (Index k = columns - 1; k >= 0; --k) {
        const double square = products[k * columns + k];
        u[k] = square > 0.0 ? 2.0 * u[k] / square : 0.0;
        for (Index i = 0; i < k; ++i) u[i] -= products[k * columns + i] * u[k];
        u[k] = -u[k];
    }
}

}  // namespace

template <class T>
void turn_back(const T* vectors, Index size, Index half_width, double* x, Index count) {
    const ProductLoops& loops = product_loops(sizeof(T) == sizeof(float) ? Element::float32 : Element::float64);
    const Index panels = size > half_width + 1 ? (size - 2) / half_width : 0;
    const Index square = (half_width + kVectors) * half_width;  // room for four rows at a time
    std::vector<double> products(static_cast<std::size_t>(panels * square));
    std::vector<double> scratch(static_cast<std::size_t>(omp_get_max_threads() * kVectors * size));
#pragma omp parallel
    {
        double* const mine = scratch.data() + omp_get_thread_num() * kVectors * size;
#pragma omp for schedule(dynamic)
        for (Index number = 0; number < panels; ++number)
            multiply_columns(loops, panel_at(vectors, size, half_width, number), mine,
                             products.data() + number * square);
#pragma omp for schedule(static)
        for (Index first = 0; first < count; first += kVectors) {
            for (Index number = panels - 1; number >= 0; --number) {
                const Panel<T> panel = panel_at(vectors, size, half_width, number);
                const Vectors group{x + first * size + panel.begin, size}, inner{mine, half_width};
                std::fill_n(mine, kVectors * half_width, 0.0);
                loops.forward(panel.v, panel.stride, panel.columns, panel.rows, group, inner);
                for (Index p = 0; p < kVectors; ++p)
                    apply_t(products.data() + number * square, half_width, mine + p * half_width);
                loops.transposed(panel.v, panel.stride, panel.columns, panel.rows, inner, group);
            }
        }
    }
}

template void turn_back(const float*, Index, Index, double*, Index);
template void turn_back(const double*, Index, Index, double*, Index);
