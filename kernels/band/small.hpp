// Factorisations of small float64 matrices (at most as wide as the band), row-major with `n` columns, one thread.
//
// `n` is a multiple of 8, and triangular matrices hold zeros in their other half: rows are worked on in whole vectors
// of 8, from the last multiple of 8 before the first column that matters.
#pragma once

#include "cpu/level.hpp"
#include "gram/view.hpp"

namespace {

constexpr Index kRowStep = 8;

// target[j] += x * row[j] for j >= begin (rounded down).
inline void add_row(Index n, Index begin, double x, const double* row, double* target) {
    for (Index j = begin / kRowStep * kRowStep; j < n; j += kRowStep)
        for (Index lane = 0; lane < kRowStep; ++lane) target[j + lane] += x * row[j + lane];
}

// c (both halves given) <- R upper triangular with R^T R = c. False if a pivot lost all but `tolerance` of its diagonal
// entry: the columns behind c are then numerically dependent.
inline bool factor_cholesky(Index n, double* c, double tolerance, double* diagonal) {
    for (Index k = 0; k < n; ++k) diagonal[k] = c[k * n + k];
    for (Index k = 0; k < n; ++k) {
        double* row = c + k * n;
        if (!(row[k] > tolerance * diagonal[k])) return false;
        const double root = __builtin_sqrt(row[k]), inverse = 1.0 / root;
        for (Index j = 0; j < k; ++j) row[j] = 0;
        row[k] = root;
        for (Index j = k + 1; j < n; ++j) row[j] *= inverse;
        for (Index i = k + 1; i < n; ++i) add_row(n, i, -row[i], row, c + i * n);
    }
    return true;
}

// x <- x R^-1, both upper triangular.
inline void solve_rows(Index n, const double* upper, double* x) {
    for (Index k = 0; k < n; ++k) {
        const double* row = upper + k * n;
        const double inverse = 1.0 / row[k];
        for (Index i = 0; i <= k; ++i) {
            const double value = x[i * n + k] * inverse;
            add_row(n, k, -value, row, x + i * n);
            x[i * n + k] = value;
        }
    }
}

// product <- factor left right, or left^T right, kTransposed; left is n x n, the others have `cols` columns, a multiple
// of kRowStep.
template <bool kTransposed>
void multiply_small(Index n, Index cols, double factor, const double* left, const double* right, double* product) {
    constexpr Index count = 4, lanes = KERNEL_VECTOR_BYTES / static_cast<Index>(sizeof(double)),
                    vectors = kRowStep / lanes;
    typedef double Row __attribute__((vector_size(KERNEL_VECTOR_BYTES), aligned(sizeof(double)), may_alias));
    for (Index i = 0; i < n; i += count) {
        for (Index j = 0; j < cols; j += kRowStep) {
            Row sum[count][vectors] = {};
            for (Index k = 0; k < n; ++k) {
                const Row* row = reinterpret_cast<const Row*>(right + k * cols + j);
#pragma GCC unroll 4
                for (Index p = 0; p < count; ++p) {
                    const Row x = left[kTransposed ? k * n + i + p : (i + p) * n + k] - Row{};
#pragma GCC unroll 4
                    for (Index v = 0; v < vectors; ++v) sum[p][v] += x * row[v];
                }
            }
#pragma GCC unroll 4
            for (Index p = 0; p < count; ++p) {
                Row* to = reinterpret_cast<Row*>(product + (i + p) * cols + j);
#pragma GCC unroll 4
                for (Index v = 0; v < vectors; ++v) to[v] = factor * sum[p][v];
            }
        }
    }
}

// LU of q - S without pivoting, S = diag(signs) chosen on the way as minus the sign of each pivot, so that no pivot is
// smaller than 1 in size (Householder reconstruction). q <- U, l_transposed <- L^T (unit diagonal).
inline void factor_shifted_lu(Index n, double* q, double* l_transposed, double* signs) {
    for (Index k = 0; k < n; ++k) {
        double *row = q + k * n, *column = l_transposed + k * n;
        signs[k] = row[k] >= 0 ? -1.0 : 1.0;
        row[k] -= signs[k];
        const double inverse = 1.0 / row[k];
        for (Index i = 0; i < k; ++i) column[i] = 0;
        column[k] = 1;
        for (Index i = k + 1; i < n; ++i) {
            double* target = q + i * n;
            column[i] = target[k] * inverse;
            add_row(n, k, -column[i], row, target);
            target[k] = 0;
        }
    }
}

}  // namespace
