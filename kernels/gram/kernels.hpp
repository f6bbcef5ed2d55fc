// The compiled forms of the symmetric product, one set per instruction set, and the choice between them.
#pragma once

#include "gemm_view.hpp"

// out (view.rows x view.rows, row-major, contiguous) <- view view^T, or += if `add`; both halves written, and of an
// `out` that is added to only the lower half is read.
void gram_float32_portable(const MatrixView& view, float* out, bool add);
void gram_float64_portable(const MatrixView& view, double* out, bool add);
void gram_float32_avx2(const MatrixView& view, float* out, bool add);
void gram_float64_avx2(const MatrixView& view, double* out, bool add);
void gram_float32_avx512(const MatrixView& view, float* out, bool add);
void gram_float64_avx512(const MatrixView& view, double* out, bool add);

// bfloat16 views only: products of two bfloat16 are exact in float32, sums are float32.
void gram_bfloat16_avx512(const MatrixView& view, float* out, bool add);
void gram_bfloat16_amx(const MatrixView& view, float* out, bool add);
void gram_bfloat16_amx_model(const MatrixView& view, float* out,
                             bool add);  // the AMX kernel on a software model of the tiles

struct GramKernel {
    const char* name;  // "amx-bf16", "avx512-bf16", "avx512", "avx2" or "portable"
    void (*to_float32)(const MatrixView& view, float* out, bool add);
    void (*to_float64)(const MatrixView& view, double* out, bool add);
};

// What serves this element type on this processor (cpu_features(), and for AMX a self-check on first use).
const GramKernel& choose_gram_kernel(Element element);

// Whether the AMX kernel may be used: the processor has it and a small product agreed with the portable kernel.
bool amx_is_sound();
