#include "cpu/features.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__aarch64__)
enum class Level { portable, neon, neon_bf16 };
constexpr const char* level_names[] = {"portable", "neon", "neon_bf16"};
#else
enum class Level { portable, avx2, avx512, avx512_bf16, amx };
constexpr const char* level_names[] = {"portable", "avx2", "avx512", "avx512_bf16", "amx"};
#endif

Level allowed_level() {
    constexpr int count = sizeof(level_names) / sizeof(*level_names);
    const char* value = std::getenv("SPECTRUM_FAST_ISA");
    if (value == nullptr || *value == '\0') return static_cast<Level>(count - 1);
    std::string known;
    for (int i = 0; i < count; ++i) {
        if (std::string(value) == level_names[i]) return static_cast<Level>(i);
        known += (i == 0 ? "" : i == count - 1 ? " or " : ", ") + std::string(level_names[i]);
    }
    throw std::invalid_argument("SPECTRUM_FAST_ISA: expected " + known + ", found '" + value + "'");
}

#if defined(__x86_64__)
unsigned long long read_xcr0() {
    unsigned int low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
}

bool made_by_amd() {
    unsigned int a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0, &a, &b, &c, &d) && b == 0x68747541U && d == 0x69746e65U && c == 0x444d4163U;
}

// Linux hands out the 8 KiB AMX tile state on request only.
bool request_tile_state() {
#if defined(__linux__)
    constexpr long arch_req_xcomp_perm = 0x1023;
    constexpr long xfeature_xtiledata = 18;
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
#else
    return false;
#endif
}
#elif defined(__aarch64__)
bool has_bf16() {
#if defined(__linux__)
    constexpr unsigned long hwcap2_bf16 = 1UL << 14;
    return (getauxval(AT_HWCAP2) & hwcap2_bf16) != 0;
#else
    return false;  // Apple's list of features has not been tried
#endif
}
#endif

CpuFeatures detect() {
    CpuFeatures found;
#if defined(__x86_64__)
    const Level level = allowed_level();
    unsigned int a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
    const bool osxsave = (c >> 27) & 1U, fma = (c >> 12) & 1U, f16c = (c >> 29) & 1U;
    const bool ssse3 = (c >> 9) & 1U, sse41 = (c >> 19) & 1U;
    if (!osxsave) return found;
    const unsigned long long xcr0 = read_xcr0();
    const bool os_avx = (xcr0 & 0x6) == 0x6, os_avx512 = (xcr0 & 0xe6) == 0xe6, os_amx = (xcr0 & 0x60000) == 0x60000;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    const bool avx2 = (b >> 5) & 1U, sha = (b >> 29) & 1U;
    const bool avx512 = ((b >> 16) & 1U) && ((b >> 17) & 1U) && ((b >> 30) & 1U) && ((b >> 31) & 1U);
    const bool amx_tile = (d >> 24) & 1U, amx_bf16 = (d >> 22) & 1U;
    unsigned int a1 = 0, b1 = 0, c1 = 0, d1 = 0;
    __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    const bool avx512_bf16 = (a1 >> 5) & 1U;
    found.avx2_fma = level >= Level::avx2 && os_avx && avx2 && fma && f16c;
    found.sha = level >= Level::avx2 && sha && ssse3 && sse41;
    found.avx512 = level >= Level::avx512 && found.avx2_fma && os_avx512 && avx512;
    found.avx512_bf16 = level >= Level::avx512_bf16 && found.avx512 && avx512_bf16;
    // Naming the level asks for its kernels, whoever made the processor: so the tests reach them.
    found.fast_bf16_dot = found.avx512_bf16 && (made_by_amd() || level == Level::avx512_bf16);
    found.amx_bf16 = level >= Level::amx && found.avx512_bf16 && os_amx && amx_tile && amx_bf16 && request_tile_state();
#elif defined(__aarch64__)
    const Level level = allowed_level();
    found.neon = level >= Level::neon;
    found.neon_bf16 = level >= Level::neon_bf16 && has_bf16();
#else
    allowed_level();
#endif
    return found;
}

}  // namespace

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = detect();
    return features;
}
