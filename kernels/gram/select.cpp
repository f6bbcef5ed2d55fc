// The choice of a symmetric product for this processor.
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/features.hpp"
#include "gram/kernels.hpp"

namespace {

#if defined(__x86_64__) || defined(__aarch64__)
// One product of an awkward shape against the portable kernel: an emulator or hypervisor that announces AMX or BFMMLA
// and computes something else is found out here.
bool agrees(const PairGram& pairs) {
    constexpr Index rows = 41, cols = 101;
    std::vector<std::uint16_t> values(rows * cols);
    std::uint32_t state = 1;
    for (std::uint16_t& value : values) {
        state = state * 1664525U + 1013904223U;
        value = static_cast<std::uint16_t>((state >> 31) << 15 | 0x3f00U | ((state >> 16) & 0x7fU));  // +-[0.5, 1)
    }
    const MatrixView view{values.data(), Element::bfloat16, rows, cols, cols, 1};
    std::vector<float> expected(rows * rows), found(rows * rows);
    gram_portable.to_float32(view, expected.data(), false);
    pairs.to_float32(view, found.data(), false);
    for (std::size_t i = 0; i < expected.size(); ++i)
        if (!(std::fabs(expected[i] - found[i]) <= 1e-4F)) return false;  // entries are up to 101, errors about 1e-5
    return true;
}

GramKernel with_pairs(const char* name, const PairGram& pairs, const GramKernel& numbers) {
    return {name, pairs.to_float32, numbers.to_float64, pairs.float32_to_float64, numbers.update};
}
#endif

}  // namespace

bool amx_is_sound() {
#if defined(__x86_64__)
    static const bool sound = cpu_features().amx_bf16 && agrees(gram_pairs_amx);
    return sound;
#else
    return false;
#endif
}

const GramKernel& choose_gram_kernel(Element element) {
#if defined(__x86_64__)
    static const GramKernel amx = with_pairs("amx-bf16", gram_pairs_amx, gram_avx512);
    static const GramKernel avx512_bf16 = with_pairs("avx512-bf16", gram_pairs_avx512_bf16, gram_avx512);
    if (element == Element::bfloat16) {
        if (amx_is_sound()) return amx;
        if (cpu_features().fast_bf16_dot) return avx512_bf16;
    }
#elif defined(__aarch64__)
    static const GramKernel neon_bf16 = with_pairs("neon-bf16", gram_pairs_neon_bf16, gram_neon);
    if (element == Element::bfloat16) {
        static const bool sound = cpu_features().neon_bf16 && agrees(gram_pairs_neon_bf16);
        if (sound) return neon_bf16;
    }
    if (cpu_features().neon) return gram_neon;
#else
    (void)element;
#endif
    return BEST_OF(gram);
}
