// The choice of a band reduction for this processor.
#include <stdexcept>

#include "band_kernels.hpp"
#include "cpu.hpp"
#include "gemm_kernels.hpp"

BandKernel choose_band_kernel(Product product) {
#if defined(__x86_64__)
    const CpuFeatures& cpu = cpu_features();
    // Three bfloat16 products beat one of float32 on AMX (about 16 times the multiplications), not on AVX512-BF16
    // (twice).
    if (product != Product::float32 && amx_is_sound()) return {"amx-bf16x3", reduce_split_amx, reduce_float64_avx512};
    if (product == Product::bf16x3) {
        if (!cpu.avx512_bf16)
            throw std::invalid_argument(
                "reduce_to_band: product 'bf16x3' needs AVX512-BF16, which this processor (or SPECTRUM_FAST_ISA) does "
                "not offer; use product 'float32'");
        return {"avx512-bf16x3", reduce_split_avx512_bf16, reduce_float64_avx512};
    }
    if (cpu.avx512) return {"avx512", reduce_float32_avx512, reduce_float64_avx512};
    if (cpu.avx2_fma) return {"avx2", reduce_float32_avx2, reduce_float64_avx2};
#else
    if (product == Product::bf16x3)
        throw std::invalid_argument("reduce_to_band: product 'bf16x3' needs an x86-64 processor with AVX512-BF16");
#endif
    return {"portable", reduce_float32_portable, reduce_float64_portable};
}
