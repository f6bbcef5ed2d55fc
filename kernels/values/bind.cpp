// Python binding of the eigenvalues and eigenvectors of band matrices.
#include "bind.hpp"

#include "values/inverse.hpp"
#include "values/values.hpp"

namespace nb = nanobind;

namespace {

using Bands = nb::ndarray<const double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tolerances = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void values_of_bands(const Bands& bands, const Tolerances& tolerances, const Values& values) {
    const Index count = static_cast<Index>(bands.shape(0)), n = static_cast<Index>(bands.shape(1));
    const Index width = static_cast<Index>(bands.shape(2));
    if (n < 1 || width < 1 || width > kWidestBand + 1)
        throw nb::value_error(("band_values: expected bands (m, n, b + 1) with n >= 1 and b from 0 to " +
                               std::to_string(kWidestBand) + ", found shape " + shape_of(bands))
                                  .c_str());
    if (values.shape(0) != bands.shape(0) || values.shape(1) != bands.shape(1) || tolerances.shape(0) != bands.shape(0))
        throw nb::value_error("band_values: values must have shape (m, n), tolerances (m,)");
    const nb::gil_scoped_release release;
    for (Index i = 0; i < count; ++i)
        band_values(bands.data() + i * n * width, n, width - 1, tolerances.data()[i], values.data() + i * n);
}

using Vectors = nb::ndarray<double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Shifts = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void vectors_of_bands(const Bands& bands, const Shifts& shifts, const Vectors& vectors, int steps) {
    const Index count = static_cast<Index>(bands.shape(0)), n = static_cast<Index>(bands.shape(1));
    const Index width = static_cast<Index>(bands.shape(2)), each = static_cast<Index>(shifts.shape(1));
    if (n < 1 || width < 1) throw nb::value_error("iterate_inverse: expected bands (m, n, b + 1) with n >= 1");
    if (shifts.shape(0) != bands.shape(0) || vectors.shape(0) != bands.shape(0) || steps < 1 ||
        vectors.shape(1) != shifts.shape(1) || vectors.shape(2) != bands.shape(1))
        throw nb::value_error("iterate_inverse: expected shifts (m, k), vectors (m, k, n) and steps >= 1");
    const nb::gil_scoped_release release;
    for (Index i = 0; i < count; ++i)
        iterate_inverse(bands.data() + i * n * width, n, width - 1, shifts.data() + i * each, each, steps,
                        vectors.data() + i * each * n);
}

}  // namespace

void bind_values(nb::module_& m) {
    m.def(
        "band_values", &values_of_bands, nb::arg("bands").noconvert(), nb::arg("tolerances").noconvert(),
        nb::arg("values").noconvert(),
        "values (m x n, ascending) <- eigenvalues of band matrices (m x n x (b + 1)), each in a bracket no wider than "
        "the matrix's tolerance.");
    m.def("iterate_inverse", &vectors_of_bands, nb::arg("bands").noconvert(), nb::arg("shifts").noconvert(),
          nb::arg("vectors").noconvert(), nb::arg("steps"),
          "vectors (m x k x n) <- (B - x I)^-1 of them, `steps` times and to unit length, one for each shift (m x k).");
}
