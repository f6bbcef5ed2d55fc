// The Python module spectrum_fast._native: each operation registers itself.
#include <nanobind/nanobind.h>

#include "bind.hpp"

NB_MODULE(_native, m) {
    m.doc() = "Compiled CPU kernels of spectrum_fast; use them through spectrum_fast.measure.ops.";
    bind_cpu(m);
    bind_gram(m);
    bind_band(m);
    bind_sturm(m);
    bind_extent(m);
    bind_decode(m);
    bind_digest(m);
    bind_product(m);
    bind_values(m);
}
