// Factorisations of small float64 matrices (at most as wide as the band), row-major with `n` columns, one thread.
#pragma once

#include "gemm_view.hpp"

namespace {

// Upper triangle of c <- R with R^T R = c (its upper triangle); the lower one is zeroed. False if a pivot lost all but
// `tolerance` of its diagonal entry: the columns behind c are then numerically dependent.
inline bool factor_cholesky(Index n, double* c, double tolerance, double* diagonal) {
    for (Index k = 0; k < n; ++k) diagonal[k] = c[k * n + k];
    for (Index k = 0; k < n; ++k) {
        double* row = c + k * n;
        if (!(row[k] > tolerance * diagonal[k])) return false;
        const double root = __builtin_sqrt(row[k]), inverse = 1.0 / root;
        row[k] = root;
        for (Index j = k + 1; j < n; ++j) row[j] *= inverse;
        for (Index i = k + 1; i < n; ++i) {
            const double x = row[i];
            double* target = c + i * n;
            for (Index j = i; j < n; ++j) target[j] -= x * row[j];
        }
        for (Index j = 0; j < k; ++j) row[j] = 0;
    }
    return true;
}

// x <- x R^-1 for one row x of length n and R upper triangular.
inline void solve_row(Index n, const double* upper, double* x) {
    for (Index i = 0; i < n; ++i) {
        x[i] /= upper[i * n + i];
        for (Index j = i + 1; j < n; ++j) x[j] -= x[i] * upper[i * n + j];
    }
}

// product <- left right, both upper triangular.
inline void multiply_upper(Index n, const double* left, const double* right, double* product) {
    for (Index i = 0; i < n; ++i) {
        double* to = product + i * n;
        for (Index j = 0; j < n; ++j) to[j] = 0;
        for (Index k = i; k < n; ++k) {
            const double x = left[i * n + k];
            for (Index j = k; j < n; ++j) to[j] += x * right[k * n + j];
        }
    }
}

// LU of q - S without pivoting, S = diag(signs) chosen on the way as minus the sign of each pivot, so that no pivot is
// smaller than 1 in size (Householder reconstruction). L (unit) and U replace q.
inline void factor_shifted_lu(Index n, double* q, double* signs) {
    for (Index k = 0; k < n; ++k) {
        double* row = q + k * n;
        signs[k] = row[k] >= 0 ? -1.0 : 1.0;
        row[k] -= signs[k];
        const double inverse = 1.0 / row[k];
        for (Index i = k + 1; i < n; ++i) {
            double* target = q + i * n;
            const double x = target[k] * inverse;
            target[k] = x;
            for (Index j = k + 1; j < n; ++j) target[j] -= x * row[j];
        }
    }
}

}  // namespace
