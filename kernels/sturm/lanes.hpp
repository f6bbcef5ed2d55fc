// Vectors whose lanes hold different shifts, and entries of matrices in them.
//
// Everything here has internal linkage: it is compiled once a level (cpu/level.hpp).
#pragma once

#define STURM_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define STURM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define STURM_UNROLL _Pragma("GCC unroll 16")
#endif

namespace {

typedef double Doubles __attribute__((vector_size(KERNEL_VECTOR_BYTES)));
typedef float Floats __attribute__((vector_size(KERNEL_VECTOR_BYTES)));
typedef float HalfFloats __attribute__((vector_size(KERNEL_VECTOR_BYTES / 2)));
typedef long long Longs __attribute__((vector_size(KERNEL_VECTOR_BYTES)));
typedef int Ints __attribute__((vector_size(KERNEL_VECTOR_BYTES)));

template <class T>
struct Simd;

template <>
struct Simd<double> {
    using Vector = Doubles;
    using Mask = Longs;
    using Bits = long long;
    static constexpr int lanes = KERNEL_VECTOR_BYTES / 8;
    static constexpr int doubles = 1;  // vectors of doubles that hold one Vector
    static STURM_INLINE Doubles widen(const Vector& v, int) { return v; }
};

template <>
struct Simd<float> {
    using Vector = Floats;
    using Mask = Ints;
    using Bits = int;
    static constexpr int lanes = KERNEL_VECTOR_BYTES / 4;
    static constexpr int doubles = 2;
    static STURM_INLINE Doubles widen(const Vector& v, int half) {
        HalfFloats halves[2];
        __builtin_memcpy(halves, &v, sizeof v);
        return __builtin_convertvector(halves[half], Doubles);
    }
};

template <class T>
using VectorOf = typename Simd<T>::Vector;

template <class T>
STURM_INLINE VectorOf<T> broadcast(T a) {
    return a - VectorOf<T>{};
}

template <class T>
STURM_INLINE VectorOf<T> load(const T* from) {
    VectorOf<T> v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class V>
STURM_INLINE V magnitude(V v) {
    return v < 0 ? -v : v;
}

// An entry of B - x I with real x, all lanes.
template <class T>
struct RealEntry {
    using Scalar = T;
    VectorOf<T> value;

    STURM_INLINE void subtract_product(const RealEntry& a, const RealEntry& b) { value = value - a.value * b.value; }
    STURM_INLINE RealEntry times(const RealEntry& a) const { return {value * a.value}; }
};

// An entry of B - z I with complex z: symmetric, not Hermitian.
template <class T>
struct ComplexEntry {
    using Scalar = T;
    VectorOf<T> re, im;

    STURM_INLINE void subtract_product(const ComplexEntry& a, const ComplexEntry& b) {
        re = re - a.re * b.re;
        im = im - a.re * b.im;
        re = re + a.im * b.im;
        im = im - a.im * b.re;
    }
    STURM_INLINE ComplexEntry times(const ComplexEntry& a) const {
        return {re * a.re - im * a.im, re * a.im + im * a.re};
    }
};

}  // namespace
