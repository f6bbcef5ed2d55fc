// Python binding of the processor's features and of the number of threads.
#include "bind.hpp"

#include "cpu/features.hpp"
#include "cpu/threads.hpp"

namespace nb = nanobind;

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
}
