// Python binding of the band reduction.
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "band_kernels.hpp"
#include "bind.hpp"

namespace nb = nanobind;

namespace {

using AnyArray = nb::ndarray<nb::device::cpu>;

Product product_named(const std::string& name) {
    if (name == "auto") return Product::automatic;
    if (name == "float32") return Product::float32;
    if (name == "bf16x3") return Product::bf16x3;
    throw std::invalid_argument("reduce_to_band: product must be auto, float32 or bf16x3, found '" + name + "'");
}

std::string shape_of(const AnyArray& array) {
    std::string text = "(";
    for (std::size_t i = 0; i < array.ndim(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
    return text + ")";
}

void require_contiguous(const char* name, const AnyArray& array) {
    const bool rows_follow = array.shape(0) == 1 || array.stride(0) == static_cast<std::int64_t>(array.shape(1));
    const bool unit = array.shape(1) == 1 || array.stride(1) == 1;
    if (!rows_follow || !unit)
        throw nb::value_error((std::string("reduce_to_band: ") + name + " must be contiguous, found strides (" +
                               std::to_string(array.stride(0)) + ", " + std::to_string(array.stride(1)) + ")")
                                  .c_str());
}

template <class T>
BandTask<T> task_of(const AnyArray& matrix, const AnyArray& band) {
    return {static_cast<const T*>(matrix.data()), static_cast<Index>(matrix.shape(0)),
            static_cast<Index>(band.shape(1)) - 1, static_cast<T*>(band.data())};
}

void require_shapes(const AnyArray& matrix, const AnyArray& band) {
    if (matrix.ndim() != 2 || matrix.shape(0) != matrix.shape(1) || matrix.shape(0) == 0)
        throw nb::value_error(("reduce_to_band: matrix must be square, found shape " + shape_of(matrix)).c_str());
    if (band.ndim() != 2 || band.shape(0) != matrix.shape(0) || band.shape(1) < 2)
        throw nb::value_error(("reduce_to_band: band must have shape (" + std::to_string(matrix.shape(0)) +
                               ", half_width + 1) with half_width >= 1, found " + shape_of(band))
                                  .c_str());
    if (matrix.dtype() != band.dtype()) throw nb::type_error("reduce_to_band: matrix and band must have one dtype");
    require_contiguous("matrix", matrix);
    require_contiguous("band", band);
}

void reduce_to_band(const AnyArray& matrix, const AnyArray& band, const std::string& product) {
    require_shapes(matrix, band);
    if (product == "bf16x3" && matrix.dtype() != nb::dtype<float>())
        throw nb::type_error("reduce_to_band: product 'bf16x3' needs a float32 matrix");
    const BandKernel kernel = choose_band_kernel(product_named(product));
    if (matrix.dtype() == nb::dtype<float>()) {
        const BandTask<float> task = task_of<float>(matrix, band);
        const nb::gil_scoped_release release;
        kernel.float32(task);
    } else if (matrix.dtype() == nb::dtype<double>()) {
        const BandTask<double> task = task_of<double>(matrix, band);
        const nb::gil_scoped_release release;
        kernel.float64(task);
    } else {
        throw nb::type_error("reduce_to_band: matrix must be float32 or float64");
    }
}

void reduce_to_band_amx_model(const AnyArray& matrix, const AnyArray& band) {
    require_shapes(matrix, band);
    if (matrix.dtype() != nb::dtype<float>()) throw nb::type_error("reduce_to_band_amx_model: matrix must be float32");
    const BandTask<float> task = task_of<float>(matrix, band);
    const nb::gil_scoped_release release;
    reduce_split_amx_model(task);
}

}  // namespace

void bind_band(nb::module_& m) {
    m.def("reduce_to_band", &reduce_to_band, nb::arg("matrix").noconvert(), nb::arg("band").noconvert(),
          nb::arg("product") = "auto",
          "band (n x (b + 1)) <- lower band storage of a band matrix with the eigenvalues of the symmetric matrix, of "
          "which only the lower half is read. product: auto, float32 or bf16x3 (float32 matrices only).");
    m.def(
        "band_kernel", [] { return std::string(choose_band_kernel(Product::automatic).name); },
        "Name of the kernel that reduces float32 matrices here.");
    m.def("reduce_to_band_amx_model", &reduce_to_band_amx_model, nb::arg("matrix").noconvert(),
          nb::arg("band").noconvert(), "For tests: the AMX form on a software model of the tiles (slow).");
}
