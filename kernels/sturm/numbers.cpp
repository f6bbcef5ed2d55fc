// Sweeps in float32 and float64, for any level.
#include "cpu/level.hpp"
#include "sturm/sweep.hpp"

namespace {

// Rows of a register tile: 4 sums a row for real shifts, 8 for complex ones, of 32 registers or of 16.
constexpr int real_rows = KERNEL_VECTOR_BYTES == 64 ? 4 : 2, complex_rows = real_rows / 2;

template <class T>
T measure(const T* band, std::ptrdiff_t n, std::ptrdiff_t width, std::ptrdiff_t half_width, T* sizes) {
    using Bits = typename Simd<T>::Bits;
    constexpr Bits without_sign = ~(Bits{1} << (8 * sizeof(T) - 1));
    Bits largest = 0;
    for (std::ptrdiff_t j = 0; j < n; ++j) {
        const std::ptrdiff_t count = half_width < n - 1 - j ? half_width + 1 : n - j;
        Bits of_column = 0;  // numbers without a sign have the order of their bits, infinity and NaN last
        for (std::ptrdiff_t d = 0; d < count; ++d) {
            Bits bits;
            __builtin_memcpy(&bits, band + j * width + d, sizeof bits);
            bits &= without_sign;
            of_column = bits > of_column ? bits : of_column;
        }
        __builtin_memcpy(sizes + j, &of_column, sizeof of_column);
        largest = of_column > largest ? of_column : largest;
    }
    T found;
    __builtin_memcpy(&found, &largest, sizeof found);
    return found;
}

template <class T>
void real_product(const SturmBand<T>& band, const T* shifts, SturmRealProduct* products, void* workspace) {
    constexpr int width = Simd<double>::lanes;
    RealPivots<T> pivots{load(shifts), {}, {}, {}};
    for (Doubles& product : pivots.product) product = broadcast(1.0);
    Sweep<RealPivots<T>, real_rows>(band, pivots, workspace).run();
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) {
        const int part = lane / width, at = lane % width;
        const double product = pivots.product[part][at];
        products[lane] = {product < 0 ? -product : product, pivots.exponent[part][at], pivots.below[lane]};
    }
}

template <class T>
void complex_product(const SturmBand<T>& band, const T* re, const T* im, SturmComplexProduct* products,
                     void* workspace) {
    constexpr int width = Simd<double>::lanes;
    ComplexPivots<T> pivots{load(re), load(im), {}, {}, {}, {}};
    for (Doubles& product : pivots.re) product = broadcast(1.0);
    Sweep<ComplexPivots<T>, complex_rows>(band, pivots, workspace).run();
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) {
        const int part = lane / width, at = lane % width;
        products[lane] = {pivots.re[part][at], pivots.im[part][at], pivots.exponent[part][at], pivots.turns[part][at]};
    }
}

template <class T>
constexpr SturmKernels<T> kernels{Simd<T>::lanes, measure<T>, real_product<T>, complex_product<T>};

}  // namespace

extern constexpr SturmIsa LEVELLED(sturm){LEVEL_NAME, kernels<float>, kernels<double>};
