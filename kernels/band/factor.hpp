// The panel factorisation P = Q [R; 0] in float64, with Q = I - V T V^T kept as V (a panel) and T (upper triangular).
//
// Fast way: CholeskyQR2 and Householder reconstruction (Ballard et al. 2014), all of it products of tall panels with
// small matrices; one pass of CholeskyQR where the condition of P says that it is orthonormal enough for the numbers
// that are reduced. Where P is numerically rank-deficient (cond above about 1e7, columns equilibrated, found after the
// fact by how far the first pass is from orthonormal) it is redone by plain Householder reflections, column by column.
#pragma once

#include "band/panel.hpp"
#include "band/small.hpp"
#include "cpu/scratch.hpp"
#include "cpu/team.hpp"

namespace {

// What the threads that factor a panel together share, and room for what each of them keeps for itself: for panels of
// up to `rows` rows and exactly `width` columns.
template <int kVectorBytes>
struct PanelMemory {
    PanelMemory(Index rows, Index width, Index threads)
        : cols((width + kRowStep - 1) / kRowStep * kRowStep),
          v(rows, cols),
          top(cols * cols),
          sums(threads * 2 * cols * cols),
          own(threads * kOwn * cols * cols) {
        for (Index i = 0; i < cols * cols; ++i) top[i] = 0;
    }

    static constexpr Index kOwn = 9;  // small matrices of each thread

    Index cols;
    Panel<kVectorBytes> v;
    Scratch<double> top, sums, own;
};

// One thread's part in it: all of them call factor, and for_chunks, side by side. Each computes the small matrices for
// itself, to the same bits.
template <int kVectorBytes>
class PanelFactor {
  public:
    using Tall = Panel<kVectorBytes>;
    using Memory = PanelMemory<kVectorBytes>;
    static constexpr Index kBlock = Tall::kBlock;

    // Q is orthogonal to 2e-16 times the square of `once_below`, the condition below which columns are made orthonormal
    // once (0: always twice).
    PanelFactor(const Memory& memory, const Team& team, Index width, double once_below)
        : team_(team),
          width_(width),
          once_below_(once_below),
          cols_(memory.cols),
          v_(memory.v),
          top_(memory.top.data()),
          sums_(memory.sums.data()),
          t_(memory.own.data() + team.index * Memory::kOwn * cols_ * cols_),
          r_(t_ + cols_ * cols_),
          small_(r_ + cols_ * cols_) {}

    const Tall& v() const { return v_; }    // rows above the panel's first are zeros
    const double* t() const { return t_; }  // cols x cols
    // Of the first thread.
    double r(Index i, Index j) const { return r_[i * cols_ + j]; }
    Index cols() const { return cols_; }

    // Factors the panel that gather(block index, double* block) delivers: `blocks` blocks of rows of which the first
    // `lead` rows are zeros and do not count, then `rows` rows of P (rows past the end are zeros). As soon as blocks of
    // V are known, a thread has finish(first block, last block, this thread's zeroed sums) for them, as in for_chunks.
    // Returns false if P is zero: then there is nothing to do, Q = I and R = 0.
    template <class Gather, class Finish>
    bool factor(Index blocks, Index lead, Index rows, const Gather& gather, const Finish& finish) {
        for (Index i = 0; i < cols_ * cols_; ++i) r_[i] = t_[i] = 0;
        double* squares = small_;
        square(blocks, lead, [&](Index i) { gather(i, v_.block(i)); }, squares);
        double scale = 1;
        if (!are_moderate(squares)) {
            // Squares must neither overflow nor vanish: scale by a power of two, which is exact. Dependent columns may
            // leave the least numbers there are, whose reciprocals overflow.
            const double largest = find_largest(blocks);
            if (largest == 0) return false;
            int exponent = 0;
            (void)__builtin_frexp(largest, &exponent);
            scale = __builtin_ldexp(1.0, exponent < -1000 ? 1000 : -exponent);
            team_.wait();
            square(blocks, lead, [&](Index i) { multiply_block(i, scale); }, squares);
        }
        if (rows < width_ || !factor_fast(blocks, lead, finish)) {
            for_chunks(blocks, [&](Index begin, Index end, double*) {
                for (Index i = begin; i < end; ++i) {
                    gather(i, v_.block(i));
                    multiply_block(i, scale);
                }
            });
            factor_slow(blocks, lead, rows);
            for_chunks(blocks, finish);
        }
        for (Index i = 0; i < cols_ * cols_ && scale != 1; ++i) r_[i] /= scale;
        return true;
    }

    // Runs work(first block, last block, this thread's zeroed sums) over all blocks, each thread its own part, and
    // waits for the others.
    template <class Work>
    void for_chunks(Index blocks, const Work& work) {
        turn_ = 1 - turn_;  // the others may still read what was summed before
        double* mine = sums_of(team_.index);
        for (Index i = 0; i < cols_ * cols_; ++i) mine[i] = 0;
        for_share(blocks, [&](Index begin, Index end) { work(begin, end, mine); });
        team_.wait();
    }

    // Runs work(first block, last block) over this thread's part.
    template <class Work>
    void for_share(Index blocks, const Work& work) const {
        const Index share = (blocks + team_.count - 1) / team_.count, first = team_.index * share;
        const Index last = first + share < blocks ? first + share : blocks, chunk = chunk_blocks(share);
        for (Index begin = first; begin < last; begin += chunk)
            work(begin, begin + chunk < last ? begin + chunk : last);
    }

    // sums <- the threads' sums of the last for_chunks.
    void add_up(double* sums) const {
        const Index size = cols_ * cols_;
        for (Index i = 0; i < size; ++i) sums[i] = 0;
        for (int t = 0; t < team_.count; ++t)
            for (Index i = 0; i < size; ++i) sums[i] += sums_of(t)[i];
    }

    // The same, lower half mirrored: for products that are symmetric.
    void reduce(double* sums) const {
        add_up(sums);
        for (Index i = 0; i < cols_; ++i)
            for (Index j = 0; j < i; ++j) sums[j * cols_ + i] = sums[i * cols_ + j];
    }

  private:
    double* sums_of(Index thread) const { return sums_ + (2 * thread + turn_) * cols_ * cols_; }

    // At most 256 rows, which stay in L2 between two uses (64 KiB at 32 columns), as many in every chunk of a share.
    static Index chunk_blocks(Index share) {
        const Index most = 256 / kBlock, chunks = (share + most - 1) / most;
        return (share + chunks - 1) / chunks;
    }

    // sums <- P^T P of the blocks that prepare(block index) leaves; the first rows of P are kept, too.
    template <class Prepare>
    void square(Index blocks, Index lead, const Prepare& prepare, double* sums) {
        for_chunks(blocks, [&](Index begin, Index end, double* partial) {
            for (Index i = begin; i < end; ++i) prepare(i);
            for (Index i = begin * kBlock - lead; i < width_ && i < end * kBlock - lead; ++i)
                for (Index j = 0; j < cols_ && i >= 0; ++j) top_[i * cols_ + j] = v_.at(lead + i, j);
            Tall::add_inner_products(v_, v_, begin, end, partial);
        });
        reduce(sums);
    }

    // Whether the squared lengths of columns are neither so large nor so small that numbers must be scaled.
    bool are_moderate(const double* squares) const {
        double largest = 0;
        for (Index i = 0; i < width_; ++i) largest = __builtin_fmax(largest, squares[i * cols_ + i]);
        return largest > 0x1p-600 && largest < 0x1p600;
    }

    double find_largest(Index blocks) const {
        double largest = 0;
        for (Index i = 0; i < blocks * cols_ * kBlock; ++i)
            largest = __builtin_fmax(largest, __builtin_fabs(v_.block(0)[i]));
        return largest;
    }

    void multiply_block(Index index, double scale) const {
        for (Index i = 0; i < cols_ * kBlock; ++i) v_.block(index)[i] *= scale;
    }

    // Padding columns are zeros: a unit diagonal there keeps the small factorisations regular.
    void pad_diagonal(double* c) const {
        for (Index k = width_; k < cols_; ++k) c[k * cols_ + k] = 1;
    }

    // With V^T V of the panel at the beginning of the scratch.
    template <class Finish>
    bool factor_fast(Index blocks, Index lead, const Finish& finish) {
        const Index size = cols_ * cols_;
        double *r1 = small_, *r2 = r1 + size, *inverse = r2 + size, *rest = inverse + size;
        const double* last = orthonormalise(blocks, lead, r1, r2, inverse, rest);
        if (last == nullptr) return false;
        if (last == r1) {
            for (Index i = 0; i < size; ++i) r_[i] = r1[i];
        } else {
            multiply_small<false>(cols_, cols_, 1, r2, r1, r_);
        }
        reconstruct(blocks, lead, last, inverse, rest, finish);
        return true;
    }

    // One Cholesky factorisation, P = Q R1, or two, P <- Q1 with P = Q1 R1 and Q1 = Q R2; Q orthonormal. Returns the
    // last of R1 and R2, by which what is left in P still has to be divided, and gives its inverse; null where the
    // columns are too dependent.
    const double* orthonormalise(Index blocks, Index lead, double* r1, double* r2, double* inverse, double* diagonal) {
        constexpr double dependent = 1e-14;          // a pivot that small against its column is rounding error
        constexpr double nearly_orthonormal = 1e-2;  // then the second pass is orthonormal to working accuracy
        const Index n = cols_;
        pad_diagonal(r1);
        if (!factor_cholesky(n, r1, dependent, diagonal)) return nullptr;
        invert(r1, inverse);
        if (condition(inverse, diagonal) < once_below_) return r1;
        square(blocks, lead, [&](Index i) { v_.solve(i, r1); }, r2);
        pad_diagonal(r2);
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < n; ++j)
                if (!(__builtin_fabs(r2[i * n + j] - (i == j ? 1.0 : 0.0)) <= nearly_orthonormal)) return nullptr;
        if (!factor_cholesky(n, r2, dependent, diagonal)) return nullptr;
        invert(r2, inverse);
        return r2;
    }

    void invert(const double* upper, double* inverse) const {
        for (Index i = 0; i < cols_; ++i)
            for (Index j = 0; j < cols_; ++j) inverse[i * cols_ + j] = i == j;
        solve_rows(cols_, upper, inverse);
    }

    // Of the columns behind R, given its inverse, each scaled to length 1: their condition at least, its root of cols
    // times that at most.
    double condition(const double* inverse, const double* squared_lengths) const {
        const Index n = cols_;
        double sum = 0;
        for (Index i = 0; i < n; ++i)
            for (Index j = i; j < n; ++j) sum += squared_lengths[i] * inverse[i * n + j] * inverse[i * n + j];
        return __builtin_sqrt(static_cast<double>(n) * sum);
    }

    // V, T and (from R without its signs) R, from Q R' in place of P, with 4 cols x cols numbers of scratch.
    template <class Finish>
    void reconstruct(Index blocks, Index lead, const double* last, const double* inverse, double* scratch,
                     const Finish& finish) {
        const Index n = cols_, size = n * n;
        double *u = scratch, *l_transposed = u + size, *ur = l_transposed + size, *signs = ur + size;
        // u <- the top of Q; then U and L^T of u - S.
        multiply_small<false>(n, n, 1, top_, inverse, u);
        factor_shifted_lu(n, u, l_transposed, signs);
        multiply_small<false>(n, n, 1, u, last, ur);

        // T L^T = -U S and R = S times what it was; padding columns play no part.
        for (Index i = 0; i < width_; ++i)
            for (Index j = i; j < width_; ++j) t_[i * n + j] = -u[i * n + j] * signs[j];
        solve_rows(n, l_transposed, t_);
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < n; ++j) r_[i * n + j] *= signs[i];

        for_chunks(blocks, [&](Index begin, Index end, double* partial) {
            for (Index i = begin; i < end; ++i) v_.solve(i, ur);  // V = Q U^-1, and L in its first rows
            for (Index i = begin * kBlock - lead; i < width_ && i < end * kBlock - lead; ++i)
                for (Index j = 0; j < width_ && i >= 0; ++j) v_.at(lead + i, j) = l_transposed[j * n + i];
            finish(begin, end, partial);
        });
    }

    // Householder reflections, column by column, by one thread; also where P has fewer rows than columns.
    void factor_slow(Index blocks, Index lead, Index rows) {
        const Index reflections = rows - 1 < width_ ? rows - 1 : width_;
        double* tau = top_;
        if (team_.index == 0) {
            for (Index j = 0; j < cols_; ++j) tau[j] = 0;
            for (Index j = 0; j < reflections; ++j) tau[j] = reflect_column(blocks, lead, lead + rows, j);
            take_apart(lead, rows, reflections, tau);
        }
        form_t(blocks, tau, small_);
    }

    // The reflection that makes zeros of column j below its diagonal, in their place, applied to the columns after it;
    // returns its tau, zero where there is nothing to reflect. Rows of P end before `end`.
    double reflect_column(Index blocks, Index lead, Index end, Index j) {
        const Index top = lead + j;
        // Dependent columns leave one rounding error of the last after another, down to the smallest numbers there
        // are: each column is scaled for itself, or its squares would vanish and the reflection not be orthogonal.
        double largest = 0;
        for (Index i = top + 1; i < end; ++i) largest = __builtin_fmax(largest, __builtin_fabs(v_.at(i, j)));
        if (largest == 0) return 0;
        largest = __builtin_fmax(largest, __builtin_fabs(v_.at(top, j)));
        for (Index i = top; i < end; ++i) v_.at(i, j) /= largest;
        const double tail = multiply_columns(top + 1, blocks, j, j);
        const double head = v_.at(top, j), root = __builtin_sqrt(head * head + tail), beta = head >= 0 ? -root : root;
        const double tau = (beta - head) / beta, inverse = 1.0 / (head - beta);
        for (Index i = top + 1; i < end; ++i) v_.at(i, j) *= inverse;
        v_.at(top, j) = beta * largest;
        for (Index k = j + 1; k < width_; ++k) {
            const double sum = tau * (v_.at(top, k) + multiply_columns(top + 1, blocks, j, k));
            v_.at(top, k) -= sum;
            subtract_column(top + 1, blocks, sum, j, k);
        }
        return tau;
    }

    // What is stored in place becomes R and V.
    void take_apart(Index lead, Index rows, Index reflections, const double* tau) {
        for (Index j = 0; j < width_; ++j) {
            for (Index i = 0; i < width_ && i < rows; ++i) {
                if (i <= j) r_[i * cols_ + j] = v_.at(lead + i, j);
                if (i <= j || j >= reflections) v_.at(lead + i, j) = i == j && j < reflections ? 1.0 : 0.0;
            }
            if (j < reflections && tau[j] == 0)
                for (Index i = lead + j; i < lead + rows; ++i) v_.at(i, j) = 0;
        }
    }

    // T, forward column by column: T(:j, j) = -tau_j T(:j, :j) (V^T V)(:j, j).
    void form_t(Index blocks, const double* tau, double* inner) {
        const Index n = cols_;
        team_.wait();
        for_chunks(blocks, [&](Index begin, Index end, double* partial) {
            Tall::add_inner_products(v_, v_, begin, end, partial);
        });
        reduce(inner);
        for (Index j = 0; j < width_; ++j) {
            for (Index i = 0; i < j; ++i) {
                double sum = 0;
                for (Index k = i; k < j; ++k) sum += t_[i * n + k] * inner[k * n + j];
                t_[i * n + j] = -tau[j] * sum;
            }
            t_[j * n + j] = tau[j];
        }
    }

    // Sum over rows from `begin` on of column j times column k, in 8 sums side by side (rows past the end are zeros).
    double multiply_columns(Index begin, Index blocks, Index j, Index k) const {
        double sums[8] = {};
        for (Index n = begin / kBlock; n < blocks; ++n) {
            const double *x = v_.block(n) + j * kBlock, *y = v_.block(n) + k * kBlock;
            if (n * kBlock >= begin) {
                for (Index r = 0; r < kBlock; r += 8)
                    for (Index lane = 0; lane < 8; ++lane) sums[lane] += x[r + lane] * y[r + lane];
            } else {
                for (Index r = begin % kBlock; r < kBlock; ++r) sums[r % 8] += x[r] * y[r];
            }
        }
        return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    }

    // Column k -= factor times column j, rows from `begin` on.
    void subtract_column(Index begin, Index blocks, double factor, Index j, Index k) const {
        for (Index n = begin / kBlock; n < blocks; ++n) {
            const double* x = v_.block(n) + j * kBlock;
            double* y = v_.block(n) + k * kBlock;
            for (Index r = n * kBlock >= begin ? 0 : begin % kBlock; r < kBlock; ++r) y[r] -= factor * x[r];
        }
    }

    const Team& team_;
    Index width_;
    double once_below_;
    Index cols_;
    const Tall& v_;
    double *top_, *sums_;      // of all threads
    double *t_, *r_, *small_;  // of this one
    Index turn_ = 0;
};

}  // namespace
