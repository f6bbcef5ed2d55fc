// Python border of spectrum slicing: checks what crosses it, then runs without the GIL.
#include "bind.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <complex>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "sturm/slice.hpp"

namespace nb = nanobind;

namespace {

template <class T>
void require_dtype(const nb::ndarray<>& array, const char* name, const char* expected) {
    if (array.dtype() != nb::dtype<T>()) {
        throw nb::type_error((std::string(name) + ": expected dtype " + expected).c_str());
    }
}

void require_layout(const nb::ndarray<>& array, const char* name, std::size_t dimensions) {
    if (array.device_type() != nb::device::cpu::value) {
        throw nb::value_error((std::string(name) + ": expected a CPU tensor").c_str());
    }
    if (array.ndim() != dimensions) {
        throw nb::value_error((std::string(name) + ": expected " + std::to_string(dimensions) + " dimensions, found " +
                               std::to_string(array.ndim()))
                                  .c_str());
    }
    if (!is_contiguous(array)) {
        throw nb::value_error((std::string(name) + ": expected a contiguous tensor; call .contiguous()").c_str());
    }
}

// Checks the operands common to both operations; Shift and Value are the element types of shifts and out.
template <class Shift, class Value>
void require_operands(const nb::ndarray<>& bands, const nb::ndarray<>& shifts, const nb::ndarray<>& out,
                      const char* shift_name, const char* value_name) {
    if (bands.dtype() != nb::dtype<float>() && bands.dtype() != nb::dtype<double>()) {
        throw nb::type_error("bands: expected dtype float32 or float64");
    }
    require_dtype<Shift>(shifts, "shifts", shift_name);
    require_dtype<Value>(out, "out", value_name);
    require_layout(bands, "bands", 3);
    require_layout(shifts, "shifts", 2);
    require_layout(out, "out", 2);
    if (bands.shape(1) == 0 || bands.shape(2) == 0) {
        throw nb::value_error("bands: expected shape (m, n, b + 1) with n >= 1 and b >= 0, found no entries");
    }
    if (bands.shape(1) > (1U << 24)) throw nb::value_error("bands: expected at most 2^24 rows");
    if (shifts.shape(0) != bands.shape(0) || out.shape(0) != bands.shape(0) || out.shape(1) != shifts.shape(1)) {
        throw nb::value_error(("shifts, out: expected shape (" + std::to_string(bands.shape(0)) + ", s), found " +
                               shape_of(shifts) + " and " + shape_of(out))
                                  .c_str());
    }
}

// Calls slice(band, n, width, shifts, count, out) for every matrix.
template <class T, class Shift, class Value, class Slice>
void slice_each(const nb::ndarray<>& bands, const nb::ndarray<>& shifts, const nb::ndarray<>& out, const Slice& slice) {
    const auto n = static_cast<std::int64_t>(bands.shape(1)), width = static_cast<std::int64_t>(bands.shape(2));
    const auto matrices = static_cast<std::int64_t>(bands.shape(0)), count = static_cast<std::int64_t>(shifts.shape(1));
    const auto* band = static_cast<const T*>(bands.data());
    const auto* x = static_cast<const Shift*>(shifts.data());
    auto* values = static_cast<Value*>(out.data());
    const nb::gil_scoped_release release;
    for (std::int64_t i = 0; i < matrices; ++i)
        slice(band + i * n * width, n, width, x + i * count, count, values + i * count);
}

void bound_count_below(const nb::ndarray<>& bands, const nb::ndarray<>& shifts, const nb::ndarray<>& out) {
    require_operands<double, std::int64_t>(bands, shifts, out, "float64", "int64");
    if (bands.dtype() == nb::dtype<float>()) {
        slice_each<float, double, std::int64_t>(bands, shifts, out, count_below<float>);
    } else {
        slice_each<double, double, std::int64_t>(bands, shifts, out, count_below<double>);
    }
}

void bound_narrow(const nb::ndarray<>& bands, const nb::ndarray<>& lo, const nb::ndarray<>& hi,
                  const nb::ndarray<>& ranks, const nb::ndarray<>& enough) {
    require_operands<double, double>(bands, lo, hi, "float64", "float64");
    require_dtype<std::int64_t>(ranks, "ranks", "int64");
    require_layout(ranks, "ranks", 1);
    require_dtype<double>(enough, "enough", "float64");
    require_layout(enough, "enough", 2);
    const auto count = static_cast<std::int64_t>(lo.shape(1));
    if (ranks.shape(0) != lo.shape(1) || shape_of(enough) != shape_of(lo))
        throw nb::value_error("ranks, enough: expected shapes (k) and (m, k), those of lo and hi");
    const auto* wanted = static_cast<const std::int64_t*>(ranks.data());
    const auto* widths = static_cast<const double*>(enough.data());
    const auto* first = static_cast<const double*>(lo.data());
    const auto slice = [=](auto* band, auto n, auto width, const double* from, auto, double* to) {
        narrow(band, n, width, const_cast<double*>(from), to, wanted, widths + (from - first), count);
    };
    if (bands.dtype() == nb::dtype<float>()) {
        slice_each<float, double, double>(bands, lo, hi, slice);
    } else {
        slice_each<double, double, double>(bands, lo, hi, slice);
    }
}

void bound_log_abs_det(const nb::ndarray<>& bands, const nb::ndarray<>& shifts, const nb::ndarray<>& out,
                       const std::optional<nb::ndarray<>>& wanted) {
    using Complex = std::complex<double>;
    require_operands<Complex, double>(bands, shifts, out, "complex128", "float64");
    const bool* asked = nullptr;
    if (wanted) {
        require_dtype<bool>(*wanted, "wanted", "bool");
        require_layout(*wanted, "wanted", 2);
        if (wanted->shape(0) != shifts.shape(0) || wanted->shape(1) != shifts.shape(1))
            throw nb::value_error(
                ("wanted: expected shape " + shape_of(shifts) + ", found " + shape_of(*wanted)).c_str());
        asked = static_cast<const bool*>(wanted->data());
    }
    const auto count = static_cast<std::int64_t>(shifts.shape(1));
    const auto slice = [asked, &shifts, count](auto* band, auto n, auto width, const Complex* x, auto, double* values) {
        const std::ptrdiff_t place = x - static_cast<const Complex*>(shifts.data());
        log_abs_det(band, n, width, x, count, values, asked == nullptr ? nullptr : asked + place);
    };
    if (bands.dtype() == nb::dtype<float>()) {
        slice_each<float, Complex, double>(bands, shifts, out, slice);
    } else {
        slice_each<double, Complex, double>(bands, shifts, out, slice);
    }
}

}  // namespace

void bind_sturm(nb::module_& m) {
    m.def(
        "sturm_kernel", [] { return std::string(sturm_kernel_name()); },
        "Instruction set of the slicing kernels here: avx512, avx2 or portable.");
    m.def("count_below", bound_count_below, nb::arg("bands"), nb::arg("shifts"), nb::arg("out"),
          "out[m, s] <- number of eigenvalues of band matrix m below shifts[m, s].");
    m.def("narrow", bound_narrow, nb::arg("bands"), nb::arg("lo"), nb::arg("hi"), nb::arg("ranks"), nb::arg("enough"),
          "lo[m, k], hi[m, k] <- narrower by counts at squares of points between, until hi - lo <= enough.");
    m.def("log_abs_det", bound_log_abs_det, nb::arg("bands"), nb::arg("shifts"), nb::arg("out"),
          nb::arg("wanted").none() = nb::none(),
          "out[m, s] <- log |det(B - shifts[m, s] I)| of band matrix m; 0 where not wanted.");
}
