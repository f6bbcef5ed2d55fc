// Python binding of the symmetric Gram product and update.
#include "bind.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "gram/kernels.hpp"

namespace nb = nanobind;

namespace {

using AnyArray = nb::ndarray<nb::device::cpu>;
using Weights = nb::ndarray<nb::ro, nb::device::cpu>;

// Matrix `index` of a batch, whose rows are multiplied with each other.
MatrixView as_stored(const Weights& weights, Index index, Element element) {
    const Index m = static_cast<Index>(weights.shape(1)), n = static_cast<Index>(weights.shape(2));
    // The stride of a dimension of length 1 is meaningless; call it contiguous so that the fast packing serves it.
    const Index rs = m == 1 ? n : weights.stride(1), cs = n == 1 ? 1 : weights.stride(2);
    const char* data = static_cast<const char*>(weights.data()) + index * weights.stride(0) * size_of(element);
    return MatrixView{data, element, m, n, rs, cs};
}

// The weight as the k x max(m, n) matrix whose rows are multiplied with each other.
MatrixView orient(const MatrixView& view) {
    if (view.rows <= view.cols) return view;
    return MatrixView{view.data, view.element, view.cols, view.rows, view.col_stride, view.row_stride};
}

void require_shapes(const Weights& weights, const AnyArray& out, bool oriented) {
    if (weights.ndim() != 3 || weights.shape(1) == 0 || weights.shape(2) == 0)
        throw nb::value_error(("gram: expected weights (m, r, c), found shape " + shape_of(weights)).c_str());
    const std::size_t size = oriented ? weights.shape(1) : std::min(weights.shape(1), weights.shape(2));
    if (out.ndim() != 3 || out.shape(0) != weights.shape(0) || out.shape(1) != size || out.shape(2) != size)
        throw nb::value_error(("gram: out must have shape (" + std::to_string(weights.shape(0)) + ", " +
                               std::to_string(size) + ", " + std::to_string(size) + "), found " + shape_of(out))
                                  .c_str());
    if (!is_contiguous(out)) throw nb::value_error("gram: out must be contiguous");
}

// One product a matrix: of the weight turned so that it is the smaller one, or of a block as it is, added to `out`.
void multiply(const Weights& weights, const AnyArray& out, bool add, bool unrounded) {
    const Element element = element_of(weights, "gram: weights");
    require_shapes(weights, out, add);
    const bool wide = out.dtype() == nb::dtype<double>();
    if (!wide && out.dtype() != nb::dtype<float>()) throw nb::type_error("gram: out must be float32 or float64");
    if (!wide && element == Element::float64)
        throw nb::type_error("gram: float64 weights need a float64 out, found float32");
    if (unrounded && (!wide || element == Element::float64))
        throw nb::type_error("gram: float32 sums that are not rounded need weights not in float64 and a float64 out");
    const Index count = static_cast<Index>(out.shape(0)), entries = static_cast<Index>(out.shape(1) * out.shape(2));
    const nb::gil_scoped_release release;
    const GramKernel& kernel = choose_gram_kernel(element);
    for (Index i = 0; i < count; ++i) {
        const MatrixView stored = as_stored(weights, i, element);
        const MatrixView view = add ? stored : orient(stored);
        if (wide) {
            const auto product = unrounded ? kernel.float32_to_float64 : kernel.to_float64;
            product(view, static_cast<double*>(out.data()) + i * entries, add);
        } else {
            kernel.to_float32(view, static_cast<float*>(out.data()) + i * entries, add);
        }
    }
}

void gram(const Weights& weights, const AnyArray& out, bool unrounded) { multiply(weights, out, false, unrounded); }

void gram_add(const Weights& blocks, const AnyArray& out, bool unrounded) { multiply(blocks, out, true, unrounded); }

using Doubles = nb::ndarray<double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void gram_update(const Doubles& grams, const Doubles& v, const Doubles& z) {
    const std::size_t count = grams.shape(0), size = grams.shape(1), rank = v.shape(2);
    if (grams.shape(2) != size || v.shape(0) != count || v.shape(1) != size || z.shape(0) != count ||
        z.shape(1) != size || z.shape(2) != rank)
        throw nb::value_error("gram_update: expected grams (m, k, k), v and z (m, k, r)");
    const nb::gil_scoped_release release;
    const Index k = static_cast<Index>(size), r = static_cast<Index>(rank);
    for (std::size_t i = 0; i < count; ++i)
        choose_gram_kernel(Element::float64)
            .update(grams.data() + i * size * size, {v.data() + i * size * rank, Element::float64, k, r, r, 1},
                    {z.data() + i * size * rank, Element::float64, k, r, r, 1});
}

void gram_amx_model(const Weights& weights, const AnyArray& out) {
    if (element_of(weights, "gram_amx_model: weights") != Element::bfloat16 || out.dtype() != nb::dtype<float>())
        throw nb::type_error("gram_amx_model: weights must be bfloat16 and out float32");
    require_shapes(weights, out, false);
    const Index count = static_cast<Index>(out.shape(0)), entries = static_cast<Index>(out.shape(1) * out.shape(2));
    const nb::gil_scoped_release release;
    for (Index i = 0; i < count; ++i)
        gram_pairs_amx_model.to_float32(orient(as_stored(weights, i, Element::bfloat16)),
                                        static_cast<float*>(out.data()) + i * entries, false);
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
    m.def("gram", &gram, nb::arg("weights"), nb::arg("out").noconvert(), nb::arg("unrounded") = false,
          "out (m x k x k, float32 or float64) <- W Wᵀ or Wᵀ W, whichever is smaller, both halves written; unrounded: "
          "as for a float32 out, kept in a float64 one.");
    m.def("gram_add", &gram_add, nb::arg("blocks"), nb::arg("out").noconvert(), nb::arg("unrounded") = false,
          "out (m x k x k) += A Aᵀ for A (m x k x any), summed onto the lower half and mirrored.");
    m.def("gram_update", &gram_update, nb::arg("grams").noconvert(), nb::arg("v").noconvert(), nb::arg("z").noconvert(),
          "G + V Zᵀ + Z Vᵀ of symmetric G (m x k x k, float64), V and Z m x k x r, as k x k numbers of float32 from "
          "where each G begins.");
    m.def("gram_kernel", &gram_kernel, nb::arg("dtype_name"), "Name of the kernel that serves this dtype here.");
    m.def("gram_amx_model", &gram_amx_model, nb::arg("weights"), nb::arg("out").noconvert(),
          "For tests: the AMX kernel on a software model of the tiles (bfloat16 in, float32 out, slow).");
}
