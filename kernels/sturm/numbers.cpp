// AVX-512: 32 registers of 64 bytes.
#define STURM_VECTOR_BYTES 64
#include "sturm_sweep.hpp"

extern constexpr SturmIsa sturm_avx512{"avx512", make_kernels<float, 6, 4, 5, 2>(), make_kernels<double, 6, 4, 5, 2>()};
