// Python border of spectrum slicing: checks what crosses it, then runs without the GIL.
#include <nanobind/stl/string.h>

#include <complex>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "bind.hpp"
#include "sturm.hpp"

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
    std::int64_t stride = 1;
    for (std::size_t axis = dimensions; axis-- > 0;) {
        if (array.shape(axis) > 1 && array.stride(axis) != stride) {
            throw nb::value_error((std::string(name) + ": expected a contiguous tensor; call .contiguous()").c_str());
        }
        stride *= static_cast<std::int64_t>(array.shape(axis));
    }
}

// Checks the operands common to both operations; Shift and Value are the element types of shifts and out.
template <class Shift, class Value>
void require_operands(const nb::ndarray<>& band, const nb::ndarray<>& shifts, const nb::ndarray<>& out,
                      const char* shift_name, const char* value_name) {
    if (band.dtype() != nb::dtype<float>() && band.dtype() != nb::dtype<double>()) {
        throw nb::type_error("band: expected dtype float32 or float64");
    }
    require_dtype<Shift>(shifts, "shifts", shift_name);
    require_dtype<Value>(out, "out", value_name);
    require_layout(band, "band", 2);
    require_layout(shifts, "shifts", 1);
    require_layout(out, "out", 1);
    if (band.shape(0) == 0 || band.shape(1) == 0) {
        throw nb::value_error("band: expected shape (n, b + 1) with n >= 1 and b >= 0, found an empty tensor");
    }
    if (band.shape(0) > (1U << 24)) throw nb::value_error("band: expected at most 2^24 rows");
    if (out.shape(0) != shifts.shape(0)) {
        throw nb::value_error(("out: expected " + std::to_string(shifts.shape(0)) + " values, one a shift, found " +
                               std::to_string(out.shape(0)))
                                  .c_str());
    }
}

void bound_count_below(const nb::ndarray<>& band, const nb::ndarray<>& shifts, const nb::ndarray<>& out) {
    require_operands<double, std::int64_t>(band, shifts, out, "float64", "int64");
    const auto n = static_cast<std::int64_t>(band.shape(0)), width = static_cast<std::int64_t>(band.shape(1));
    const auto count = static_cast<std::int64_t>(shifts.shape(0));
    const bool single = band.dtype() == nb::dtype<float>();
    const auto* x = static_cast<const double*>(shifts.data());
    auto* below = static_cast<std::int64_t*>(out.data());
    nb::gil_scoped_release release;
    if (single) {
        count_below(static_cast<const float*>(band.data()), n, width, x, count, below);
    } else {
        count_below(static_cast<const double*>(band.data()), n, width, x, count, below);
    }
}

void bound_log_det(const nb::ndarray<>& band, const nb::ndarray<>& shifts, const nb::ndarray<>& out) {
    using Complex = std::complex<double>;
    require_operands<Complex, Complex>(band, shifts, out, "complex128", "complex128");
    const auto n = static_cast<std::int64_t>(band.shape(0)), width = static_cast<std::int64_t>(band.shape(1));
    const auto count = static_cast<std::int64_t>(shifts.shape(0));
    const bool single = band.dtype() == nb::dtype<float>();
    const auto* z = static_cast<const Complex*>(shifts.data());
    auto* values = static_cast<Complex*>(out.data());
    nb::gil_scoped_release release;
    if (single) {
        log_det(static_cast<const float*>(band.data()), n, width, z, count, values);
    } else {
        log_det(static_cast<const double*>(band.data()), n, width, z, count, values);
    }
}

}  // namespace

void bind_sturm(nb::module_& m) {
    m.def(
        "sturm_kernel", [] { return std::string(sturm_kernel_name()); },
        "Instruction set of the slicing kernels here: avx512, avx2 or portable.");
    m.def("count_below", bound_count_below, nb::arg("band"), nb::arg("shifts"), nb::arg("out"),
          "out[s] <- number of eigenvalues of the band matrix below shifts[s].");
    m.def("log_det", bound_log_det, nb::arg("band"), nb::arg("shifts"), nb::arg("out"),
          "out[s] <- sum of log(lambda_i - shifts[s]) over the eigenvalues, imaginary part not reduced.");
}
