// What the reduction does to the big matrix, tile by tile: A -= V Z^T + Z V^T with the last panel's vectors, and, while
// the tile is in cache, its share of X = A V with the next panel's.
//
// Only the lower half exists, so a tile (I, J) off the diagonal serves twice: X_I += A_IJ V_J and X_J += A_IJ^T V_I.
// Each thread has an X of its own; tiles are dealt out in a fixed order, so a run can be repeated bit by bit.
#pragma once

#include "band/panel.hpp"
#include "band/sums.hpp"
#include "band/tiles.hpp"
#include "cpu/scratch.hpp"
#include "gram/view.hpp"

namespace {

template <class Kernel, int kVectorBytes>
class Sweep {
  public:
    using Number = typename Kernel::Sum;
    using Tall = Panel<kVectorBytes>;
    using Session = typename Kernel::Session;
    static constexpr Index kStrip = Kernel::kStrip, kRows = Kernel::kRows, kBlock = Tall::kBlock;
    using Tiles = TriangleTiles<Number, kStrip>;

    Sweep(const Tiles& tiles, Index cols, int threads)
        : tiles_(tiles),
          cols_(cols),
          column_strips_((cols + kStrip - 1) / kStrip),
          rows_(tiles.blocks() * tiles.edge()),
          vectors_{Scratch<Number>(rows_ * 2 * cols), Scratch<Number>(rows_ * 2 * cols)},
          right_(rows_ * column_strips_ * kStrip),
          sums_(rows_, cols, threads) {}

    // Keeps the V and Z of the last panel for updates that are still due; what follows is set for the next one.
    void exchange() { current_ = 1 - current_; }

    // Takes over V (for products and for the later update) from rows [row, row + kBlock), a block of a panel.
    void set_v(Index row, const double* block) const {
        set_vectors(row, block, 0);
        for (Index q = 0; q < column_strips_; ++q) {
            alignas(64) double columns[kStrip * kBlock] = {}, rows[kBlock * kStrip];
            const Index width = cols_ - q * kStrip < kStrip ? cols_ - q * kStrip : kStrip;
            for (Index i = 0; i < width * kBlock; ++i) columns[i] = block[q * kStrip * kBlock + i];
            Tall::template get_rows<kStrip>(columns, rows);
            Number* to = right_.data() + (q * rows_ + row) * kStrip;
            for (Index i = 0; i < kBlock * kStrip; ++i) to[i] = static_cast<Number>(rows[i]);
        }
    }

    // Takes over Z, for the update.
    void set_z(Index row, const double* block) const { set_vectors(row, block, 1); }

    // Tile -= V_I Z_J^T + Z_I V_J^T, with the vectors of this panel or of the one before the exchange; of columns from
    // `begin` on, on the diagonal from each strip's own square downwards.
    void update(Index block_row, Index block_col, Index begin, bool last) const {
        const Number* vectors = vectors_[last ? 1 - current_ : current_].data();
        const Index edge = tiles_.edge(), half = cols_ * kStrip;
        Number* tile = tiles_.tile(block_row, block_col);
        for (Index c = first_column(block_col, begin) / kStrip * kStrip; c < edge; c += kStrip) {
            const Number* right = vectors + strip_offset(block_col * edge + c) + half;
            for (Index r = block_row == block_col ? c : 0; r < edge; r += kRows) {
                const Number* left = vectors + strip_offset(block_row * edge + r) + r % kStrip;
                Kernel::template multiply<1, kStrip, true, 2, kUnroll>(2, cols_, left, half, right, -half,
                                                                       tile + c * edge + r * kStrip);
            }
        }
    }

    // X_I += tile V_J, and X_J += tile^T V_I off the diagonal, or below the squares on it; rows of V and X before
    // `begin` do not count.
    void multiply(Index block_row, Index block_col, Index begin, int thread) const {
        for (Index q = 0; q < column_strips_; ++q) {
            if (cols_ - q * kStrip <= Kernel::kLanes) {
                multiply_strip<1>(block_row, block_col, begin, thread, q);
            } else {
                multiply_strip<2>(block_row, block_col, begin, thread, q);
            }
        }
    }

    const ThreadSums<Number, kStrip, kVectorBytes>& sums() const { return sums_; }

  private:
    static constexpr Index kUnroll = 4;  // divides all depths here, and gains 5 %: their loops are short

    // The same for kStrip columns of V, or only half of them.
    template <Index kVectors>
    void multiply_strip(Index block_row, Index block_col, Index begin, int thread, Index q) const {
        const Index edge = tiles_.edge(), first = first_column(block_col, begin), from = first / kStrip * kStrip;
        const bool diagonal = block_row == block_col;
        const Number* tile = tiles_.tile(block_row, block_col);
        const Number* right = right_.data() + q * rows_ * kStrip;
        Number* sums = sums_.strip(thread, q);
        for (Index r = diagonal ? from : 0; r < edge; r += kRows) {
            const Index to = diagonal ? (r / kStrip + 1) * kStrip : edge;
            Kernel::template multiply<kStrip, 1, false, kVectors, kUnroll>(
                (to - from) / kStrip, kStrip, tile + from * edge + r * kStrip, edge * kStrip,
                right + (block_col * edge + from) * kStrip, kStrip * kStrip, sums + (block_row * edge + r) * kStrip);
        }
        for (Index c = first / kRows * kRows; c < edge; c += kRows) {
            const Index top = diagonal ? (c / kStrip + 1) * kStrip : 0;
            Kernel::template multiply<1, kStrip, false, kVectors, kUnroll>(
                1, edge - top, tile + (c / kStrip * edge + top) * kStrip + c % kStrip, 0,
                right + (block_row * edge + top) * kStrip, 0, sums + (block_col * edge + c) * kStrip);
        }
    }

    // The first column of a tile that is not before column `begin` of the matrix.
    Index first_column(Index block_col, Index begin) const {
        const Index first = begin - block_col * tiles_.edge();
        return first > 0 ? first : 0;
    }

    // V and Z in strips of kStrip rows: for each strip cols columns of V, then cols of Z.
    Index strip_offset(Index row) const { return row / kStrip * kStrip * 2 * cols_; }

    void set_vectors(Index row, const double* block, Index which) const {
        constexpr Index run = kBlock < kStrip ? kBlock : kStrip;
        for (Index r = 0; r < kBlock; r += run) {
            Number* to =
                vectors_[current_].data() + strip_offset(row + r) + which * cols_ * kStrip + (row + r) % kStrip;
            for (Index c = 0; c < cols_; ++c)
                for (Index i = 0; i < run; ++i) to[c * kStrip + i] = static_cast<Number>(block[c * kBlock + r + i]);
        }
    }

    const Tiles& tiles_;
    Index cols_, column_strips_, rows_;
    Scratch<Number> vectors_[2], right_;
    ThreadSums<Number, kStrip, kVectorBytes> sums_;
    int current_ = 0;
};

}  // namespace
