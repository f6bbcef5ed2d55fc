# The kernel sources and the instruction set each is compiled for. A file compiled for a newer set is entered only
# after kernels/cpu.cpp has seen that set at run time.
nanobind_add_module(_native NB_STATIC
    kernels/module.cpp
    kernels/cpu.cpp
    kernels/cpu_bind.cpp
    kernels/decode_bind.cpp
    kernels/extent_bind.cpp
    kernels/gram_bind.cpp
    kernels/band_bind.cpp
    kernels/sturm_bind.cpp
)
target_include_directories(_native PRIVATE kernels)
target_link_libraries(_native PRIVATE OpenMP::OpenMP_CXX)
# Symmetric products (Gram, trailing update): sources of the gemm family are listed in kernels/gemm.cmake,
# spectrum slicing in kernels/sturm.cmake, decoding in kernels/decode.cmake.
include(kernels/gemm.cmake)
include(kernels/sturm.cmake)
include(kernels/decode.cmake)
