// The instruction set that a file is compiled for. CMake (kernels/levels.cmake) compiles one text once a level and says
// which: KERNEL_LEVEL (portable, avx2, avx512, avx512_bf16, amx, sha, neon, neon_bf16; amx_model is portable code),
// KERNEL_IS_<level>, and KERNEL_VECTOR_BYTES, the width of a register.
//
// Such a file has one symbol that others see, named LEVELLED(name). Everything else has internal linkage, and no inline
// function of the standard library is instantiated in it: a copy compiled for AVX-512 must never serve portable code.
#pragma once

#define KERNEL_PASTE_NOW(name, level) name##_##level
#define KERNEL_PASTE(name, level) KERNEL_PASTE_NOW(name, level)
#define KERNEL_TEXT_NOW(level) #level
#define KERNEL_TEXT(level) KERNEL_TEXT_NOW(level)

#define LEVELLED(name) KERNEL_PASTE(name, KERNEL_LEVEL)
#define LEVEL_NAME KERNEL_TEXT(KERNEL_LEVEL)

// Rows of a product's block of sums, two registers each. Half of the registers hold sums: 16 of 32 (AVX-512, NEON), 8
// of
// 16. NEON's float64 has strips of four numbers, which hold no more rows.
#if KERNEL_VECTOR_BYTES == 64 || defined(KERNEL_IS_neon)
#define BLOCK_ROWS(T) (KERNEL_VECTOR_BYTES / sizeof(T) >= 4 ? 8 : 4)
#else
#define BLOCK_ROWS(T) 4
#endif
