// The float32 and float64 band reductions, for any level.
#include "band/kernels.hpp"
#include "band/reduce.hpp"
#include "cpu/level.hpp"
#include "gram/fma_kernel.hpp"

namespace {

template <class T>
void reduce(const BandTask<T>& task) {
    constexpr int bytes = KERNEL_VECTOR_BYTES;
    BandReduction<Sweep<FmaKernel<T, bytes, BLOCK_ROWS(T)>, bytes>, bytes>::run(task);
}

}  // namespace

extern constexpr BandKernel LEVELLED(band){LEVEL_NAME, reduce<float>, reduce<double>};
