// The sweeps in float32 and float64, for any level.
#include "cpu/level.hpp"
#include "sturm/sweep.hpp"

namespace {

// Columns and rows of a register tile for real and for complex shifts: SSE2 and NEON have 16 registers of 16 bytes (or
// more), AVX2 has 16 of 32, AVX-512 32 of 64.
template <class T>
constexpr SturmKernels<T> make_level() {
    if constexpr (KERNEL_VECTOR_BYTES == 64) return make_kernels<T, 6, 4, 5, 2>();
    if constexpr (KERNEL_VECTOR_BYTES == 32) return make_kernels<T, 3, 3, 4, 1>();
    if constexpr (KERNEL_VECTOR_BYTES == 16) return make_kernels<T, 6, 2, 3, 2>();
}

}  // namespace

extern constexpr SturmIsa LEVELLED(sturm){LEVEL_NAME, make_level<float>(), make_level<double>()};
