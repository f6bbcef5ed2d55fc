# Spectrum slicing: one sweep (sturm_sweep.hpp), compiled once for each instruction set and chosen at run time
# (sturm.cpp). Vector types are the compiler's own (GCC and Clang), so every other processor gets the portable form.
target_sources(_native PRIVATE
    kernels/sturm.cpp
    kernels/sturm_portable.cpp
)
set(STURM_FLAGS -O3 -ffp-contract=fast -Wno-psabi)
set_source_files_properties(kernels/sturm_portable.cpp PROPERTIES COMPILE_OPTIONS "${STURM_FLAGS}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_sources(_native PRIVATE kernels/sturm_avx2.cpp kernels/sturm_avx512.cpp)
    set_source_files_properties(kernels/sturm_avx2.cpp PROPERTIES
        COMPILE_OPTIONS "${STURM_FLAGS};-mavx2;-mfma")
    set_source_files_properties(kernels/sturm_avx512.cpp PROPERTIES
        COMPILE_OPTIONS "${STURM_FLAGS};-mavx2;-mfma;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mprefer-vector-width=512")
endif()
