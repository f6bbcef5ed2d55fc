// Python binding of the processor's features, the number of threads and the memory that is kept.
#include "bind.hpp"

#include <memory>

#include "cpu/features.hpp"
#include "cpu/scratch.hpp"
#include "cpu/threads.hpp"

namespace nb = nanobind;

namespace {

using Bytes = Scratch<std::uint8_t>;

// The tensor owns the memory, which is freed with it.
nb::ndarray<nb::pytorch, std::uint8_t, nb::ndim<1>, nb::device::cpu> allocate(std::size_t bytes) {
    auto memory = std::make_unique<Bytes>(static_cast<std::ptrdiff_t>(bytes));
    const nb::capsule owner(memory.get(), [](void* of) noexcept { delete static_cast<Bytes*>(of); });
    return {memory.release()->data(), {bytes}, owner};
}

}  // namespace

void bind_cpu(nb::module_& m) {
    m.def(
        "cpu_features",
        [] {
            const CpuFeatures& f = cpu_features();
            nb::dict result;
#if defined(__aarch64__)
            result["neon"] = f.neon;
            result["neon_bf16"] = f.neon_bf16;
#else
            result["avx2_fma"] = f.avx2_fma;
            result["avx512"] = f.avx512;
            result["avx512_bf16"] = f.avx512_bf16;
            result["amx_bf16"] = f.amx_bf16;
            result["sha"] = f.sha;
#endif
            return result;
        },
        "Instruction sets that the kernels may use here (after SPECTRUM_FAST_ISA).");
    m.def(
        "set_num_threads", [](int n) { omp_set_num_threads(n); }, nb::arg("n"), "Threads of every later kernel call.");
    m.def("get_num_threads", [] { return omp_get_max_threads(); }, "Threads of the next kernel call.");
    m.attr("POOLED_BYTES") = kPooledBytes;
    m.def("allocate", &allocate, nb::arg("bytes"),
          "A tensor of so many bytes, of any content; from POOLED_BYTES on of memory that is kept when it dies.");
    m.def("kept_bytes", &kept_bytes, "Memory that is kept for later calls, in bytes.");
    m.def("release_kept", &release_kept, "Return it to the system.");
}
