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
void scale(const T* band, std::ptrdiff_t n, std::ptrdiff_t width, std::ptrdiff_t half_width, T first, T second,
           T* entries, std::ptrdiff_t stride) {
    for (std::ptrdiff_t j = 0; j < n; ++j) {
        const std::ptrdiff_t count = half_width < n - 1 - j ? half_width + 1 : n - j;
        for (std::ptrdiff_t d = 0; d < count; ++d) entries[j * stride + d] = band[j * width + d] * first * second;
        for (std::ptrdiff_t d = count; d < stride; ++d) entries[j * stride + d] = 0;
    }
}

// products[lane] <- magnitude of the product of a sweep
template <class T>
void store(const Product<T>& found, SturmProduct* products) {
    constexpr int width = Simd<double>::lanes;
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) {
        const double mantissa = found.mantissa[lane / width][lane % width];
        products[lane] = {mantissa < 0 ? -mantissa : mantissa, found.exponent[lane / width][lane % width], 0};
    }
}

template <class T>
void real_product(const SturmBand<T>& band, const T* shifts, SturmProduct* products, void* workspace) {
    RealPivots<T> pivots{load(shifts), {}, {}};
    Sweep<RealPivots<T>, real_rows>(band, pivots, workspace).run();
    store(pivots.product, products);
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) products[lane].below = pivots.below[lane];
}

template <class T>
void complex_product(const SturmBand<T>& band, const T* re, const T* im, SturmProduct* products, void* workspace) {
    ComplexPivots<T> pivots{load(re), load(im), {}};
    Sweep<ComplexPivots<T>, complex_rows>(band, pivots, workspace).run();
    store(pivots.product, products);
}

template <class T>
constexpr SturmKernels<T> kernels{Simd<T>::lanes, measure<T>, scale<T>, real_product<T>, complex_product<T>};

}  // namespace

extern constexpr SturmIsa LEVELLED(sturm){LEVEL_NAME, kernels<float>, kernels<double>};
