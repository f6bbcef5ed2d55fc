// Python binding of the eigenvalues of band matrices.
#include "bind.hpp"

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

}  // namespace

void bind_values(nb::module_& m) {
    m.def(
        "band_values", &values_of_bands, nb::arg("bands").noconvert(), nb::arg("tolerances").noconvert(),
        nb::arg("values").noconvert(),
        "values (m x n, ascending) <- eigenvalues of band matrices (m x n x (b + 1)), each in a bracket no wider than "
        "the matrix's tolerance.");
}
