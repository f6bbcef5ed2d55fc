// What a sweep asks of a pivot of B - x I besides its reciprocal: each struct gives the entries of its matrix, and
// keeps what it makes of the pivots.
//
// Everything here has internal linkage: it is compiled once a level (cpu/level.hpp).
#pragma once

#include "sturm/lanes.hpp"

namespace {

// A product of a register of numbers in double precision, in as many parts as that takes.
template <class T>
struct Product {
    static constexpr int parts = Simd<T>::doubles;
    Doubles mantissa[parts];
    Longs exponent[parts]{};

    Product() {
        for (Doubles& part : mantissa) part = broadcast(1.0);
    }
    // Moves the exponents out, so that the product can neither overflow nor underflow: |mantissa| is in [1, 2) then.
    STURM_INLINE void normalise() {
        STURM_UNROLL
        for (int part = 0; part < parts; ++part) {
            Longs biased = (Longs)mantissa[part] >> 52 & 2047;
            biased = biased > 2045 ? Longs{} + 2045 : biased;
            exponent[part] += biased - 1023;
            mantissa[part] *= (Doubles)((2046 - biased) << 52);
        }
    }
};

// Counts negative pivots and multiplies all up in double precision. One nearer to zero than its floor is moved to the
// floor on its own side; zero (or one lost to overflow) becomes -floor, as in LAPACK's dstebz.
template <class T>
struct RealPivots {
    using Entry = RealEntry<T>;
    VectorOf<T> shift;
    typename Simd<T>::Mask below{};
    Product<T> product;

    STURM_INLINE Entry entry(T a) const { return {broadcast(a)}; }
    STURM_INLINE Entry diagonal(T a, T live) const { return {a - shift * live}; }
    STURM_INLINE Entry reciprocal(const Entry& pivot, T floor) {
        const VectorOf<T> limit = broadcast(floor);
        const VectorOf<T> moved = pivot.value > 0 ? limit : -limit;
        const VectorOf<T> d = magnitude(pivot.value) >= limit ? pivot.value : moved;
        below = below - (d < 0);
        STURM_UNROLL
        for (int part = 0; part < product.parts; ++part) product.mantissa[part] *= Simd<T>::widen(d, part);
        return {1 / d};
    }
};

// Multiplies the squared magnitudes of complex pivots up in double precision.
template <class T>
struct ComplexPivots {
    using Entry = ComplexEntry<T>;
    VectorOf<T> shift_re, shift_im;
    Product<T> product;

    STURM_INLINE Entry entry(T a) const { return {broadcast(a), VectorOf<T>{}}; }
    STURM_INLINE Entry diagonal(T a, T live) const { return {a - shift_re * live, -(shift_im * live)}; }
    // Exact pivots have |d| >= |Im d| >= Im z; a smaller one is rounding. No other guard: near an eigenvalue d is small
    // in truth, and its logarithm is what is asked for. (Padding has pivots of 1, whatever the shift.)
    STURM_INLINE Entry reciprocal(const Entry& pivot, T floor) {
        VectorOf<T> limit = shift_im < 1 ? T(0.5) * shift_im : broadcast<T>(T(0.5));
        limit = limit > floor ? limit : broadcast(floor);
        const VectorOf<T> square = pivot.re * pivot.re + pivot.im * pivot.im;
        const typename Simd<T>::Mask sound = square >= limit * limit;
        const VectorOf<T> d_re = sound ? pivot.re : VectorOf<T>{};
        const VectorOf<T> d_im = sound ? pivot.im : -limit;
        const VectorOf<T> inverse = 1 / (sound ? square : limit * limit);
        STURM_UNROLL
        for (int part = 0; part < product.parts; ++part) {
            const Doubles wide_re = Simd<T>::widen(d_re, part), wide_im = Simd<T>::widen(d_im, part);
            product.mantissa[part] *= wide_re * wide_re + wide_im * wide_im;
        }
        return {d_re * inverse, -(d_im * inverse)};
    }
};

}  // namespace
