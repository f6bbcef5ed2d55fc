// What each *_bind.cpp adds to the Python module, and the one nanobind fact they share: how bfloat16 and float16
// tensors cross the border without a copy.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

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

void bind_cpu(nanobind::module_& m);
void bind_gram(nanobind::module_& m);
void bind_band(nanobind::module_& m);
void bind_sturm(nanobind::module_& m);
void bind_extent(nanobind::module_& m);
void bind_decode(nanobind::module_& m);
