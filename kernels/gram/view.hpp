// A strided matrix of any of the four float types, as it comes from Python: what every product reads.
#pragma once

#include <cstddef>

using Index = std::ptrdiff_t;

enum class Element { float64, float32, float16, bfloat16 };

constexpr Index size_of(Element element) {
    return element == Element::float64 ? 8 : element == Element::float32 ? 4 : 2;
}

// Element (i, j) lies at data + i * row_stride + j * col_stride, strides counted in elements.
struct MatrixView {
    const void* data;
    Element element;
    Index rows, cols, row_stride, col_stride;
};
