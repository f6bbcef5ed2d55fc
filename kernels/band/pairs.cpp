// The band reduction with three bfloat16 products for AMX.
#include "band_kernels.hpp"
#include "band_reduce.hpp"
#include "band_split.hpp"
#include "gemm_amx.hpp"
#include "gemm_amx_tiles.hpp"

void reduce_split_amx(const BandTask<float>& task) {
    BandReduction<SplitSweep<TileKernel<ProcessorTiles>, 64>, 64>::run(task);
}
