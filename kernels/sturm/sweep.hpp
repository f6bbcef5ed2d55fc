// The unpivoted LDL^T of B - x I for as many shifts x as a vector register has lanes.
//
// Left-looking by panels of C columns, in blocks of C x C entries: row I of blocks reaches `blocks` to the left of the
// diagonal, its first block upper triangular. M = L D is kept as long as it is needed, and block (I, J) of it is
//   M[I, J] = (A[I, J] - sum_K M[I, K] L[J, K]^T) L[J, J]^-T,  K = I - blocks .. J - 1,  L[J, K] = M[J, K] D[K]^-1.
// Of a block R rows at a time are summed up in registers: R + C loads for R C multiply-adds, nothing above a triangle.
//
// Everything here has internal linkage: it is compiled once a level (cpu/level.hpp).
#pragma once

#include "sturm/kernels.hpp"
#include "sturm/pivots.hpp"

namespace {

template <class Pivots, int R>
class Sweep {
    using Entry = typename Pivots::Entry;
    using T = typename Entry::Scalar;
    static constexpr int C = sturm_block, block = C * C;
    static_assert(C % R == 0);

  public:
    Sweep(const SturmBand<T>& band, Pivots& pivots, void* workspace)
        : band_(band),
          pivots_(pivots),
          m_(static_cast<Entry*>(workspace)),
          l_(m_ + band.blocks * band.blocks * block),
          inverses_(l_ + band.blocks * block) {}

    STURM_INLINE void run() {
        const int panels = band_.order / C;
        for (int panel = 0; panel < panels; ++panel) {
            j_ = panel * C;
            before_ = panel < band_.blocks ? panel : band_.blocks;
            eliminate();
            for (int distance = 1; distance < band_.blocks; ++distance) below<false>(distance);
            below<true>(band_.blocks);
            slot_ = after(slot_);
        }
    }

  private:
    STURM_INLINE int after(int slot) const { return slot + 1 == band_.blocks ? 0 : slot + 1; }
    STURM_INLINE Entry* m_block(int slot, int distance) const {
        return m_ + (slot * band_.blocks + distance - 1) * block;
    }
    // Of column c of the panel, d below the diagonal.
    STURM_INLINE T of_band(int c, int d) const {
        return band_.entries[static_cast<std::ptrdiff_t>(j_ + c) * band_.stride + d];
    }

    // Factors the diagonal block, and on the way divides row J of M by the pivots.
    STURM_INLINE void eliminate() {
        Entry top[C][C];
        STURM_UNROLL
        for (int r = 0; r < C; ++r) {
            STURM_UNROLL
            for (int c = 0; c < r; ++c) top[r][c] = pivots_.entry(of_band(c, r - c));
            top[r][r] = pivots_.diagonal(of_band(r, 0), band_.live[j_ + r]);
        }
        int left = before_, slot = before_ == band_.blocks ? slot_ : 0;
        Entry* l = l_;
        if (left == band_.blocks) {
            divide_block<true>(top, m_block(slot, left), inverses_ + slot * C, l);
            --left, l += block, slot = after(slot);
        }
        for (; left > 0; --left, l += block, slot = after(slot))
            divide_block<false>(top, m_block(slot, left), inverses_ + slot * C, l);

        STURM_UNROLL
        for (int c = 0; c < C; ++c) {
            const Entry inverse = pivots_.reciprocal(top[c][c], band_.pivot_floor[j_ + c]);
            inverses_[slot_ * C + c] = inverse;
            STURM_UNROLL
            for (int r = c + 1; r < C; ++r) lower_[r][c] = top[r][c].times(inverse);
            STURM_UNROLL
            for (int r = c + 1; r < C; ++r) {
                STURM_UNROLL
                for (int c2 = c + 1; c2 <= r; ++c2) top[r][c2].subtract_product(top[r][c], lower_[c2][c]);
            }
        }
        pivots_.product.normalise();
    }

    // l[k, c] <- M[c, k] / d[k] of one block of row J, and what the diagonal block loses by it.
    template <bool triangular>
    STURM_INLINE void divide_block(Entry (&top)[C][C], const Entry* m, const Entry* inverses, Entry* l) const {
        STURM_UNROLL
        for (int k = 0; k < C; ++k) {
            STURM_UNROLL
            for (int c = 0; c < (triangular ? k + 1 : C); ++c) {
                const Entry left = m[c * C + k];
                l[k * C + c] = left.times(inverses[k]);
                STURM_UNROLL
                for (int c2 = 0; c2 <= c; ++c2) top[c][c2].subtract_product(left, l[k * C + c2]);
            }
        }
    }

    // Rows of block (J + distance, J) of M, from `row` on; the last block of the column is upper triangular.
    template <bool last, int row = 0>
    STURM_INLINE void below(int distance) {
        Entry sum[R][C];
        STURM_UNROLL
        for (int r = 0; r < R; ++r) {
            STURM_UNROLL
            for (int c = 0; c < C; ++c) {
                const bool outside = last && row + r > c;
                sum[r][c] = outside ? Entry{} : pivots_.entry(of_band(c, distance * C + row + r - c));
            }
        }
        if constexpr (!last) {
            const int reach = band_.blocks - distance;  // blocks that both rows may have to the left
            int left = before_ < reach ? before_ : reach;
            int slot = left > slot_ ? slot_ - left + band_.blocks : slot_ - left;
            const Entry* l = l_ + (before_ - left) * block;
            if (left == reach) {
                subtract_block<true, row>(sum, m_block(slot, distance + left), l);
                --left, l += block, slot = after(slot);
            }
            for (; left > 0; --left, l += block, slot = after(slot))
                subtract_block<false, row>(sum, m_block(slot, distance + left), l);
        }
        Entry* const to = m_block(slot_, distance) + row * C;
        STURM_UNROLL
        for (int r = 0; r < R; ++r) {
            STURM_UNROLL
            for (int c = 0; c < C; ++c) {
                STURM_UNROLL
                for (int c2 = last ? row + r : 0; c2 < c; ++c2) sum[r][c].subtract_product(sum[r][c2], lower_[c][c2]);
                to[r * C + c] = sum[r][c];
            }
        }
        if constexpr (row + R < C) below<last, row + R>(distance);
    }

    // sum[r, c] -= M[row + r, k] L[c, k] over the columns k of a block.
    template <bool triangular, int row>
    STURM_INLINE void subtract_block(Entry (&sum)[R][C], const Entry* m, const Entry* l) const {
        STURM_UNROLL
        for (int k = triangular ? row : 0; k < C; ++k) {
            STURM_UNROLL
            for (int c = 0; c < C; ++c) {
                const Entry right = l[k * C + c];
                STURM_UNROLL
                for (int r = 0; r < R; ++r) {
                    if (!triangular || row + r <= k) sum[r][c].subtract_product(m[(row + r) * C + k], right);
                }
            }
        }
    }

    const SturmBand<T>& band_;
    Pivots& pivots_;
    Entry* const m_;         // [blocks][blocks][C][C]: M[I, K] in slots K % blocks and I - K - 1
    Entry* const l_;         // [blocks][C][C]: L[J, K]^T
    Entry* const inverses_;  // [blocks][C]: 1 / d
    Entry lower_[C][C];      // L[J, J] below its unit diagonal
    int j_ = 0;              // first column of panel J
    int slot_ = 0;           // J % blocks
    int before_ = 0;         // blocks to the left of the diagonal in row J
};

}  // namespace
