// Python binding of products with vectors.
#include "bind.hpp"

#include "product/kernels.hpp"
#include "product/product.hpp"

namespace nb = nanobind;

namespace {

using Batch = nb::ndarray<double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void multiply(const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>& weights, const Batch& x, const Batch& out,
              bool transposed) {
    const Element element = element_of(weights, "multiply: weights");
    if (weights.ndim() != 3) throw nb::value_error("multiply: expected weights (m, r, c)");
    const auto rows = static_cast<Index>(weights.shape(1)), cols = static_cast<Index>(weights.shape(2));
    const auto in = static_cast<std::size_t>(transposed ? rows : cols),
               outs = static_cast<std::size_t>(transposed ? cols : rows);
    const std::size_t count = weights.shape(0), vectors = x.shape(1);
    if (x.shape(0) != count || x.shape(2) != in || vectors % kVectors != 0)
        throw nb::value_error("multiply: expected x (m, 4 k, c), of a transposed product (m, 4 k, r)");
    if (out.shape(0) != count || out.shape(1) != vectors || out.shape(2) != outs)
        throw nb::value_error("multiply: expected out (m, 4 k, r), of a transposed product (m, 4 k, c)");
    const nb::gil_scoped_release release;
    for (std::size_t i = 0; i < count; ++i) {
        const char* data =
            static_cast<const char*>(weights.data()) + static_cast<Index>(i) * rows * cols * size_of(element);
        const MatrixView view{data, element, rows, cols, cols, 1};
        multiply_vectors(view, x.data() + i * vectors * in, out.data() + i * vectors * outs,
                         static_cast<Index>(vectors), transposed);
    }
}

void multiply_band(const Batch& bands, const Batch& x, const Batch& out) {
    const std::size_t count = bands.shape(0), size = bands.shape(1), vectors = x.shape(1);
    if (x.shape(0) != count || x.shape(2) != size || vectors % kVectors != 0)
        throw nb::value_error("multiply_band: expected bands (m, n, b + 1) and x (m, 4 k, n)");
    if (out.shape(0) != count || out.shape(1) != vectors || out.shape(2) != size)
        throw nb::value_error("multiply_band: expected out (m, 4 k, n)");
    const nb::gil_scoped_release release;
    multiply_band_vectors(bands.data(), static_cast<Index>(count), static_cast<Index>(size),
                          static_cast<Index>(bands.shape(2)), x.data(), out.data(), static_cast<Index>(vectors));
}

void turn_back_through(const nb::ndarray<nb::ro, nb::ndim<3>, nb::c_contig, nb::device::cpu>& vectors, const Batch& x,
                       Index half_width) {
    const std::size_t count = vectors.shape(0), size = vectors.shape(1), each = x.shape(1);
    const Element element = element_of(vectors, "turn_back: vectors");
    if (element != Element::float32 && element != Element::float64)
        throw nb::type_error("turn_back: vectors must be float64 or float32");
    if (vectors.shape(2) != size || half_width < 1)
        throw nb::value_error("turn_back: expected vectors (m, n, n) and half_width >= 1");
    if (x.shape(0) != count || x.shape(2) != size || each % kVectors != 0)
        throw nb::value_error("turn_back: expected x (m, 4 k, n)");
    const nb::gil_scoped_release release;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t from = i * size * size;
        double* const to = x.data() + i * each * size;
        const auto n = static_cast<Index>(size), k = static_cast<Index>(each);
        if (element == Element::float32)
            turn_back(static_cast<const float*>(vectors.data()) + from, n, half_width, to, k);
        else
            turn_back(static_cast<const double*>(vectors.data()) + from, n, half_width, to, k);
    }
}

}  // namespace

void bind_product(nb::module_& m) {
    m.def("multiply", &multiply, nb::arg("weights"), nb::arg("x").noconvert(), nb::arg("out").noconvert(),
          nb::arg("transposed"), "out <- A x of each matrix and vector (rows of x), or A^T x, in float64.");
    m.def("multiply_band", &multiply_band, nb::arg("bands").noconvert(), nb::arg("x").noconvert(),
          nb::arg("out").noconvert(), "out <- B x of each symmetric band and vector (rows of x), in float64.");
    m.def("turn_back", &turn_back_through, nb::arg("vectors").noconvert(), nb::arg("x").noconvert(),
          nb::arg("half_width"),
          "x <- Q x of each vector (rows of x), in float64, by the Householder vectors that reduce_to_band left.");
}
