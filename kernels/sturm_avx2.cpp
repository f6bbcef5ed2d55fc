// AVX2 and FMA: 16 registers of 32 bytes.
#define STURM_VECTOR_BYTES 32
#include "sturm_sweep.hpp"

extern constexpr SturmIsa sturm_avx2{"avx2", make_kernels<float, 3, 3, 4, 1>(), make_kernels<double, 3, 3, 4, 1>()};
