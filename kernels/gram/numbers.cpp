// The float32 and float64 symmetric products for AVX-512.
#include "gemm_fma.hpp"
#include "gemm_kernels.hpp"
#include "gemm_symmetric.hpp"

namespace {
using Kernel32 = FmaKernel<float, 64, 8>;
using Kernel64 = FmaKernel<double, 64, 8>;
}  // namespace

void gram_float32_avx512(const MatrixView& view, float* out, bool add) {
    SymmetricProduct<Kernel32, NumberPacker<Kernel32>>::run(view, out, view.rows, add);
}

void gram_float64_avx512(const MatrixView& view, double* out, bool add) {
    SymmetricProduct<Kernel64, NumberPacker<Kernel64>>::run(view, out, view.rows, add);
}
