// The AMX symmetric product on the software model of the tiles.
#include "gemm_amx_model.hpp"

#include "gemm_amx.hpp"
#include "gemm_kernels.hpp"
#include "gemm_symmetric.hpp"

void gram_bfloat16_amx_model(const MatrixView& view, float* out, bool add) {
    SymmetricProduct<TileKernel<ModelTiles>, TilePacker<ModelTiles>>::run(view, out, view.rows, add);
}
