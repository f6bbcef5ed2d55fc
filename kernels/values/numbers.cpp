// From band to tridiagonal, and counts on that, for any level: blocks of b x b numbers, b a multiple of every register,
// with the vectors of a reflection in registers.
#include "cpu/level.hpp"
#include "values/kernels.hpp"

#if defined(__clang__)
#define VALUES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VALUES_UNROLL _Pragma("GCC unroll 64")
#endif

namespace {

constexpr int kLanes = KERNEL_VECTOR_BYTES / 8;

typedef double Lanes __attribute__((vector_size(KERNEL_VECTOR_BYTES)));
typedef double Unaligned __attribute__((vector_size(KERNEL_VECTOR_BYTES), aligned(8), may_alias));
typedef long long Bits __attribute__((vector_size(KERNEL_VECTOR_BYTES)));

inline Lanes load(const double* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(double* to, const Lanes& lanes) { *reinterpret_cast<Unaligned*>(to) = lanes; }

template <int kBytes>
inline double sum_halves(const double* numbers) {
    typedef double Half __attribute__((vector_size(kBytes / 2), aligned(8), may_alias));
    const Half sum = *reinterpret_cast<const Half*>(numbers) + *reinterpret_cast<const Half*>(numbers + kBytes / 16);
    double halves[kBytes / 16];
    *reinterpret_cast<Half*>(halves) = sum;
    if constexpr (kBytes == 32)
        return halves[0] + halves[1];
    else
        return sum_halves<kBytes / 2>(halves);
}

inline double sum_of(const Lanes& lanes) {
    double numbers[kLanes];
    store(numbers, lanes);
    if constexpr (kLanes == 2)
        return numbers[0] + numbers[1];
    else
        return sum_halves<KERNEL_VECTOR_BYTES>(numbers);
}

// The lanes from `first` on; the others zero.
inline Lanes from_lane(const Lanes& lanes, int first) {
    Bits places;
    for (int k = 0; k < kLanes; ++k) places[k] = k;
    return reinterpret_cast<Lanes>(reinterpret_cast<Bits>(lanes) & (places >= first));
}

template <int kWidth>
struct Chase {
    static constexpr int kVectors = kWidth / kLanes;
    static constexpr Index kStride = column_stride(kWidth);

    // Of kWidth numbers at x, which become one number and zeros. Returns the factor; 0 where there is nothing to clear.
    static double reflect(double* x, Lanes (&v)[kVectors]) {
        Lanes squares = {};
        VALUES_UNROLL for (int k = 0; k < kVectors; ++k) {
            v[k] = load(x + k * kLanes);
            const Lanes tail = k == 0 ? from_lane(v[0], 1) : v[k];
            squares += tail * tail;
        }
        const double first = x[0], rest = sum_of(squares);
        double factor = 0.0, scale = 0.0, left = first;
        if (rest > 0.0) {
            const double norm = __builtin_sqrt(first * first + rest);
            left = first > 0.0 ? -norm : norm;
            factor = (left - first) / left;
            scale = 1.0 / (first - left);
        }
        VALUES_UNROLL for (int k = 0; k < kVectors; ++k) {
            v[k] *= scale;
            store(x + k * kLanes, Lanes{});
        }
        v[0][0] = 1.0;
        x[0] = left;
        return factor;
    }

    // The lower half of the block at `diagonal` <- H block H with H = I - factor v v^T.
    static void both_sides(double* diagonal, const Lanes (&v)[kVectors], double factor) {
        if (factor == 0.0) return;
        double scalars[kWidth], dots[kWidth];
        Lanes y[kVectors] = {};
        VALUES_UNROLL for (int k = 0; k < kVectors; ++k) store(scalars + k * kLanes, v[k]);
        VALUES_UNROLL for (int block = 0; block < kVectors; ++block) for (int lane = 0; lane < kLanes; ++lane) {
            const int j = block * kLanes + lane;
            const double* column = diagonal + j * (kStride - 1);
            const Lanes nearest = load(column + block * kLanes);
            y[block] += from_lane(nearest, lane) * scalars[j];
            Lanes dot = from_lane(nearest, lane + 1) * v[block];
            VALUES_UNROLL for (int k = block + 1; k < kVectors; ++k) {
                const Lanes below = load(column + k * kLanes);
                y[k] += below * scalars[j];
                dot += below * v[k];
            }
            dots[j] = sum_of(dot);
        }
        Lanes products = {};
        VALUES_UNROLL for (int k = 0; k < kVectors; ++k) {
            y[k] = (y[k] + load(dots + k * kLanes)) * factor;
            products += y[k] * v[k];
        }
        const double half = -0.5 * factor * sum_of(products);
        VALUES_UNROLL for (int k = 0; k < kVectors; ++k) {
            y[k] += half * v[k];
            store(dots + k * kLanes, y[k]);
        }
        VALUES_UNROLL for (int block = 0; block < kVectors; ++block) for (int lane = 0; lane < kLanes; ++lane) {
            const int j = block * kLanes + lane;
            double* column = diagonal + j * (kStride - 1);
            VALUES_UNROLL for (int k = block; k < kVectors; ++k)  // what is above the diagonal lies behind a column
                store(column + k * kLanes, load(column + k * kLanes) - v[k] * dots[j] - y[k] * scalars[j]);
        }
    }

    static void keep(double* reflection, const Lanes (&v)[kVectors], double factor) {
        VALUES_UNROLL for (int k = 0; k < kVectors; ++k) store(reflection + k * kLanes, v[k]);
        reflection[kWidth] = factor;
    }

    static void begin(double* diagonal, double* reflection) {
        Lanes v[kVectors];
        const double factor = reflect(diagonal + 1, v);
        both_sides(diagonal + kStride, v, factor);
        keep(reflection, v, factor);
    }

    static void step(double* diagonal, double* reflection) {
        double* const below = diagonal + kWidth;  // its first column; the next one is kStride - 1 numbers on
        const double old_factor = reflection[kWidth];
        Lanes image[kVectors] = {}, v[kVectors];
        for (int j = 0; j < kWidth; ++j)
            VALUES_UNROLL for (int k = 0; k < kVectors; ++k) image[k] +=
                load(below + j * (kStride - 1) + k * kLanes) * reflection[j];
        VALUES_UNROLL for (int k = 0; k < kVectors; ++k) {
            image[k] *= old_factor;
            store(below + k * kLanes, load(below + k * kLanes) - image[k] * reflection[0]);
        }
        const double factor = reflect(below, v);
        for (int j = 1; j < kWidth; ++j) {
            double* column = below + j * (kStride - 1);
            Lanes numbers[kVectors], dot = {};
            VALUES_UNROLL for (int k = 0; k < kVectors; ++k) {
                numbers[k] = load(column + k * kLanes) - image[k] * reflection[j];
                dot += numbers[k] * v[k];
            }
            const double share = factor * sum_of(dot);
            VALUES_UNROLL for (int k = 0; k < kVectors; ++k) store(column + k * kLanes, numbers[k] - v[k] * share);
        }
        both_sides(diagonal + kWidth * kStride, v, factor);
        keep(reflection, v, factor);
    }

    static constexpr ChaseLoops loops{kWidth, begin, step};
};

constexpr int kTogether = 4;  // registers of shifts: a division takes longer than four of them need to be issued

void count(const double* diagonal, const double* squares, Index n, const double* shifts, double least,
           std::int64_t* below) {
    Lanes x[kTogether], pivots[kTogether];
    Bits negative[kTogether] = {};
    VALUES_UNROLL for (int k = 0; k < kTogether; ++k) {
        x[k] = load(shifts + k * kLanes);
        pivots[k] = Lanes{} + 1.0;
    }
    for (Index i = 0; i < n; ++i) VALUES_UNROLL for (int k = 0; k < kTogether; ++k) {
            const Lanes pivot = (diagonal[i] - x[k]) - squares[i] / pivots[k];
            const Bits small = (pivot < least) & (pivot > -least);
            pivots[k] = small ? Lanes{} - least : pivot;
            negative[k] += pivots[k] < 0.0;  // all bits set: -1
        }
    for (int k = 0; k < kTogether; ++k)
        for (int lane = 0; lane < kLanes; ++lane) below[k * kLanes + lane] = -negative[k][lane];
}

}  // namespace

extern constexpr ValuesKernel LEVELLED(values){
    {Chase<16>::loops, Chase<32>::loops, Chase<48>::loops, Chase<64>::loops}, kTogether * kLanes, count};
