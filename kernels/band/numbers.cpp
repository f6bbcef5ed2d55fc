// The float32 and float64 band reductions for AVX-512.
#include "band_kernels.hpp"
#include "band_reduce.hpp"
#include "gemm_fma.hpp"

namespace {
template <class T>
using Reduction = BandReduction<Sweep<FmaKernel<T, 64, 8>, 64>, 64>;
}  // namespace

void reduce_float32_avx512(const BandTask<float>& task) { Reduction<float>::run(task); }

void reduce_float64_avx512(const BandTask<double>& task) { Reduction<double>::run(task); }
