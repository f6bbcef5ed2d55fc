// The float32 and float64 symmetric products for any processor (SSE2 on x86-64).
#include "gemm_fma.hpp"
#include "gemm_kernels.hpp"
#include "gemm_symmetric.hpp"

namespace {
using Kernel32 = FmaKernel<float, 16, 4>;
using Kernel64 = FmaKernel<double, 16, 4>;
}  // namespace

void gram_float32_portable(const MatrixView& view, float* out, bool add) {
    SymmetricProduct<Kernel32, NumberPacker<Kernel32>>::run(view, out, view.rows, add);
}

void gram_float64_portable(const MatrixView& view, double* out, bool add) {
    SymmetricProduct<Kernel64, NumberPacker<Kernel64>>::run(view, out, view.rows, add);
}
