// The compiled forms of the symmetric product, one set per instruction set, and the choice between them.
#pragma once

#include "gram/view.hpp"

// out (view.rows x view.rows, row-major, contiguous) <- view view^T, or += if `add`; both halves written, and of an
// `out` that is added to only the lower half is read.
struct GramKernel {
    const char* name;  // "amx-bf16", "avx512-bf16", "avx512", "avx2", "neon-bf16", "neon" or "portable"
    void (*to_float32)(const MatrixView& view, float* out, bool add);
    void (*to_float64)(const MatrixView& view, double* out, bool add);
    // As to_float32, but not rounded at the end.
    void (*float32_to_float64)(const MatrixView& view, double* out, bool add);
    // gram (v.rows x v.rows, symmetric) <- gram + v z^T + z v^T in float64, rounded to float32: floats, one after the
    // other, from where gram begins.
    void (*update)(double* gram, const MatrixView& v, const MatrixView& z);
};

extern const GramKernel gram_portable;
extern const GramKernel gram_avx2;
extern const GramKernel gram_avx512;
extern const GramKernel gram_neon;

// The same of bfloat16 views only, whose products are exact in float32.
struct PairGram {
    void (*to_float32)(const MatrixView& view, float* out, bool add);
    void (*float32_to_float64)(const MatrixView& view, double* out, bool add);
};

extern const PairGram gram_pairs_avx512_bf16;
extern const PairGram gram_pairs_amx;
extern const PairGram gram_pairs_amx_model;  // AMX on a software model of the tiles
extern const PairGram gram_pairs_neon_bf16;

// What serves this element type on this processor (cpu_features(), and for AMX and BFMMLA a self-check on first use).
const GramKernel& choose_gram_kernel(Element element);

// Whether the AMX kernel may be used: the processor has it and a small product agreed with the portable kernel.
bool amx_is_sound();
