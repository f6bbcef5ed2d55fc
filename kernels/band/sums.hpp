// X = A V as the threads leave it, each with its own share, and how the shares become one.
#pragma once

#include "band/strips.hpp"
#include "cpu/scratch.hpp"
#include "gram/view.hpp"

namespace {

// Element (row, col) of a thread's share lies at strip(thread, col / kStrip)[row * kStrip + col % kStrip].
template <class Number, Index kStrip, int kVectorBytes>
class ThreadSums {
    using Rows = Strips<Number, kVectorBytes>;
    static constexpr Index kRows = Rows::kRows, kLanes = Rows::kColumns;
    static_assert(kStrip % kLanes == 0);

  public:
    ThreadSums(Index rows, Index cols, int threads)
        : rows_(rows),
          cols_(cols),
          strips_((cols + kStrip - 1) / kStrip),
          threads_(threads),
          data_(threads * rows * strips_ * kStrip) {}

    Index strips() const { return strips_; }
    Number* strip(int thread, Index index) const { return data_.data() + (thread * strips_ + index) * rows_ * kStrip; }

    // Clears a thread's share from row `begin` on.
    void clear(int thread, Index begin) const {
        for (Index q = 0; q < strips_; ++q)
            for (Index i = begin * kStrip; i < rows_ * kStrip; ++i) strip(thread, q)[i] = 0;
    }

    // Rows [row, row + kRows) of the sum, as a strip; rows before `begin` are zeros.
    void read(Index row, Index begin, Number* block) const {
        alignas(64) Number rows[kRows * kLanes];
        for (Index c = 0; c < cols_; c += kLanes) {
            for (Index r = 0; r < kRows; ++r) {
                Number* to = rows + r * kLanes;
                const Index at = (row + r) * kStrip + c % kStrip;
                for (Index i = 0; i < kLanes; ++i) to[i] = row + r < begin ? Number{} : strip(0, c / kStrip)[at + i];
                for (int t = 1; t < threads_ && row + r >= begin; ++t)
                    for (Index i = 0; i < kLanes; ++i) to[i] += strip(t, c / kStrip)[at + i];
            }
            Rows::put_rows(rows, kLanes, cols_ - c < kLanes ? cols_ - c : kLanes, block + c * kRows);
        }
    }

  private:
    Index rows_, cols_, strips_;
    int threads_;
    Scratch<Number> data_;
};

}  // namespace
