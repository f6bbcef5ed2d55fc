// Transposes a small square in registers: the inner step of packing and of gathering panels.
#pragma once

#include <utility>

#include "gram/view.hpp"

namespace {

template <class T, Index kLanes>
class SquareTranspose {
    typedef T Vector __attribute__((vector_size(kLanes * sizeof(T)), aligned(sizeof(T)), may_alias));

  public:
    // to(j, i) = from(i, j) for i, j < kLanes, a power of two; strides in elements between rows. What is read may be
    // stored as elements of another type, several of which make a T; its stride counts those.
    template <class Stored>
    static inline __attribute__((always_inline)) void run(const Stored* from, Index from_stride, T* to,
                                                          Index to_stride) {
        typedef T Source __attribute__((vector_size(kLanes * sizeof(T)), aligned(sizeof(Stored)), may_alias));
        Vector rows[kLanes];
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes; ++i) rows[i] = *reinterpret_cast<const Source*>(from + i * from_stride);
        exchange<1>(rows, std::make_integer_sequence<int, kLanes>());
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes; ++i) *reinterpret_cast<Vector*>(to + i * to_stride) = rows[i];
    }

    // to(j) = sum over i of from(j, i), i, j < kLanes.
    static inline __attribute__((always_inline)) void add(const T* from, T* to) {
        Vector rows[kLanes];
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes; ++i) rows[i] = *reinterpret_cast<const Vector*>(from + i * kLanes);
        fold<1>(rows, std::make_integer_sequence<int, kLanes>());
        *reinterpret_cast<Vector*>(to) = rows[0];
    }

  private:
    // Swaps bit kBit of the row number with the same bit of the column number, then the higher bits.
    template <int kBit, int... kLane>
    static inline __attribute__((always_inline)) void exchange(Vector (&rows)[kLanes],
                                                               std::integer_sequence<int, kLane...> lanes) {
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes; ++i) {
            if (i & kBit) continue;
            const Vector a = rows[i], b = rows[i | kBit];
            rows[i] = __builtin_shufflevector(a, b, ((kLane & kBit) ? int{kLanes} + (kLane ^ kBit) : kLane)...);
            rows[i | kBit] = __builtin_shufflevector(a, b, ((kLane & kBit) ? int{kLanes} + kLane : (kLane ^ kBit))...);
        }
        if constexpr (2 * kBit < kLanes) exchange<2 * kBit>(rows, lanes);
    }

    // The same with what would be swapped added up: half as many rows remain.
    template <int kBit, int... kLane>
    static inline __attribute__((always_inline)) void fold(Vector (&rows)[kLanes],
                                                           std::integer_sequence<int, kLane...> lanes) {
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes; i += 2 * kBit) {
            const Vector a = rows[i], b = rows[i | kBit];
            rows[i] = __builtin_shufflevector(a, b, ((kLane & kBit) ? int{kLanes} + (kLane ^ kBit) : kLane)...) +
                      __builtin_shufflevector(a, b, ((kLane & kBit) ? int{kLanes} + kLane : (kLane ^ kBit))...);
        }
        if constexpr (2 * kBit < kLanes) fold<2 * kBit>(rows, lanes);
    }
};

}  // namespace
