// Python border of decoding: checks what crosses it, then runs without the GIL.
#include "bind.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <optional>
#include <string>

#include "decode/decode.hpp"

namespace nb = nanobind;

namespace {

template <class T>
using Flat = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool fits, const char* message) {
    if (!fits) throw nb::value_error(message);
}

void bound_scaled(const Flat<const std::uint8_t>& codes, std::int64_t rows, std::int64_t columns,
                  const Flat<const float>& table, const Flat<const float>& scales,
                  const std::optional<Flat<const float>>& zeros, std::int64_t block_rows, std::int64_t block_columns,
                  const Flat<float>& out) {
    require(rows >= 1 && columns >= 1 && block_rows >= 1 && block_columns >= 1, "expected extents of at least 1");
    const auto blocks = ((rows + block_rows - 1) / block_rows) * ((columns + block_columns - 1) / block_columns);
    const auto size = static_cast<std::size_t>(rows * columns), grid = static_cast<std::size_t>(blocks);
    require(codes.size() == size && out.size() == size, "codes, out: expected rows * columns elements");
    require(table.size() == 256 && scales.size() == grid, "expected a table of 256 and a scale for each block");
    require(!zeros || zeros->size() == grid, "zeros: expected one for each block");
    nb::gil_scoped_release release;
    decode_scaled({rows, columns, block_rows, block_columns}, codes.data(), table.data(), scales.data(),
                  zeros ? zeros->data() : nullptr, out.data());
}

void bound_nibbles(const Flat<const std::uint8_t>& codes, std::int64_t rows, std::int64_t groups, std::int64_t width,
                   std::int64_t stride, const Flat<const float>& table, const Flat<const float>& scales,
                   const std::optional<Flat<const float>>& zeros, bool low_first, const Flat<float>& out) {
    require(rows >= 1 && groups >= 1 && width >= 2 && width % 2 == 0, "expected groups of an even width");
    const auto count = static_cast<std::int64_t>(out.size()), row = groups * width;
    require(count <= rows * row && count > (rows - 1) * row && count > rows * row - width,
            "out: expected rows * groups * width elements, or fewer in the last group");
    require(stride * 2 >= row || rows == 1, "stride: expected a row of codes");
    require(static_cast<std::int64_t>(codes.size()) >= (rows - 1) * stride + (count - (rows - 1) * row + 1) / 2,
            "codes: expected a byte for two values");
    const auto given = static_cast<std::int64_t>(scales.size());
    require(table.size() == 16 && (given == rows * groups || given == groups),
            "expected a table of 16 and a scale for each group");
    require(!zeros || zeros->size() == scales.size(), "zeros: expected as many as scales");
    nb::gil_scoped_release release;
    decode_nibbles({rows, groups, width, stride, given == rows * groups ? groups : 0, count, low_first}, codes.data(),
                   table.data(), scales.data(), zeros ? zeros->data() : nullptr, out.data());
}

void bound_groups(const Flat<const std::uint8_t>& codes, const Flat<const std::uint8_t>& scales,
                  const Flat<const Bfloat16>& tables, const Flat<Bfloat16>& out) {
    const auto groups = scales.size();
    require(codes.size() == 16 * groups && out.size() == 32 * groups && tables.size() == 4096,
            "expected 16 bytes, 32 values and one scale a group, and 256 tables of 16");
    nb::gil_scoped_release release;
    decode_groups(static_cast<std::int64_t>(groups), codes.data(), scales.data(),
                  reinterpret_cast<const std::uint16_t*>(tables.data()), reinterpret_cast<std::uint16_t*>(out.data()));
}

}  // namespace

void bind_decode(nb::module_& m) {
    m.def(
        "decode_kernel", [] { return std::string(decode_kernel_name()); },
        "Instruction set of the decoding kernels here: avx512, avx2 or portable.");
    m.def("decode_scaled", bound_scaled, nb::arg("codes"), nb::arg("rows"), nb::arg("columns"), nb::arg("table"),
          nb::arg("scales"), nb::arg("zeros").none(), nb::arg("block_rows"), nb::arg("block_columns"), nb::arg("out"),
          "out <- (table[codes] - zero of the block) * scale of the block.");
    m.def("decode_nibbles", bound_nibbles, nb::arg("codes"), nb::arg("rows"), nb::arg("groups"), nb::arg("width"),
          nb::arg("stride"), nb::arg("table"), nb::arg("scales"), nb::arg("zeros").none(), nb::arg("low_first"),
          nb::arg("out"), "out <- (table[nibbles] - zero of the group) * scale of the group.");
    m.def("decode_groups", bound_groups, nb::arg("codes"), nb::arg("scales"), nb::arg("tables"), nb::arg("out"),
          "out <- tables[scale of the group][nibbles], low nibble first.");
}
