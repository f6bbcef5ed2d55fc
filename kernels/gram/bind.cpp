// Python binding of the symmetric Gram product.
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "bind.hpp"
#include "gemm_kernels.hpp"

namespace nb = nanobind;

namespace {

using AnyArray = nb::ndarray<nb::device::cpu>;
using Weight = nb::ndarray<nb::ro, nb::device::cpu>;

Element element_of(const Weight& array) {
    if (array.dtype() == nb::dtype<double>()) return Element::float64;
    if (array.dtype() == nb::dtype<float>()) return Element::float32;
    if (array.dtype() == nb::dtype<Float16>()) return Element::float16;
    if (array.dtype() == nb::dtype<Bfloat16>()) return Element::bfloat16;
    throw nb::type_error("gram: weight must be float64, float32, float16 or bfloat16");
}

std::string shape_of(std::size_t ndim, const auto& array) {
    std::string text = "(";
    for (std::size_t i = 0; i < ndim; ++i) text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
    return text + ")";
}

// A matrix whose rows are multiplied with each other.
MatrixView as_stored(const Weight& weight) {
    if (weight.ndim() != 2)
        throw nb::value_error(
            ("gram: weight must be a matrix, found shape " + shape_of(weight.ndim(), weight)).c_str());
    const Index m = static_cast<Index>(weight.shape(0)), n = static_cast<Index>(weight.shape(1));
    if (m == 0 || n == 0) throw nb::value_error(("gram: weight is empty, shape " + shape_of(2, weight)).c_str());
    // The stride of a dimension of length 1 is meaningless; call it contiguous so that the fast packing serves it.
    const Index rs = m == 1 ? n : weight.stride(0), cs = n == 1 ? 1 : weight.stride(1);
    const Element element = element_of(weight);
    return MatrixView{weight.data(), element, m, n, rs, cs};
}

// The weight as the k x max(m, n) matrix whose rows are multiplied with each other.
MatrixView orient(const Weight& weight) {
    const MatrixView view = as_stored(weight);
    if (view.rows <= view.cols) return view;
    return MatrixView{view.data, view.element, view.cols, view.rows, view.col_stride, view.row_stride};
}

void require_square(const AnyArray& out, Index size) {
    const std::string expected = "(" + std::to_string(size) + ", " + std::to_string(size) + ")";
    if (out.ndim() != 2 || static_cast<Index>(out.shape(0)) != size || static_cast<Index>(out.shape(1)) != size)
        throw nb::value_error(
            ("gram: out must have shape " + expected + ", found " + shape_of(out.ndim(), out)).c_str());
    if (size > 1 && (out.stride(1) != 1 || out.stride(0) != size))
        throw nb::value_error("gram: out must be contiguous");
}

void multiply(const MatrixView& view, const AnyArray& out, bool add) {
    require_square(out, view.rows);
    const GramKernel& kernel = choose_gram_kernel(view.element);
    if (out.dtype() == nb::dtype<double>()) {
        const nb::gil_scoped_release release;
        kernel.to_float64(view, static_cast<double*>(out.data()), add);
    } else if (out.dtype() == nb::dtype<float>()) {
        if (view.element == Element::float64)
            throw nb::type_error("gram: a float64 weight needs a float64 out, found float32");
        const nb::gil_scoped_release release;
        kernel.to_float32(view, static_cast<float*>(out.data()), add);
    } else {
        throw nb::type_error("gram: out must be float32 or float64");
    }
}

void gram(const Weight& weight, const AnyArray& out) { multiply(orient(weight), out, false); }

void gram_add(const Weight& block, const AnyArray& out) { multiply(as_stored(block), out, true); }

void gram_amx_model(const Weight& weight, const AnyArray& out) {
    const MatrixView view = orient(weight);
    require_square(out, view.rows);
    if (view.element != Element::bfloat16 || out.dtype() != nb::dtype<float>())
        throw nb::type_error("gram_amx_model: weight must be bfloat16 and out float32");
    const nb::gil_scoped_release release;
    gram_bfloat16_amx_model(view, static_cast<float*>(out.data()), false);
}

std::string gram_kernel(const std::string& dtype_name) {
    if (dtype_name == "float64") return choose_gram_kernel(Element::float64).name;
    if (dtype_name == "float32") return choose_gram_kernel(Element::float32).name;
    if (dtype_name == "float16") return choose_gram_kernel(Element::float16).name;
    if (dtype_name == "bfloat16") return choose_gram_kernel(Element::bfloat16).name;
    throw std::invalid_argument("gram_kernel: expected float64, float32, float16 or bfloat16, found '" + dtype_name +
                                "'");
}

}  // namespace

void bind_gram(nb::module_& m) {
    m.def("gram", &gram, nb::arg("weight"), nb::arg("out").noconvert(),
          "out (k x k, float32 or float64) <- W Wᵀ or Wᵀ W, whichever is smaller, both halves written.");
    m.def("gram_add", &gram_add, nb::arg("block"), nb::arg("out").noconvert(),
          "out (k x k) += A Aᵀ for A (k x any), summed onto the lower half and mirrored.");
    m.def("gram_kernel", &gram_kernel, nb::arg("dtype_name"), "Name of the kernel that serves this dtype here.");
    m.def("gram_amx_model", &gram_amx_model, nb::arg("weight"), nb::arg("out").noconvert(),
          "For tests: the AMX kernel on a software model of the tiles (bfloat16 in, float32 out, slow).");
}
