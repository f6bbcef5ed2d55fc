// The AMX band reduction on the software model of the tiles.
#include "band_kernels.hpp"
#include "band_reduce.hpp"
#include "band_split.hpp"
#include "gemm_amx.hpp"
#include "gemm_amx_model.hpp"

void reduce_split_amx_model(const BandTask<float>& task) {
    BandReduction<SplitSweep<TileKernel<ModelTiles>, 16>, 16>::run(task);
}
