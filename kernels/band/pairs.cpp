// The band reduction with three bfloat16 products: by AVX512-BF16, by AMX, and on a model of AMX.
#include "band/kernels.hpp"
#include "band/reduce.hpp"
#include "band/split.hpp"
#include "cpu/level.hpp"
#include "gram/pair_kernels.hpp"

void LEVELLED(band_pairs)(const BandTask<float>& task) {
    BandReduction<SplitSweep<LevelKernel, KERNEL_VECTOR_BYTES>, KERNEL_VECTOR_BYTES>::run(task);
}
