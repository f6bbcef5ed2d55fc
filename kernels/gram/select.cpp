// The choice of a symmetric product for this processor.
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu.hpp"
#include "gemm_kernels.hpp"

namespace {

constexpr GramKernel portable{"portable", gram_float32_portable, gram_float64_portable};

#if defined(__x86_64__)
constexpr GramKernel avx2{"avx2", gram_float32_avx2, gram_float64_avx2};
constexpr GramKernel avx512{"avx512", gram_float32_avx512, gram_float64_avx512};
constexpr GramKernel avx512_bf16{"avx512-bf16", gram_bfloat16_avx512, gram_float64_avx512};
constexpr GramKernel amx_bf16{"amx-bf16", gram_bfloat16_amx, gram_float64_avx512};

// One product of an awkward shape on the tiles against the portable kernel: an emulator or hypervisor that announces
// AMX and computes something else is found out here.
bool check_amx() {
    constexpr Index rows = 41, cols = 101;
    std::vector<std::uint16_t> values(rows * cols);
    std::uint32_t state = 1;
    for (std::uint16_t& value : values) {
        state = state * 1664525U + 1013904223U;
        value = static_cast<std::uint16_t>((state >> 31) << 15 | 0x3f00U | ((state >> 16) & 0x7fU));  // +-[0.5, 1)
    }
    const MatrixView view{values.data(), Element::bfloat16, rows, cols, cols, 1};
    std::vector<float> expected(rows * rows), found(rows * rows);
    gram_float32_portable(view, expected.data(), false);
    gram_bfloat16_amx(view, found.data(), false);
    for (std::size_t i = 0; i < expected.size(); ++i)
        if (!(std::fabs(expected[i] - found[i]) <= 1e-4F)) return false;  // entries are up to 101, errors about 1e-5
    return true;
}
#endif

}  // namespace

bool amx_is_sound() {
#if defined(__x86_64__)
    static const bool sound = cpu_features().amx_bf16 && check_amx();
    return sound;
#else
    return false;
#endif
}

const GramKernel& choose_gram_kernel(Element element) {
#if defined(__x86_64__)
    const CpuFeatures& cpu = cpu_features();
    if (element == Element::bfloat16) {
        if (amx_is_sound()) return amx_bf16;
        if (cpu.fast_bf16_dot) return avx512_bf16;
    }
    if (cpu.avx512) return avx512;
    if (cpu.avx2_fma) return avx2;
#else
    (void)element;
#endif
    return portable;
}
