// Python border of the digests.
#include "bind.hpp"

#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <vector>

#include "cpu/features.hpp"
#include "digest/digest.hpp"

namespace nb = nanobind;

namespace {

using Bytes = nb::ndarray<nb::ro, std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::list sha256(const std::vector<Bytes>& messages) {
#if defined(__x86_64__)
    if (cpu_features().sha) {
        std::vector<Message> in_work;
        for (const Bytes& one : messages) in_work.push_back({one.data(), static_cast<std::ptrdiff_t>(one.size()), {}});
        {
            const nb::gil_scoped_release release;
            sha256_sha(in_work.data(), std::ssize(in_work));
        }
        nb::list digests;
        for (const Message& one : in_work) digests.append(nb::bytes(one.digest, sizeof one.digest));
        return digests;
    }
#endif
    throw std::runtime_error("sha256: needs a processor with SHA instructions");
}

}  // namespace

void bind_digest(nb::module_& m) {
    m.def("sha256", &sha256, nb::arg("messages"),
          "SHA-256 of each byte string, two at a time, where cpu_features() has sha.");
}
