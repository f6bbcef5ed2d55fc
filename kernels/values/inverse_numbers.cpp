// B - x I = L D L^T without pivots, a shift x in each lane, and solutions with it, for any level.
#include "cpu/level.hpp"
#include "values/inverse_kernels.hpp"

namespace {

constexpr Index kLanes = KERNEL_VECTOR_BYTES / 8;

typedef double Lanes __attribute__((vector_size(KERNEL_VECTOR_BYTES)));

inline Lanes magnitude(const Lanes& a) { return a < 0 ? -a : a; }

// Row j of `factor` <- 1 / D[j] and L[j + d, j] for 0 < d < width; rows from n on take what lies past the end.
// A pivot is no smaller than 2^-39 of its shift, as for counts: what it is moved by is less than what is known of that.
void factorise(const double* band, Index n, Index width, const Lanes& shift, Lanes* factor) {
    for (Index j = 0; j < n + width - 1; ++j)
        for (Index d = 0; d < width; ++d) factor[j * width + d] = Lanes{} + (j + d < n ? band[j * width + d] : 0.0);
    const Lanes least = magnitude(shift) * 0x1p-39 + 0x1p-1000;
    for (Index j = 0; j < n; ++j) {
        Lanes* const column = factor + j * width;
        const Lanes pivot = column[0] - shift;
        const Lanes inverse = 1.0 / (magnitude(pivot) >= least ? pivot : (pivot > 0 ? least : -least));
        for (Index k = 1; k < width; ++k) {
            const Lanes multiple = column[k] * inverse;
            Lanes* const to = column + k * width - k;
            for (Index i = k; i < width; ++i) to[i] -= column[i] * multiple;
        }
        column[0] = inverse;
        for (Index k = 1; k < width; ++k) column[k] *= inverse;
    }
}

void solve(const Lanes* factor, Index n, Index width, Lanes* x) {
    for (Index j = 0; j < n; ++j) {
        const Lanes* const column = factor + j * width;
        const Lanes value = x[j];
        for (Index d = 1; d < width; ++d) x[j + d] -= column[d] * value;
    }
    for (Index j = n - 1; j >= 0; --j) {
        const Lanes* const column = factor + j * width;
        Lanes sums[4] = {x[j] * column[0]};
        for (Index d = 1; d < width; ++d) sums[d % 4] -= column[d] * x[j + d];
        x[j] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

void normalise(Index n, Lanes* x) {
    Lanes largest = {}, squares = {};
    for (Index j = 0; j < n; ++j) {
        const Lanes size = magnitude(x[j]);
        largest = size > largest ? size : largest;
    }
    largest = largest > 0 ? largest : 1.0 + Lanes{};
    for (Index j = 0; j < n; ++j) {
        const Lanes scaled = x[j] / largest;
        squares += scaled * scaled;
    }
    Lanes length;
    for (Index lane = 0; lane < kLanes; ++lane) length[lane] = largest[lane] * __builtin_sqrt(squares[lane]);
    for (Index j = 0; j < n; ++j) x[j] /= length;
}

void iterate(const double* band, Index n, Index width, const double* shifts, int steps, double* factor, double* x) {
    Lanes shift;
    for (Index lane = 0; lane < kLanes; ++lane) shift[lane] = shifts[lane];
    auto* const of = reinterpret_cast<Lanes*>(factor);
    auto* const vectors = reinterpret_cast<Lanes*>(x);
    factorise(band, n, width, shift, of);
    for (int step = 0; step < steps; ++step) {
        solve(of, n, width, vectors);
        normalise(n, vectors);
    }
}

}  // namespace

extern constexpr InverseKernel LEVELLED(inverse){kLanes, iterate};
