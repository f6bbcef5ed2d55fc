// The float32 and float64 band reductions for any processor (SSE2 on x86-64).
#include "band_kernels.hpp"
#include "band_reduce.hpp"
#include "gemm_fma.hpp"

namespace {
template <class T>
using Reduction = BandReduction<Sweep<FmaKernel<T, 16, 4>, 16>, 16>;
}  // namespace

void reduce_float32_portable(const BandTask<float>& task) { Reduction<float>::run(task); }

void reduce_float64_portable(const BandTask<double>& task) { Reduction<double>::run(task); }
