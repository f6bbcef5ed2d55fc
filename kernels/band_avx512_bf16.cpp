// The band reduction with three bfloat16 products for AVX512-BF16.
#include "band_kernels.hpp"
#include "band_reduce.hpp"
#include "band_split.hpp"
#include "gemm_bf16.hpp"

void reduce_split_avx512_bf16(const BandTask<float>& task) { BandReduction<SplitSweep<PairKernel, 64>, 64>::run(task); }
