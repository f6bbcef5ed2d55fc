// What the reduction does to the big matrix, tile by tile: A -= V Z^T + Z V^T with the last panel's vectors, and, while
// the tile is in cache, its share of X = A V with the next panel's.
//
// Only the lower half exists, so a tile (I, J) off the diagonal serves twice: X_I += A_IJ V_J and X_J += A_IJ^T V_I.
// Each thread has an X of its own; tiles are dealt out in a fixed order, so a run can be repeated bit by bit.
#pragma once

#include "band/panel.hpp"
#include "band/strips.hpp"
#include "band/sums.hpp"
#include "band/tiles.hpp"
#include "band/vectors.hpp"
#include "cpu/scratch.hpp"
#include "gram/fma_kernel.hpp"
#include "gram/view.hpp"

namespace {

template <class Kernel, int kVectorBytes>
class Sweep {
  public:
    using Number = typename Kernel::Sum;
    using Tall = Panel<kVectorBytes>;
    using Vectors = UpdateVectors<Number, kVectorBytes>;
    using Session = typename Kernel::Session;
    static constexpr Index kStrip = Kernel::kStrip, kRows = Kernel::kRows, kLanes = Kernel::kLanes;
    static_assert(kStrip == Vectors::kRows);
    using Tiles = TriangleTiles<Number, kStrip>;

    Sweep(const Tiles& tiles, Index cols, int threads)
        : tiles_(tiles),
          cols_(cols),
          width_((cols + kLanes - 1) / kLanes % 2 == 0 ? kStrip : kLanes),
          column_strips_((cols + width_ - 1) / width_),
          rows_(tiles.blocks() * tiles.edge()),
          vectors_{Vectors(rows_, cols, threads), Vectors(rows_, cols, threads)},
          right_(rows_ * column_strips_ * width_),
          sums_(rows_, cols, width_, threads) {}

    // 96 takes 4 to 8 % longer where it does not divide the size, 128 twenty at 576 and nothing elsewhere (Zen 4).
    static Index choose_edge(Index) { return 64; }

    // The first row of V that the products of a panel whose rows start at `begin` ask for.
    Index first_row(Index begin) const { return begin / Tall::kBlock * Tall::kBlock; }

    // Takes over rows [row, row + Tall::kBlock) of V, a block of a panel, for products and for the later update; V and
    // Z of two panels are kept, in sets 0 and 1.
    void set_v(Index set, Index row, const double* block) const {
        const Vectors& vectors = vectors_[set];
        vectors.set_v(row, block);
        for (Index c = 0; c < cols_; c += kLanes) {
            const Index q = c / width_;
            Number* to = right_.data() + q * rows_ * width_ + c - q * width_;
            for (Index r = row; r < row + Tall::kBlock; r += kStrip)
                Strips<Number, kVectorBytes>::get_rows(
                    vectors.v(r) + c * kStrip, cols_ - c < kLanes ? cols_ - c : kLanes, to + r * width_, width_);
        }
    }

    // Takes over rows [row, end) of the product X = A V, zeros before row `begin`; inner += V^T X of them.
    void set_x(Index set, Index row, Index end, Index begin, double* inner) const {
        vectors_[set].set_x(row, end, begin, sums_, inner);
    }

    // Makes Z = X T + V S of rows [row, end) of X, for the update.
    void set_z(Index set, Index row, Index end, const double* t, const double* s) const {
        vectors_[set].finish(row, end, t, s);
    }

    // Tile -= V_I Z_J^T + Z_I V_J^T, with the V and Z of a set; from a strip of columns, at `begin`, on, on the
    // diagonal from each square downwards.
    void update(Index set, Index block_row, Index block_col, Index begin) const {
        const Index edge = tiles_.edge(), row = block_row * edge;
        Number* const tile = tiles_.tile(block_row, block_col);
        for (Index c = first_column(block_col, begin); c < edge; c += kStrip) {
            const Index col = block_col * edge + c;
            Number* const strip = tile + c / kStrip * edge * kStrip + c % kStrip;
            if (block_row == block_col) {
                update_columns<kSquare / kLanes>(set, col, col + kSquare, col, strip + c * kStrip);
                update_columns<2>(set, col + kSquare, row + edge, col, strip + (c + kSquare) * kStrip);
            } else {
                update_columns<2>(set, row, row + edge, col, strip);
            }
        }
    }

    // The same for rows [row, end) and columns from `begin` on of the strip at `col`.
    void update_strip(Index set, Index row, Index end, Index col, Index begin) const {
        const bool whole = begin - col < kSquare;
        const Index from = whole ? col : col + kSquare, first = row < from ? from : row;
        if (first >= end) return;
        if (whole) {
            update_columns<2>(set, first, end, from, tiles_.column(first, from));
        } else {
            update_columns<1>(set, first, end, from, tiles_.column(first, from));
        }
    }

    // X_I += tile V_J, and X_J += tile^T V_I off the diagonal, or below the squares on it; rows of V and X before
    // `begin` do not count.
    void multiply(Index block_row, Index block_col, Index begin, int thread) const {
        for (Index q = 0; q < column_strips_; ++q) {
            if (width_ == kLanes) {
                multiply_strip<1>(block_row, block_col, begin, thread, q);
            } else {
                multiply_strip<2>(block_row, block_col, begin, thread, q);
            }
        }
    }

    // Clears a thread's share of X from row `begin` on.
    void clear(int thread, Index begin) const { sums_.clear(thread, begin); }

  private:
    static constexpr Index kUnroll = 4;  // divides all depths here, and gains 5 %: their loops are short

    // Squares on the diagonal are held whole: of one vector, where a block of sums is not taller.
    static constexpr Index kSquare = kLanes < kRows ? kRows : kLanes;
    static_assert(kStrip % kSquare == 0 && kSquare % kUnroll == 0);

    // Rows [row, end) of a tile, kVectors vectors of columns from `col` on, which lie at `to`, -= V Z^T + Z V^T.
    template <Index kVectors>
    void update_columns(Index set, Index row, Index end, Index col, Number* to) const {
        const Vectors& vectors = vectors_[set];
        const Index half = cols_ * kStrip;
        const Number* right = vectors.z(col) + col % kStrip;
        for (Index r = row; r < end; r += kRows, to += kRows * kStrip)
            Kernel::template multiply<1, kStrip, Store::subtract, kVectors, kUnroll>(
                2, cols_, vectors.v(r) + r % kStrip, half, right, -half, to);
    }

    // The product for one strip of columns of V, kVectors vectors wide.
    template <Index kVectors>
    void multiply_strip(Index block_row, Index block_col, Index begin, int thread, Index q) const {
        const Index edge = tiles_.edge(), first = first_column(block_col, begin), from = first / kSquare * kSquare;
        const bool diagonal = block_row == block_col;
        const Number* tile = tiles_.tile(block_row, block_col);
        constexpr Index kWidth = kVectors * kLanes;
        const Number* right = right_.data() + q * rows_ * kWidth;
        Number* sums = sums_.strip(thread, q);
        // X_I of rows from `row` on += columns [begin, end), which are whole strips or lie in one.
        const auto add_rows = [&](Index row, Index begin, Index end) {
            const bool whole = end - begin >= kStrip;
            const Index strips = whole ? (end - begin) / kStrip : 1, inner = whole ? kStrip : end - begin;
            for (Index r = row; r < edge && inner > 0; r += kRows)
                Kernel::template multiply<kStrip, 1, Store::add, kVectors, kUnroll, kWidth>(
                    strips, inner, tile + begin / kStrip * kStrip * edge + r * kStrip + begin % kStrip, edge * kStrip,
                    right + (block_col * edge + begin) * kWidth, kStrip * kWidth,
                    sums + (block_row * edge + r) * kWidth);
        };
        if (diagonal) {
            for (Index c = from; c < edge; c += kSquare) add_rows(c, c, c + kSquare);
        } else {
            const Index whole = (from + kStrip - 1) / kStrip * kStrip;
            add_rows(0, from, whole);
            add_rows(0, whole, edge);
        }
        for (Index c = first / kRows * kRows; c < edge; c += kRows) {
            const Index top = diagonal ? (c / kSquare + 1) * kSquare : 0;
            Kernel::template multiply<1, kStrip, Store::add, kVectors, kUnroll, kWidth>(
                1, edge - top, tile + (c / kStrip * edge + top) * kStrip + c % kStrip, 0,
                right + (block_row * edge + top) * kWidth, 0, sums + (block_col * edge + c) * kWidth);
        }
    }

    // The first column of a tile that is not before column `begin` of the matrix.
    Index first_column(Index block_col, Index begin) const {
        const Index first = begin - block_col * tiles_.edge();
        return first > 0 ? first : 0;
    }

    const Tiles& tiles_;
    Index cols_;
    Index width_;  // of a strip of columns of V and X: two vectors, or one where their number is odd
    Index column_strips_, rows_;
    Vectors vectors_[2];
    Scratch<Number> right_;
    ThreadSums<Number, kVectorBytes> sums_;
};

}  // namespace
