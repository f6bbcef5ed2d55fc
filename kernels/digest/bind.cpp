// Python border of the digests.
#include "bind.hpp"

#include "cpu/features.hpp"
#include "digest/digest.hpp"

namespace nb = nanobind;

namespace {

using Bytes = nb::ndarray<nb::ro, std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::tuple sha256_pair(const Bytes& one, const Bytes& other) {
#if defined(__x86_64__)
    if (cpu_features().sha) {
        Message messages[2] = {{one.data(), static_cast<std::ptrdiff_t>(one.size()), {}},
                               {other.data(), static_cast<std::ptrdiff_t>(other.size()), {}}};
        {
            const nb::gil_scoped_release release;
            sha256_pair_sha(messages[0], messages[1]);
        }
        return nb::make_tuple(nb::bytes(messages[0].digest, 32), nb::bytes(messages[1].digest, 32));
    }
#endif
    throw std::runtime_error("sha256_pair: needs a processor with SHA instructions");
}

}  // namespace

void bind_digest(nb::module_& m) {
    m.def("sha256_pair", &sha256_pair, nb::arg("one"), nb::arg("other"),
          "SHA-256 of two byte strings, where cpu_features() has sha; quickest where they are of one length.");
}
