# The Python module: a border (bind.cpp) for each room, and the kernels.
nanobind_add_module(_native NB_STATIC STABLE_ABI NOMINSIZE
    kernels/module.cpp
    kernels/cpu/bind.cpp
    kernels/extent/bind.cpp
    kernels/gram/bind.cpp
    kernels/band/bind.cpp
    kernels/sturm/bind.cpp
    kernels/decode/bind.cpp
    kernels/digest/bind.cpp
    kernels/product/bind.cpp
    kernels/values/bind.cpp
)
target_include_directories(_native PRIVATE kernels)
target_link_libraries(_native PRIVATE OpenMP::OpenMP_CXX)
include(kernels/levels.cmake)
