// Python binding of the band reduction.
#include "bind.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "band/kernels.hpp"

namespace nb = nanobind;

namespace {

using AnyArray = nb::ndarray<nb::device::cpu>;

Product product_named(const std::string& name) {
    if (name == "auto") return Product::automatic;
    if (name == "float32") return Product::float32;
    if (name == "bf16x3") return Product::bf16x3;
    throw std::invalid_argument("reduce_to_band: product must be auto, float32 or bf16x3, found '" + name + "'");
}

using Vectors = std::optional<nb::ndarray<double, nb::ndim<3>, nb::c_contig, nb::device::cpu>>;

template <class T>
BandTask<T> task_of(const AnyArray& matrices, const AnyArray& bands, const Vectors& carried, bool vectors,
                    Index index) {
    const Index n = static_cast<Index>(matrices.shape(1)), width = static_cast<Index>(bands.shape(2));
    T* matrix = static_cast<T*>(matrices.data()) + index * n * n;
    return {matrix,
            n,
            width - 1,
            static_cast<T*>(bands.data()) + index * n * width,
            carried ? carried->data() + index * n * kCarried : nullptr,
            vectors ? matrix : nullptr};
}

void require_shapes(const AnyArray& matrices, const AnyArray& bands, const Vectors& carried) {
    if (matrices.ndim() != 3 || matrices.shape(1) != matrices.shape(2) || matrices.shape(1) == 0)
        throw nb::value_error(
            ("reduce_to_band: expected matrices (m, n, n), found shape " + shape_of(matrices)).c_str());
    if (bands.ndim() != 3 || bands.shape(0) != matrices.shape(0) || bands.shape(1) != matrices.shape(1) ||
        bands.shape(2) < 2)
        throw nb::value_error(("reduce_to_band: bands must have shape (" + std::to_string(matrices.shape(0)) + ", " +
                               std::to_string(matrices.shape(1)) + ", half_width + 1) with half_width >= 1, found " +
                               shape_of(bands))
                                  .c_str());
    if (matrices.dtype() != bands.dtype()) throw nb::type_error("reduce_to_band: matrices and bands need one dtype");
    if (carried && (carried->shape(0) != matrices.shape(0) || carried->shape(1) != kCarried ||
                    carried->shape(2) != matrices.shape(1)))
        throw nb::value_error("reduce_to_band: expected carried vectors (m, 8, n)");
    if (!is_contiguous(matrices) || !is_contiguous(bands))
        throw nb::value_error("reduce_to_band: matrices and bands must be contiguous");
}

template <class T>
void reduce_each(const AnyArray& matrices, const AnyArray& bands, const Vectors& carried, bool vectors,
                 void (*reduce)(const BandTask<T>& task)) {
    const Index count = static_cast<Index>(matrices.shape(0));
    const nb::gil_scoped_release release;
    for (Index i = 0; i < count; ++i) reduce(task_of<T>(matrices, bands, carried, vectors, i));
}

void reduce_to_band(const AnyArray& matrices, const AnyArray& bands, const std::string& product, const Vectors& carried,
                    bool vectors) {
    require_shapes(matrices, bands, carried);
    if (product == "bf16x3" && matrices.dtype() != nb::dtype<float>())
        throw nb::type_error("reduce_to_band: product 'bf16x3' needs float32 matrices");
    const BandKernel kernel = choose_band_kernel(product_named(product));
    if (matrices.dtype() == nb::dtype<float>()) {
        reduce_each(matrices, bands, carried, vectors, kernel.float32);
    } else if (matrices.dtype() == nb::dtype<double>()) {
        reduce_each(matrices, bands, carried, vectors, kernel.float64);
    } else {
        throw nb::type_error("reduce_to_band: matrices must be float32 or float64");
    }
}

void reduce_to_band_amx_model(const AnyArray& matrices, const AnyArray& bands) {
    require_shapes(matrices, bands, {});
    if (matrices.dtype() != nb::dtype<float>())
        throw nb::type_error("reduce_to_band_amx_model: matrices must be float32");
    reduce_each(matrices, bands, {}, false, band_pairs_amx_model);
}

}  // namespace

void bind_band(nb::module_& m) {
    m.def(
        "reduce_to_band", &reduce_to_band, nb::arg("matrices").noconvert(), nb::arg("bands").noconvert(),
        nb::arg("product") = "auto", nb::arg("carried").none().noconvert() = nb::none(), nb::arg("vectors") = false,
        "bands (m x n x (b + 1)) <- lower band storage of band matrices with the eigenvalues of the symmetric ones, "
        "of which only the lower half is read. product: auto, float32 or bf16x3 (float32 matrices only). "
        "carried (m x 8 x n, float64): each x <- Q^T x. vectors: the matrices' own rows take the Householder vectors.");
    m.def(
        "band_kernel", [] { return std::string(choose_band_kernel(Product::automatic).name); },
        "Name of the kernel that reduces float32 matrices here.");
    m.def("reduce_to_band_amx_model", &reduce_to_band_amx_model, nb::arg("matrices").noconvert(),
          nb::arg("bands").noconvert(), "For tests: the AMX form on a software model of the tiles (slow).");
}
