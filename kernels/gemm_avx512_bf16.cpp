// The bfloat16 symmetric product for AVX512-BF16.
#include "gemm_bf16.hpp"
#include "gemm_kernels.hpp"
#include "gemm_symmetric.hpp"

void gram_bfloat16_avx512(const MatrixView& view, float* out, bool add) {
    SymmetricProduct<PairKernel, PairPacker>::run(view, out, view.rows, add);
}
