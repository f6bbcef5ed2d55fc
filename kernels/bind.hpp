// What each bind.cpp adds to the Python module, and what they share: how bfloat16 and float16 tensors cross the border
// without a copy, and how an array is looked at.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <string>

#include "gram/view.hpp"

struct Bfloat16 {
    std::uint16_t bits;
};
struct Float16 {
    std::uint16_t bits;
};

namespace nanobind::detail {
template <>
struct dtype_traits<Bfloat16> {
    static constexpr dlpack::dtype value{static_cast<std::uint8_t>(dlpack::dtype_code::Bfloat), 16, 1};
    static constexpr auto name = const_name("bfloat16");
};
template <>
struct dtype_traits<Float16> {
    static constexpr dlpack::dtype value{static_cast<std::uint8_t>(dlpack::dtype_code::Float), 16, 1};
    static constexpr auto name = const_name("float16");
};
}  // namespace nanobind::detail

// The element type of an array; a TypeError that begins with `what` if it is none of the four.
template <class Array>
Element element_of(const Array& array, const char* what) {
    namespace nb = nanobind;
    if (array.dtype() == nb::dtype<double>()) return Element::float64;
    if (array.dtype() == nb::dtype<float>()) return Element::float32;
    if (array.dtype() == nb::dtype<Float16>()) return Element::float16;
    if (array.dtype() == nb::dtype<Bfloat16>()) return Element::bfloat16;
    throw nb::type_error((std::string(what) + " must be float64, float32, float16 or bfloat16").c_str());
}

template <class Array>
std::string shape_of(const Array& array) {
    std::string text = "(";
    for (std::size_t i = 0; i < array.ndim(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
    return text + ")";
}

// Whether entries lie one after the other; strides of dimensions of length 1 mean nothing.
template <class Array>
bool is_contiguous(const Array& array) {
    std::int64_t stride = 1;
    for (std::size_t axis = array.ndim(); axis-- > 0;) {
        if (array.shape(axis) > 1 && array.stride(axis) != stride) return false;
        stride *= static_cast<std::int64_t>(array.shape(axis));
    }
    return true;
}

void bind_cpu(nanobind::module_& m);
void bind_gram(nanobind::module_& m);
void bind_band(nanobind::module_& m);
void bind_sturm(nanobind::module_& m);
void bind_extent(nanobind::module_& m);
void bind_decode(nanobind::module_& m);
void bind_digest(nanobind::module_& m);
void bind_product(nanobind::module_& m);
void bind_values(nanobind::module_& m);
