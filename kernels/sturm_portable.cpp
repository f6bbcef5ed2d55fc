// Any processor: vectors of 16 bytes, the width that SSE2 and NEON both have.
#define STURM_VECTOR_BYTES 16
#include "sturm_sweep.hpp"

extern constexpr SturmIsa sturm_portable{"portable", make_kernels<float, 6, 2, 3, 2>(),
                                         make_kernels<double, 6, 2, 3, 2>()};
