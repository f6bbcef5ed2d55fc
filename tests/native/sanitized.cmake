# The kernels without Python, under a sanitizer (or "none"): an executable that calls each of them on random operands.
# ThreadSanitizer needs clang with its own OpenMP runtime and Archer (tests/native/sanitize.sh sees to it).
include(kernels/threads.cmake)
add_executable(_native tests/native/drive.cpp)
set_target_properties(_native PROPERTIES OUTPUT_NAME drive)
target_include_directories(_native PRIVATE kernels)
if(NOT SPECTRUM_FAST_SANITIZER STREQUAL "none")
    set(KERNEL_FLAGS -fsanitize=${SPECTRUM_FAST_SANITIZER} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_compile_options(_native PRIVATE ${KERNEL_FLAGS})
    target_link_options(_native PRIVATE -fsanitize=${SPECTRUM_FAST_SANITIZER})
endif()
target_link_libraries(_native PRIVATE OpenMP::OpenMP_CXX)
include(kernels/levels.cmake)
