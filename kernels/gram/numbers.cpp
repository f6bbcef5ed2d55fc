// The float32 and float64 symmetric products, for any level.
#include "cpu/level.hpp"
#include "gram/fma_kernel.hpp"
#include "gram/kernels.hpp"
#include "gram/symmetric_product.hpp"

namespace {

template <class T>
void multiply(const MatrixView& view, T* out, bool add) {
    using Kernel = FmaKernel<T, KERNEL_VECTOR_BYTES, BLOCK_ROWS(T)>;
    SymmetricProduct<Kernel, NumberPacker<Kernel>>::run(view, out, view.rows, add);
}

}  // namespace

extern constexpr GramKernel LEVELLED(gram){LEVEL_NAME, multiply<float>, multiply<double>};
