// The bfloat16 symmetric products that multiply pairs: by AVX512-BF16, by AMX, on a model of AMX, and by NEON's
// BFMMLA.
#include "cpu/level.hpp"
#include "gram/kernels.hpp"
#include "gram/pair_kernels.hpp"
#include "gram/symmetric_product.hpp"

void LEVELLED(gram_pairs)(const MatrixView& view, float* out, bool add) {
    SymmetricProduct<LevelKernel, LevelPacker>::run(view, out, view.rows, add);
}
