// The float32 and float64 symmetric products and updates, for any level.
#include "cpu/level.hpp"
#include "gram/fma_kernel.hpp"
#include "gram/kernels.hpp"
#include "gram/symmetric_product.hpp"
#include "gram/symmetric_update.hpp"

namespace {

// In sums of type T.
template <class T, class Out>
void multiply(const MatrixView& view, Out* out, bool add) {
    using Kernel = FmaKernel<T, KERNEL_VECTOR_BYTES, BLOCK_ROWS(T)>;
    SymmetricProduct<Kernel, NumberPacker<Kernel>, Out>::run(view, out, view.rows, add);
}

void update(double* gram, const MatrixView& v, const MatrixView& z) {
    SymmetricUpdate<FmaKernel<double, KERNEL_VECTOR_BYTES, BLOCK_ROWS(double)>>::run(gram, v, z);
}

}  // namespace

extern constexpr GramKernel LEVELLED(gram){LEVEL_NAME, multiply<float, float>, multiply<double, double>,
                                           multiply<float, double>, update};
