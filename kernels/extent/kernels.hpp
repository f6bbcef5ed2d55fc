// The border between the driver (extent.cpp, baseline code) and the loops compiled once a level (numbers.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

// Each adds the squares of n numbers to `sum`, in float64 and in a fixed order, and raises `top` to the largest bit
// pattern of an absolute value (float16 and bfloat16: see the driver). NaN and infinity are the largest patterns, while
// a floating-point maximum may drop a NaN.
struct ExtentKernel {
    void (*float64)(const double* x, std::ptrdiff_t n, std::uint64_t& top, double& sum);
    void (*float32)(const float* x, std::ptrdiff_t n, std::uint32_t& top, double& sum);
    void (*float16)(const std::uint16_t* x, std::ptrdiff_t n, std::uint32_t& top, double& sum);
    void (*bfloat16)(const std::uint16_t* x, std::ptrdiff_t n, std::uint32_t& top, double& sum);
};

extern const ExtentKernel extent_portable;
extern const ExtentKernel extent_avx2;
extern const ExtentKernel extent_avx512;
