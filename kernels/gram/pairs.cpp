// The bfloat16 symmetric product for AMX.
#include "gemm_amx.hpp"

#include "gemm_amx_tiles.hpp"
#include "gemm_kernels.hpp"
#include "gemm_symmetric.hpp"

void gram_bfloat16_amx(const MatrixView& view, float* out, bool add) {
    SymmetricProduct<TileKernel<ProcessorTiles>, TilePacker<ProcessorTiles>>::run(view, out, view.rows, add);
}
