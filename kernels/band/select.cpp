// The choice of a band reduction for this processor.
#include <stdexcept>

#include "band/kernels.hpp"
#include "cpu/features.hpp"
#include "gram/kernels.hpp"

BandKernel choose_band_kernel(Product product) {
#if defined(__x86_64__)
    // Three bfloat16 products beat one of float32 on AMX (about 16 times the multiplications), not on AVX512-BF16
    // (twice).
    if (product != Product::float32 && amx_is_sound()) return {"amx-bf16x3", band_pairs_amx, band_avx512.float64};
    if (product == Product::bf16x3) {
        if (!cpu_features().avx512_bf16)
            throw std::invalid_argument(
                "reduce_to_band: product 'bf16x3' needs AVX512-BF16, which this processor (or SPECTRUM_FAST_ISA) does "
                "not offer; use product 'float32'");
        return {"avx512-bf16x3", band_pairs_avx512_bf16, band_avx512.float64};
    }
#else
    if (product == Product::bf16x3)
        throw std::invalid_argument("reduce_to_band: product 'bf16x3' needs an x86-64 processor with AVX512-BF16");
#endif
#if defined(__aarch64__)
    // BFMMLA has four times the multiplications of float32: three such products would gain little.
    if (cpu_features().neon) return band_neon;
#endif
    return BEST_OF(band);
}
