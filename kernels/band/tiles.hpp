// The matrix under reduction: the lower half in square tiles, so that a sweep reads and writes memory in order.
//
// Tile (I, J), I >= J, holds rows I * edge.. and columns J * edge.., in strips of kStrip columns: element (r, c) lies
// at tile[c / kStrip * edge * kStrip + r * kStrip + c % kStrip]. A strip is at once a right operand of the micro-kernel
// (depth = rows), a left one read along its rows, and a transposed left one read along its columns.
// Tiles on the diagonal are held whole; rows and columns past the end are zeros. Those of a thread lie one after the
// other, as it goes through them: what it fetches in advance is its own.
#pragma once

#include "cpu/scratch.hpp"
#include "gram/view.hpp"

namespace {

template <class T, Index kStrip>
class TriangleTiles {
  public:
    TriangleTiles(Index size, Index edge, int threads)
        : size_(size), edge_(edge), blocks_((size + edge - 1) / edge), data_(count() * edge * edge), tiles_(count()) {
        T* next = data_.data();
        for (int thread = 0; thread < threads; ++thread)
            for_each(0, thread, threads, [&](Index row, Index col) {
                tiles_[row * (row + 1) / 2 + col] = next;
                next += edge * edge;
            });
    }

    Index size() const { return size_; }
    Index edge() const { return edge_; }
    Index blocks() const { return blocks_; }
    Index rows() const { return blocks_ * edge_; }

    // Runs work(tile row, tile column) over the tiles of one of some threads, of those with columns from tile column
    // `first` on. They are dealt out from the last one on: a thread keeps its tiles while the matrix becomes smaller.
    template <class Work>
    void for_each(Index first, int thread, int threads, const Work& work) const {
        for (Index row = first; row < blocks_; ++row) {
            for (Index col = first; col <= row; ++col) {
                const Index after = blocks_ - 1 - col, number = after * (after + 1) / 2 + blocks_ - 1 - row;
                if (is_of(number, thread, threads)) work(row, col);
            }
        }
    }

    T* tile(Index block_row, Index block_col) const { return tiles_[block_row * (block_row + 1) / 2 + block_col]; }

    // Element (row, col) of the lower half; the next rows of its tile follow at a distance of kStrip.
    T* column(Index row, Index col) const {
        const Index c = col % edge_;
        return tile(row / edge_, col / edge_) + c / kStrip * edge_ * kStrip + row % edge_ * kStrip + c % kStrip;
    }

    // Copies tile (block_row, block_col) out of a row-major matrix of which only the lower half is read.
    void load(const T* matrix, Index block_row, Index block_col) const {
        T* to = tile(block_row, block_col);
        for (Index c0 = 0; c0 < edge_; c0 += kStrip) {
            for (Index r = 0; r < edge_; ++r, to += kStrip) {
                const Index row = block_row * edge_ + r, col = block_col * edge_ + c0;
                if (row < size_ && col + kStrip - 1 <= row) {
                    for (Index c = 0; c < kStrip; ++c) to[c] = matrix[row * size_ + col + c];
                    continue;
                }
                for (Index c = 0; c < kStrip; ++c) {
                    const bool inside = row < size_ && col + c < size_;
                    to[c] = !inside          ? T{}
                            : col + c <= row ? matrix[row * size_ + col + c]
                                             : matrix[(col + c) * size_ + row];
                }
            }
        }
    }

  private:
    // A division of 64 bits takes some processors ninety cycles, of 8,000 for a tile.
    static bool is_of(Index number, int thread, int threads) {
        return static_cast<unsigned>(number) % static_cast<unsigned>(threads) == static_cast<unsigned>(thread);
    }

    Index count() const { return blocks_ * (blocks_ + 1) / 2; }

    Index size_, edge_, blocks_;
    Scratch<T> data_;
    Scratch<T*> tiles_;
};

}  // namespace
