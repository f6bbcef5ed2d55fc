// X = A V as the threads leave it, each with its own share, and how the shares become one.
#pragma once

#include "band/strips.hpp"
#include "cpu/scratch.hpp"
#include "gram/view.hpp"

namespace {

// Element (row, col) of a thread's share lies at strip(thread, col / width)[row * width + col % width].
template <class Number, int kVectorBytes>
class ThreadSums {
    using Rows = Strips<Number, kVectorBytes>;
    static constexpr Index kRows = Rows::kRows, kLanes = Rows::kColumns;

  public:
    // `width` is a multiple of kLanes.
    ThreadSums(Index rows, Index cols, Index width, int threads)
        : rows_(rows),
          cols_(cols),
          width_(width),
          strips_((cols + width - 1) / width),
          threads_(threads),
          data_(threads * rows * strips_ * width) {}

    Index strips() const { return strips_; }
    Number* strip(int thread, Index index) const { return data_.data() + (thread * strips_ + index) * rows_ * width_; }

    // Clears a thread's share from row `begin` on.
    void clear(int thread, Index begin) const {
        for (Index q = 0; q < strips_; ++q)
            for (Index i = begin * width_; i < rows_ * width_; ++i) strip(thread, q)[i] = 0;
    }

    // Rows [row, row + kRows) of the sum, as a strip; rows before `begin` are zeros.
    void read(Index row, Index begin, Number* block) const {
        alignas(64) Number rows[kRows * kLanes];
        for (Index c = 0; c < cols_; c += kLanes) {
            const Index q = c / width_, at = row * width_ + c - q * width_;
            for (Index r = 0; r < kRows; ++r) {
                Number* to = rows + r * kLanes;
                for (Index i = 0; i < kLanes; ++i)
                    to[i] = row + r < begin ? Number{} : strip(0, q)[at + r * width_ + i];
                for (int t = 1; t < threads_ && row + r >= begin; ++t)
                    for (Index i = 0; i < kLanes; ++i) to[i] += strip(t, q)[at + r * width_ + i];
            }
            Rows::put_rows(rows, kLanes, cols_ - c < kLanes ? cols_ - c : kLanes, block + c * kRows);
        }
    }

  private:
    Index rows_, cols_, width_, strips_;
    int threads_;
    Scratch<Number> data_;
};

}  // namespace
