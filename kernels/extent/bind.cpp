// Python binding of the extent.
#include "bind.hpp"

#include "extent/extent.hpp"

namespace nb = nanobind;

namespace {

void measure(const nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>& weights,
             const nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>& out) {
    const Element element = element_of(weights, "measure: weights");
    if (weights.ndim() != 3 || out.shape(0) != weights.shape(0) || out.shape(1) != 2)
        throw nb::value_error("measure: expected weights (m, r, c) and out (m, 2)");
    const auto count = static_cast<std::ptrdiff_t>(weights.shape(0));
    const auto size = static_cast<std::ptrdiff_t>(weights.shape(1) * weights.shape(2));
    const nb::gil_scoped_release release;
    for (std::ptrdiff_t i = 0; i < count; ++i) {
        const char* data = static_cast<const char*>(weights.data()) + i * size * size_of(element);
        const Extent found = measure_extent(data, size, element);
        out.data()[2 * i] = found.max_abs;
        out.data()[2 * i + 1] = found.sum_of_squares;
    }
}

}  // namespace

void bind_extent(nb::module_& m) {
    m.def("measure", &measure, nb::arg("weights"), nb::arg("out").noconvert(),
          "out (m x 2, float64) <- largest absolute entry and sum of squares; NaN or infinity shows in the first.");
}
