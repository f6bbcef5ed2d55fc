// Python border of the digests.
#include "bind.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "digest/digest.hpp"

namespace nb = nanobind;

namespace {

using Bytes = nb::ndarray<nb::ro, std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The kernel of these instructions, or the best one of this processor.
DigestKernel kernel_for(const std::string& instructions) {
    for (const DigestKernel& kernel : digest_kernels())
        if (instructions.empty() || instructions == kernel.instructions) return kernel;
    throw std::runtime_error("sha256: this processor has no " +
                             (instructions.empty() ? "instructions that it is written for" : instructions));
}

nb::list sha256(const std::vector<Bytes>& messages, const std::string& instructions) {
    const DigestKernel kernel = kernel_for(instructions);
    std::vector<Message> in_work;
    for (const Bytes& one : messages) in_work.push_back({one.data(), static_cast<std::ptrdiff_t>(one.size()), {}});
    {
        const nb::gil_scoped_release release;
        kernel.hash(in_work.data(), std::ssize(in_work));
    }
    nb::list digests;
    for (const Message& one : in_work) digests.append(nb::bytes(one.digest, sizeof one.digest));
    return digests;
}

nb::dict kernels() {
    nb::dict lanes;
    for (const DigestKernel& kernel : digest_kernels()) lanes[kernel.instructions] = kernel.lanes;
    return lanes;
}

}  // namespace

void bind_digest(nb::module_& m) {
    m.def("sha256", &sha256, nb::arg("messages"), nb::arg("instructions") = "",
          "SHA-256 of each byte string, several at a time, by the best of digest_kernels() or the one that is named.");
    m.def("digest_kernels", &kernels,
          "Instructions that SHA-256 is written for and this processor has, the best first, and how many messages each "
          "takes at a time.");
}
