# The one table of instruction sets. A kernel is one text (numbers.cpp or pairs.cpp of its room), compiled once for each
# level that it has; what a file knows of its level is in cpu/level.hpp. Code of a level is entered only after
# cpu/features.cpp has seen that set at run time.
set(level_flags_portable)
set(level_flags_amx_model)
set(level_flags_avx2 -mavx2 -mfma -mf16c)
set(level_flags_avx512 ${level_flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
set(level_flags_avx512_bf16 ${level_flags_avx512} -mavx512bf16)
set(level_flags_amx ${level_flags_avx512_bf16} -mamx-tile -mamx-bf16)
set(level_flags_sha -msha -mssse3 -msse4.1)
set(level_flags_neon)
set(level_flags_neon_bf16 -march=armv8.2-a+bf16)
set(x86_levels avx2 avx512 avx512_bf16 amx sha)
set(arm_levels neon neon_bf16)

set(vector_bytes_portable 16) # SSE2 and NEON
set(vector_bytes_sha 16)
set(vector_bytes_neon 16)
set(vector_bytes_neon_bf16 16)
set(vector_bytes_avx2 32)
foreach(level avx512 avx512_bf16 amx amx_model) # the model has the blocks of the processor's
    set(vector_bytes_${level} 64)
endforeach()

# add_kernel(gram/numbers.cpp CONTRACTION LEVELS...): objects of one text for each level, added to the target _native.
# CONTRACTION is fast where a product and a sum may become one fused operation (-std=c++20 switches that off in GCC; it is
# no fast-math) and off where results equal the torch reference to the bit.
function(add_kernel source contraction)
    foreach(level ${ARGN})
        if((level IN_LIST x86_levels AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64") OR
           (level IN_LIST arm_levels AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64"))
            continue()
        endif()
        string(MAKE_C_IDENTIFIER "${source}_${level}" objects)
        add_library(${objects} OBJECT kernels/${source})
        target_include_directories(${objects} PRIVATE kernels)
        target_link_libraries(${objects} PRIVATE OpenMP::OpenMP_CXX)
        target_compile_options(${objects} PRIVATE -O3 -ffp-contract=${contraction} -Wno-psabi
            ${level_flags_${level}} ${KERNEL_FLAGS})
        target_compile_definitions(${objects} PRIVATE KERNEL_LEVEL=${level} KERNEL_IS_${level}=1
            KERNEL_VECTOR_BYTES=${vector_bytes_${level}})
        set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
        target_sources(_native PRIVATE $<TARGET_OBJECTS:${objects}>)
    endforeach()
endfunction()

set(general_levels portable avx2 avx512) # portable code is NEON code on ARM; products gain from all of its registers
set(pair_levels avx512_bf16 amx amx_model)
add_kernel(extent/numbers.cpp fast ${general_levels})
add_kernel(gram/numbers.cpp fast ${general_levels} neon)
add_kernel(gram/pairs.cpp fast ${pair_levels} neon_bf16)
add_kernel(band/numbers.cpp fast ${general_levels} neon)
add_kernel(band/pairs.cpp fast ${pair_levels})
add_kernel(sturm/numbers.cpp fast ${general_levels})
add_kernel(product/numbers.cpp fast ${general_levels})
add_kernel(values/numbers.cpp fast ${general_levels})
add_kernel(values/inverse_numbers.cpp fast ${general_levels})
add_kernel(decode/numbers.cpp off ${general_levels})
add_kernel(digest/sha.cpp off sha)
add_kernel(digest/lanes.cpp off avx2 avx512)
target_sources(_native PRIVATE
    kernels/cpu/features.cpp
    kernels/cpu/pool.cpp
    kernels/cpu/team.cpp
    kernels/extent/extent.cpp
    kernels/gram/select.cpp
    kernels/band/select.cpp
    kernels/sturm/slice.cpp
    kernels/sturm/narrow.cpp
    kernels/decode/decode.cpp
    kernels/digest/select.cpp
    kernels/product/product.cpp
    kernels/product/turn_back.cpp
    kernels/values/values.cpp
    kernels/values/inverse.cpp
)
