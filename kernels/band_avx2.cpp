// The float32 and float64 band reductions for AVX2 with FMA.
#include "band_kernels.hpp"
#include "band_reduce.hpp"
#include "gemm_fma.hpp"

namespace {
template <class T>
using Reduction = BandReduction<Sweep<FmaKernel<T, 32, 4>, 32>, 32>;
}  // namespace

void reduce_float32_avx2(const BandTask<float>& task) { Reduction<float>::run(task); }

void reduce_float64_avx2(const BandTask<double>& task) { Reduction<double>::run(task); }
