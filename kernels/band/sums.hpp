// X = A V as the threads leave it, each with its own share, and how the shares become a panel.
#pragma once

#include "band/panel.hpp"
#include "cpu/scratch.hpp"
#include "gram/view.hpp"

namespace {

// Element (row, col) of a thread's share lies at strip(thread, col / kStrip)[row * kStrip + col % kStrip].
template <class Number, Index kStrip, int kVectorBytes>
class ThreadSums {
    using Tall = Panel<kVectorBytes>;
    static constexpr Index kBlock = Tall::kBlock;

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

    // Rows [row, row + kBlock) of the sum, as a block of a panel; rows before `begin` are zeros.
    void read(Index row, Index begin, double* block) const {
        alignas(64) double rows[kBlock * kStrip], columns[kStrip * kBlock];
        for (Index q = 0; q < strips_; ++q) {
            const Number* first = strip(0, q) + row * kStrip;
            for (Index i = 0; i < kBlock * kStrip; ++i) rows[i] = static_cast<double>(first[i]);
            for (int t = 1; t < threads_; ++t) {
                const Number* other = strip(t, q) + row * kStrip;
                for (Index i = 0; i < kBlock * kStrip; ++i) rows[i] += static_cast<double>(other[i]);
            }
            for (Index i = 0; i < (begin - row) * kStrip && i < kBlock * kStrip; ++i) rows[i] = 0;
            Tall::template put_rows<kStrip>(rows, columns);
            const Index width = cols_ - q * kStrip < kStrip ? cols_ - q * kStrip : kStrip;
            for (Index i = 0; i < width * kBlock; ++i) block[q * kStrip * kBlock + i] = columns[i];
        }
    }

  private:
    Index rows_, cols_, strips_;
    int threads_;
    Scratch<Number> data_;
};

}  // namespace
