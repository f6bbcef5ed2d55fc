# Decoding of quantised codes: inner loops compiled once for each instruction set and chosen at run time (decode.cpp).
# No contraction: results are equal to the bit to those of the torch reference.
target_sources(_native PRIVATE
    kernels/decode.cpp
    kernels/decode_portable.cpp
)
set(DECODE_FLAGS -O3 -ffp-contract=off)
set_source_files_properties(kernels/decode_portable.cpp PROPERTIES COMPILE_OPTIONS "${DECODE_FLAGS}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_sources(_native PRIVATE kernels/decode_avx2.cpp kernels/decode_avx512.cpp)
    set_source_files_properties(kernels/decode_avx2.cpp PROPERTIES COMPILE_OPTIONS "${DECODE_FLAGS};-mavx2;-mfma")
    set_source_files_properties(kernels/decode_avx512.cpp PROPERTIES
        COMPILE_OPTIONS "${DECODE_FLAGS};-mavx2;-mfma;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl")
endif()
