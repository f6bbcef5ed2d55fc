# Sources of the products (gemm_*) and of the band reduction (band_*), and the instruction set each file is compiled for.
# Contraction to fused multiply-add is switched on by hand: -std=c++20 switches it off in GCC, and it is no fast-math.
target_sources(_native PRIVATE
    kernels/gemm_memory.cpp
    kernels/gemm_select.cpp
    kernels/gemm_portable.cpp
    kernels/gemm_amx_model.cpp
    kernels/band_select.cpp
    kernels/band_portable.cpp
    kernels/band_amx_model.cpp
)
set(portable_sources kernels/gemm_portable.cpp kernels/gemm_amx_model.cpp
    kernels/band_portable.cpp kernels/band_amx_model.cpp)
set_source_files_properties(${portable_sources} PROPERTIES COMPILE_OPTIONS "-O3;-ffp-contract=fast")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    set(avx2_sources kernels/gemm_avx2.cpp kernels/band_avx2.cpp)
    set(avx512_sources kernels/gemm_avx512.cpp kernels/band_avx512.cpp)
    set(avx512_bf16_sources kernels/gemm_avx512_bf16.cpp kernels/band_avx512_bf16.cpp)
    set(amx_sources kernels/gemm_amx.cpp kernels/band_amx.cpp)
    target_sources(_native PRIVATE ${avx2_sources} ${avx512_sources} ${avx512_bf16_sources} ${amx_sources})

    set(avx2_flags -O3 -ffp-contract=fast -mavx2 -mfma -mf16c)
    set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
    set(avx512_bf16_flags ${avx512_flags} -mavx512bf16)
    set(amx_flags ${avx512_bf16_flags} -mamx-tile -mamx-bf16)
    foreach(level avx2 avx512 avx512_bf16 amx)
        set_source_files_properties(${${level}_sources} PROPERTIES COMPILE_OPTIONS "${${level}_flags}")
    endforeach()
endif()
