// What a sweep asks of a pivot of B - x I besides its reciprocal: each struct gives the entries of its matrix, and
// keeps what it makes of the pivots.
//
// Everything here has internal linkage: it is compiled once a level (cpu/level.hpp).
#pragma once

#include "sturm/lanes.hpp"

namespace {

// The exponent of a positive normal number, and the factor with which a * factor lies in [1, 2).
STURM_INLINE Longs exponent_of(Doubles a, Doubles& factor) {
    Longs biased = (Longs)a >> 52;
    biased = biased > 2045 ? Longs{} + 2045 : biased;
    factor = (Doubles)((2046 - biased) << 52);
    return biased - 1023;
}

// Counts negative pivots and multiplies all up in double precision. One nearer to zero than its floor is moved to the
// floor on its own side; zero (or one lost to overflow) becomes -floor, as in LAPACK's dstebz.
template <class T>
struct RealPivots {
    using Entry = RealEntry<T>;
    static constexpr int parts = Simd<T>::doubles;
    VectorOf<T> shift;
    typename Simd<T>::Mask below;
    Doubles product[parts];
    Longs exponent[parts];

    STURM_INLINE Entry entry(T a) const { return {broadcast(a)}; }
    STURM_INLINE Entry diagonal(T a, T live) const { return {a - shift * live}; }
    STURM_INLINE Entry reciprocal(const Entry& pivot, T floor) {
        const VectorOf<T> limit = broadcast(floor);
        const VectorOf<T> moved = pivot.value > 0 ? limit : -limit;
        const VectorOf<T> d = magnitude(pivot.value) >= limit ? pivot.value : moved;
        below = below - (d < 0);
        STURM_UNROLL
        for (int part = 0; part < parts; ++part) product[part] *= Simd<T>::widen(d, part);
        return {1 / d};
    }
    // Moves the exponent of the product out, so that it can neither overflow nor underflow.
    STURM_INLINE void end_panel() {
        STURM_UNROLL
        for (int part = 0; part < parts; ++part) {
            Doubles factor;
            exponent[part] += exponent_of(magnitude(product[part]), factor);
            product[part] *= factor;
        }
    }
};

// Multiplies complex pivots up in double precision. Every pivot's argument lies in (-pi, 0), so the running product
// crosses the branch cut exactly when it goes from the lower half plane to the upper one.
template <class T>
struct ComplexPivots {
    using Entry = ComplexEntry<T>;
    static constexpr int parts = Simd<T>::doubles;
    VectorOf<T> shift_re, shift_im;
    Doubles re[parts], im[parts];
    Longs exponent[parts], turns[parts];

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
        for (int part = 0; part < parts; ++part) multiply(Simd<T>::widen(d_re, part), Simd<T>::widen(d_im, part), part);
        return {d_re * inverse, -(d_im * inverse)};
    }
    STURM_INLINE void multiply(Doubles d_re, Doubles d_im, int part) {
        // Rounding may leave Im d >= 0, or so small that the rounding of the product could step over the cut the wrong
        // way; an argument of at least 8 eps (4 times that rounding) keeps the count of turns exact.
        constexpr double step = 8 * 2.220446049250313e-16;
        const Doubles most = -step * magnitude(d_re);
        d_im = d_im < most ? d_im : most;
        const Doubles next_re = re[part] * d_re - im[part] * d_im;
        const Doubles next_im = re[part] * d_im + im[part] * d_re;
        turns[part] -= (im[part] < 0) & (next_im >= 0);
        re[part] = next_re;
        im[part] = next_im;
    }
    // Moves the exponent of the product out, so that it can neither overflow nor underflow.
    STURM_INLINE void end_panel() {
        STURM_UNROLL
        for (int part = 0; part < parts; ++part) {
            const Doubles a = magnitude(re[part]), b = magnitude(im[part]);
            Doubles factor;
            exponent[part] += exponent_of(a > b ? a : b, factor);
            re[part] *= factor;
            im[part] *= factor;
        }
    }
};

}  // namespace
