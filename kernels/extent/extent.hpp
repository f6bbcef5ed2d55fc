// One pass over numbers: largest absolute entry and sum of squares in float64, read at the speed of memory.
#pragma once

#include <cstddef>

#include "gram/view.hpp"

struct Extent {
    double max_abs = 0.0;  // NaN or infinity if one is there
    double sum_of_squares = 0.0;
};

// Of n contiguous numbers; the same bits for any number of threads.
Extent measure_extent(const void* data, std::ptrdiff_t n, Element element);
