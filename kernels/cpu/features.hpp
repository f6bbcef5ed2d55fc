// What the processor offers, asked once at run time (CPUID, XGETBV, and arch_prctl for the AMX tile state; on ARM the
// system's list of features).
#pragma once

struct CpuFeatures {
    bool avx2_fma = false;     // AVX2 + FMA + F16C
    bool avx512 = false;       // F, BW, DQ, VL
    bool avx512_bf16 = false;  // vdpbf16ps
    bool amx_bf16 = false;     // tdpbf16ps, and the kernel granted the tile state
    // Whether vdpbf16ps beats float32 multiply-adds on widened numbers. On AMD it does (Zen 5,
    // 4096 x 14336, 2 threads: 0.33 against 0.63 s); Intel issues it at about half their rate (Sapphire Rapids,
    // 2048 x 8192, 1 thread: 0.44 against 0.25 s).
    bool fast_bf16_dot = false;
    bool sha = false;        // SHA-256
    bool neon = false;       // every aarch64: 32 registers of 16 bytes
    bool neon_bf16 = false;  // bfmmla: four products a float32 sum
};

// Detected features, less those that the environment variable SPECTRUM_FAST_ISA forbids: it names the highest level
// allowed (portable | avx2 | avx512 | avx512_bf16 | amx, on ARM portable | neon | neon_bf16).
const CpuFeatures& cpu_features();

// The best of a kernel's three general forms for this processor: name_avx512, name_avx2 or name_portable.
#if defined(__x86_64__)
#define BEST_OF(name) (cpu_features().avx512 ? name##_avx512 : cpu_features().avx2_fma ? name##_avx2 : name##_portable)
#else
#define BEST_OF(name) name##_portable
#endif
