# OpenMP where the compiler has it (AppleClang has none): kernels then share their work among threads, else they run in one.
find_package(OpenMP COMPONENTS CXX)
if(NOT TARGET OpenMP::OpenMP_CXX)
    message(WARNING "no OpenMP for ${CMAKE_CXX_COMPILER_ID}: the kernels will use one thread")
    add_library(OpenMP::OpenMP_CXX INTERFACE IMPORTED)
endif()
