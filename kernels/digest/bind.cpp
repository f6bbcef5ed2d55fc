// Python border of the digests.
#include "bind.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/features.hpp"
#include "digest/digest.hpp"

namespace nb = nanobind;

namespace {

using Bytes = nb::ndarray<nb::ro, std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Kernel = void (*)(Message*, std::ptrdiff_t);

// The kernel for these instructions, or the best one of this processor; nullptr where it has none.
Kernel kernel_for([[maybe_unused]] const std::string& instructions) {
#if defined(__x86_64__)
    const CpuFeatures& has = cpu_features();
    const auto fits = [&](const char* name) { return instructions.empty() || instructions == name; };
    if (has.sha && fits("sha")) return sha256_sha;
    if (has.avx512 && fits("avx512")) return sha256_avx512;
    if (has.avx2_fma && fits("avx2_fma")) return sha256_avx2;
#endif
    return nullptr;
}

nb::list sha256(const std::vector<Bytes>& messages, const std::string& instructions) {
    const Kernel kernel = kernel_for(instructions);
    if (kernel == nullptr)
        throw std::runtime_error("sha256: this processor has no " +
                                 (instructions.empty() ? "instructions that it is written for" : instructions));
    std::vector<Message> in_work;
    for (const Bytes& one : messages) in_work.push_back({one.data(), static_cast<std::ptrdiff_t>(one.size()), {}});
    {
        const nb::gil_scoped_release release;
        kernel(in_work.data(), std::ssize(in_work));
    }
    nb::list digests;
    for (const Message& one : in_work) digests.append(nb::bytes(one.digest, sizeof one.digest));
    return digests;
}

}  // namespace

void bind_digest(nb::module_& m) {
    m.def(
        "sha256", &sha256, nb::arg("messages"), nb::arg("instructions") = "",
        "SHA-256 of each byte string, several at a time, by the best of cpu_features() sha, avx512 and avx2_fma, or by "
        "the one that is named.");
}
