// OpenMP, or where the compiler has none its functions for a single thread (its pragmas are then ignored).
#pragma once

#if defined(_OPENMP)
#include <omp.h>
#else
static inline int omp_get_max_threads() { return 1; }
static inline int omp_get_thread_num() { return 0; }
static inline int omp_get_num_threads() { return 1; }
static inline void omp_set_num_threads(int) {}
#endif
