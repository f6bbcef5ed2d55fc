// The choice of a digest's kernel for this processor.
#include "cpu/features.hpp"
#include "digest/digest.hpp"

std::vector<DigestKernel> digest_kernels() {
    std::vector<DigestKernel> kernels;
#if defined(__x86_64__)
    const CpuFeatures& has = cpu_features();
    if (has.sha) kernels.push_back(digest_sha);
    if (has.avx512) kernels.push_back(digest_avx512);
    if (has.avx2_fma) kernels.push_back(digest_avx2);
#endif
    return kernels;
}
