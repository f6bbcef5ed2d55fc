// The bfloat16 symmetric products that multiply pairs: by AVX512-BF16, by AMX, on a model of AMX, and by NEON's
// BFMMLA.
#include "cpu/level.hpp"
#include "gram/kernels.hpp"
#include "gram/pair_kernels.hpp"
#include "gram/symmetric_product.hpp"

namespace {

template <class Out>
void multiply(const MatrixView& view, Out* out, bool add) {
    SymmetricProduct<LevelKernel, LevelPacker, Out>::run(view, out, view.rows, add);
}

}  // namespace

extern constexpr PairGram LEVELLED(gram_pairs){multiply<float>, multiply<double>};
