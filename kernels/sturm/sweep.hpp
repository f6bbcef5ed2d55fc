// The unpivoted LDL^T of B - x I for as many shifts x as a vector register has lanes.
//
// Left-looking by panels of C columns. M = L D is kept for the last b columns in a ring; entry (i, j) of the next panel
// is  M[i, j] = A[i, j] - sum_k M[i, k] L[j, k],  k = max(0, i - b) .. j - 1,  L[j, k] = M[j, k] / d[k].
// A register tile of R rows x C columns takes R + C loads for R C multiply-adds and is stored once, so the b x b/2
// window is read only once for every C columns.
//
// Everything here has internal linkage: it is compiled once a level (cpu/level.hpp).
#pragma once

#include "sturm/kernels.hpp"

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
    static constexpr double smallest = 1e-32;
    static STURM_INLINE Doubles widen(const Vector& v, int) { return v; }
};

template <>
struct Simd<float> {
    using Vector = Floats;
    using Mask = Ints;
    using Bits = int;
    static constexpr int lanes = KERNEL_VECTOR_BYTES / 4;
    static constexpr int doubles = 2;
    static constexpr float smallest = 1e-16f;
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

// Counts negative pivots. A pivot nearer to zero than its floor is moved to the floor on its own side; zero (or one
// lost to overflow) becomes -floor, as in LAPACK's dstebz.
template <class T>
struct CountPivots {
    using Entry = RealEntry<T>;
    VectorOf<T> shift;
    typename Simd<T>::Mask below;

    STURM_INLINE Entry entry(T a) const { return {broadcast(a)}; }
    STURM_INLINE Entry diagonal(T a, T live) const { return {(1 - live) + a - shift * live}; }
    STURM_INLINE Entry reciprocal(const Entry& pivot, T floor) {
        const VectorOf<T> limit = broadcast(floor);
        const VectorOf<T> moved = pivot.value > 0 ? limit : -limit;
        const VectorOf<T> d = magnitude(pivot.value) >= limit ? pivot.value : moved;
        below = below - (d < 0);
        return {1 / d};
    }
    STURM_INLINE void end_panel() {}
};

// The exponent of a positive normal number, and the factor with which a * factor lies in [1, 2).
STURM_INLINE Longs exponent_of(Doubles a, Doubles& factor) {
    Longs biased = (Longs)a >> 52;
    biased = biased > 2045 ? Longs{} + 2045 : biased;
    factor = (Doubles)((2046 - biased) << 52);
    return biased - 1023;
}

// Multiplies real pivots up in double precision. None is negative where the shift lies below every eigenvalue; one that
// rounding brought to zero counts as negative, so that no logarithm of it is believed.
template <class T>
struct MultiplyRealPivots {
    using Entry = RealEntry<T>;
    static constexpr int parts = Simd<T>::doubles;
    VectorOf<T> shift;
    typename Simd<T>::Mask below;
    Doubles product[parts];
    Longs exponent[parts];

    STURM_INLINE Entry entry(T a) const { return {broadcast(a)}; }
    STURM_INLINE Entry diagonal(T a, T live) const { return {(1 - live) + a - shift * live}; }
    STURM_INLINE Entry reciprocal(const Entry& pivot, T) {
        const VectorOf<T> limit = broadcast<T>(Simd<T>::smallest);
        const VectorOf<T> d = magnitude(pivot.value) >= limit ? pivot.value : -limit;
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
struct MultiplyComplexPivots {
    using Entry = ComplexEntry<T>;
    static constexpr int parts = Simd<T>::doubles;
    VectorOf<T> shift_re, shift_im;
    Doubles re[parts], im[parts];
    Longs exponent[parts], turns[parts];

    STURM_INLINE Entry entry(T a) const { return {broadcast(a), VectorOf<T>{}}; }
    STURM_INLINE Entry diagonal(T a, T live) const { return {((1 - live) + a) - shift_re * live, -(shift_im * live)}; }
    // Exact pivots have |d| >= |Im d| >= Im z; a smaller one is rounding. No other guard: near an eigenvalue d is small
    // in truth, and its logarithm is what is asked for. (Padding has pivots of 1, whatever the shift.)
    STURM_INLINE Entry reciprocal(const Entry& pivot, T) {
        VectorOf<T> limit = shift_im < 1 ? T(0.5) * shift_im : broadcast<T>(T(0.5));
        limit = limit > Simd<T>::smallest ? limit : broadcast<T>(Simd<T>::smallest);
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

template <class Pivots, int C, int R>
STURM_INLINE void sweep(const SturmBand<typename Pivots::Entry::Scalar>& band, Pivots& pivots, void* workspace) {
    using Entry = typename Pivots::Entry;
    using T = typename Entry::Scalar;
    const int b = band.half_width, rows = band.rows, ring = band.ring;
    const int tiles = (b + R - 1) / R;
    const std::ptrdiff_t panel_size = static_cast<std::ptrdiff_t>(rows) * C;
    Entry* const window = static_cast<Entry*>(workspace);  // [ring][rows][C]: M of panel p in slot p % ring
    Entry* const above = window + ring * panel_size;       // [columns][C]: rows of L for the current panel
    Entry* const inverses = above + ring * C * C;          // [ring][C]: 1 / d

    const int panels = band.order / C;
    int slot = 0;  // p % ring
    for (int p = 0; p < panels; ++p) {
        const int j = p * C;
        const T* const entries = band.entries + p * panel_size;
        Entry* const current = window + slot * panel_size;

        // Diagonal block, and on the way the rows of L that the whole panel needs.
        const int first = j > b ? (j - b) / C : 0;  // first panel that reaches row j
        int first_slot = slot - (p - first);
        if (first_slot < 0) first_slot += ring;
        Entry top[C][C];
        STURM_UNROLL
        for (int r = 0; r < C; ++r) {
            STURM_UNROLL
            for (int c = 0; c < r; ++c) top[r][c] = pivots.entry(entries[r * C + c]);
            top[r][r] = pivots.diagonal(entries[r * C + r], band.live[j + r]);
        }
        {
            Entry* write = above;
            int s = first_slot;
            for (int q = first; q < p; ++q) {
                const Entry* const source = window + s * panel_size + static_cast<std::ptrdiff_t>(j - q * C) * C;
                const Entry* const inverse = inverses + s * C;
                for (int k = 0; k < C; ++k) {
                    Entry l[C];
                    STURM_UNROLL
                    for (int c = 0; c < C; ++c) {
                        const Entry m = source[c * C + k];
                        l[c] = m.times(inverse[k]);
                        write[c] = l[c];
                        STURM_UNROLL
                        for (int c2 = 0; c2 <= c; ++c2) top[c][c2].subtract_product(m, l[c2]);
                    }
                    write += C;
                }
                if (++s == ring) s = 0;
            }
        }
        Entry lower[C][C];  // unit lower triangle of L in the diagonal block
        STURM_UNROLL
        for (int c = 0; c < C; ++c) {
            const Entry inverse = pivots.reciprocal(top[c][c], band.pivot_floor[j + c]);
            inverses[slot * C + c] = inverse;
            STURM_UNROLL
            for (int r = c + 1; r < C; ++r) lower[r][c] = top[r][c].times(inverse);
            STURM_UNROLL
            for (int r = c + 1; r < C; ++r) {
                STURM_UNROLL
                for (int c2 = c + 1; c2 <= r; ++c2) top[r][c2].subtract_product(top[r][c], lower[c2][c]);
            }
        }
        pivots.end_panel();

        // The b rows below, a register tile at a time.
        for (int t = 0; t < tiles; ++t) {
            const int offset = C + t * R;
            const int i = j + offset;
            Entry sum[R][C];
            STURM_UNROLL
            for (int r = 0; r < R; ++r) {
                STURM_UNROLL
                for (int c = 0; c < C; ++c) sum[r][c] = pivots.entry(entries[(offset + r) * C + c]);
            }
            const int start = i > b ? i - b : 0;
            int q = start / C, k = start % C;
            if (q < p) {
                int s = slot - (p - q);
                if (s < 0) s += ring;
                const Entry* l = above + static_cast<std::ptrdiff_t>(start - first * C) * C;
                for (; q < p; ++q) {
                    const Entry* m = window + s * panel_size + static_cast<std::ptrdiff_t>(i - q * C) * C + k;
                    for (; k < C; ++k, ++m, l += C) {
                        Entry left[R];
                        STURM_UNROLL
                        for (int r = 0; r < R; ++r) left[r] = m[r * C];
                        STURM_UNROLL
                        for (int c = 0; c < C; ++c) {
                            const Entry right = l[c];
                            STURM_UNROLL
                            for (int r = 0; r < R; ++r) sum[r][c].subtract_product(left[r], right);
                        }
                    }
                    k = 0;
                    if (++s == ring) s = 0;
                }
            }
            STURM_UNROLL
            for (int r = 0; r < R; ++r) {
                STURM_UNROLL
                for (int c = 0; c < C; ++c) {
                    STURM_UNROLL
                    for (int c2 = 0; c2 < c; ++c2) sum[r][c].subtract_product(sum[r][c2], lower[c][c2]);
                    current[(offset + r) * C + c] = sum[r][c];
                }
            }
        }
        if (++slot == ring) slot = 0;
    }
}

template <class T, int C, int R>
void count_lanes(const SturmBand<T>& band, const T* shifts, std::int64_t* below, void* workspace) {
    CountPivots<T> pivots{load(shifts), {}};
    sweep<CountPivots<T>, C, R>(band, pivots, workspace);
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) below[lane] = pivots.below[lane];
}

template <class T, int C, int R>
void multiply_real_lanes(const SturmBand<T>& band, const T* shifts, SturmProduct* products, void* workspace) {
    constexpr int parts = Simd<T>::doubles, width = Simd<double>::lanes;
    MultiplyRealPivots<T> pivots{load(shifts), {}, {}, {}};
    for (int part = 0; part < parts; ++part) pivots.product[part] = broadcast(1.0);
    sweep<MultiplyRealPivots<T>, C, R>(band, pivots, workspace);
    for (int part = 0; part < parts; ++part) {
        for (int lane = 0; lane < width; ++lane) {
            const std::int64_t below = pivots.below[part * width + lane];
            products[part * width + lane] = {pivots.product[part][lane], 0.0, pivots.exponent[part][lane],
                                             (below + 1) / 2};
        }
    }
}

template <class T, int C, int R>
void multiply_complex_lanes(const SturmBand<T>& band, const T* re, const T* im, SturmProduct* products,
                            void* workspace) {
    constexpr int parts = Simd<T>::doubles, width = Simd<double>::lanes;
    MultiplyComplexPivots<T> pivots{load(re), load(im), {}, {}, {}, {}};
    for (int part = 0; part < parts; ++part) pivots.re[part] = broadcast(1.0);
    sweep<MultiplyComplexPivots<T>, C, R>(band, pivots, workspace);
    for (int part = 0; part < parts; ++part) {
        for (int lane = 0; lane < width; ++lane) {
            products[part * width + lane] = {pivots.re[part][lane], pivots.im[part][lane], pivots.exponent[part][lane],
                                             pivots.turns[part][lane]};
        }
    }
}

// Tiles of C x R entries for real shifts, CComplex x RComplex for complex ones: C * R accumulators (twice that), R + 1
// operands and the broadcast must fit the registers. Measured on Zen 5, n = 2048, b = 32.
template <class T, int C, int R, int CComplex, int RComplex>
constexpr SturmKernels<T> make_kernels() {
    return {{Simd<T>::lanes, C, R, sizeof(RealEntry<T>)},
            {Simd<T>::lanes, CComplex, RComplex, sizeof(ComplexEntry<T>)},
            count_lanes<T, C, R>,
            multiply_real_lanes<T, C, R>,
            multiply_complex_lanes<T, CComplex, RComplex>};
}

}  // namespace
