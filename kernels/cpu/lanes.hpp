// Stored numbers widened to a register of float64.
#pragma once

#include "cpu/level.hpp"
#include "gram/pack.hpp"

namespace {

constexpr Index kLanes = KERNEL_VECTOR_BYTES / 8;

typedef double Lanes __attribute__((vector_size(KERNEL_VECTOR_BYTES)));

// One by one, as GCC sees it best: of whole vectors it converts halves and puts them together.
template <class Read>
inline Lanes widen(const typename Read::Stored* from) {
    Lanes wide;
    for (Index k = 0; k < kLanes; ++k) wide[k] = static_cast<double>(Read::read(from[k]));
    return wide;
}

}  // namespace
