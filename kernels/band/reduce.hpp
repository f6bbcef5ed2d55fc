// Dense symmetric -> band, blocked and two-sided: for each panel of `half_width` columns below the diagonal block
//   P = Q [R; 0],  Q = I - V T V^T;   Y = A V T,  S = T^T V^T Y,  Z = Y - V S / 2;   A <- Q^T A Q = A - V Z^T - Z V^T.
//
// The update with one panel's vectors is put off until the next panel is factored, and then done tile by tile together
// with that panel's A V: the matrix is read and written once a panel. Only the next panel's own columns are updated
// first.
#pragma once

#include "band/carried.hpp"
#include "band/factor.hpp"
#include "band/kernels.hpp"
#include "band/sweep.hpp"
#include "band/tiles.hpp"
#include "cpu/threads.hpp"

namespace {

template <class SweepType, int kVectorBytes>
class BandReduction {
    using Number = typename SweepType::Number;
    using Tiles = typename SweepType::Tiles;
    using Tall = Panel<kVectorBytes>;
    static constexpr Index kBlock = Tall::kBlock, kStrip = SweepType::kStrip;
    // Below this the barriers eat the gain: 512 takes 2.1 ms on one thread and 1.9 on two, 768 takes 5.5 and 4.5.
    static constexpr Index kThreadedSize = 768;
    // Panels of float32 matrices may be as far from orthonormal as 2e-11: 128 of them leave a tenth of eps.
    static constexpr double kOnceBelow = sizeof(Number) == sizeof(float) ? 300 : 0;

  public:
    static void run(const BandTask<Number>& task) {
        BandReduction reduction(task);
        reduction.reduce();
    }

  private:
    explicit BandReduction(const BandTask<Number>& task)
        : task_(task),
          size_(task.size),
          width_(task.half_width),
          threads_(task.size < kThreadedSize ? 1 : omp_get_max_threads()),
          tiles_(task.size, choose_edge(task.size)),
          factor_(tiles_.blocks() * tiles_.edge(), clip_width(), threads_, kOnceBelow),
          small_(3 * factor_.cols() * factor_.cols()),
          sweep_(tiles_, factor_.cols(), threads_),
          carried_(task.carried, task.size, tiles_.blocks() * tiles_.edge(), factor_.cols()) {}

    // Measured (Zen 5, one thread): 64 is best up to 2048 (20 % against 128), 96 at 4096 (10 % against either).
    static Index choose_edge(Index size) { return size <= 2048 ? 64 : 96; }

    // A band wider than the matrix has no panels; do not allocate for it.
    Index clip_width() const { return width_ < size_ ? width_ : size_; }

    void reduce() {
        const Index blocks = tiles_.blocks();
        for (Index i = 0; i < size_ * (width_ + 1); ++i) task_.band[i] = 0;
#pragma omp parallel for schedule(static, 1) num_threads(threads_)
        for (Index t = 0; t < blocks * (blocks + 1) / 2; ++t) {
            const auto [row, col] = locate(t);
            tiles_.load(task_.matrix, row, col);
        }
        Index column = 0;
        while (size_ - column > width_ + 1) {
            update_columns(column, width_);
            write_diagonal(column, width_);
            reduce_panel(column);
            column += width_;
        }
        update_columns(column, size_ - column);
        write_diagonal(column, size_ - column);
        carried_.store();
    }

    struct Place {
        Index row, col;
    };

    // Tile number t of a triangle: rows of the triangle have 1, 2, 3, ... tiles.
    static Place locate(Index t) {
        Index row = 0;
        while (t > row) t -= ++row;
        return {row, t};
    }

    // Applies the pending update to the tiles that hold `count` columns from `column` on.
    void update_columns(Index column, Index count) {
        if (!pending_) return;
        const Index edge = tiles_.edge(), blocks = tiles_.blocks();
        const Index first = column / edge, last = (column + count - 1) / edge;
#pragma omp parallel num_threads(threads_)
        {
            const typename SweepType::Session session;
            for (Index col = first; col <= last; ++col) {
#pragma omp for schedule(static, 1) nowait
                for (Index row = col; row < blocks; ++row) sweep_.update(row, col, column, false);
            }
        }
        updated_ = last + 1;
    }

    void write_diagonal(Index column, Index count) const {
        for (Index j = 0; j < count; ++j)
            for (Index i = j; i < count && i - j <= width_; ++i)
                task_.band[(column + j) * (width_ + 1) + i - j] = *tiles_.column(column + i, column + j);
    }

    void reduce_panel(Index column) {
        const Index edge = tiles_.edge(), begin = column + width_, rows = size_ - begin;
        const Index origin = begin / edge * edge;  // the first row of the tiles that take part
        const Index panel_blocks = (tiles_.blocks() * edge - origin) / kBlock;
        const bool was_pending = pending_;
        const Index updated = was_pending ? updated_ : tiles_.blocks();

        sweep_.exchange();
        pending_ = factor_.factor(
            panel_blocks, begin - origin, rows,
            [&](Index n, double* block) { gather(origin + n * kBlock, begin, column, block); },
            [&](Index from, Index to, double* partial) {
                for (Index n = from; n < to; ++n) {
                    sweep_.set_v(origin + n * kBlock, factor_.v().block(n));
                    store_vectors(column, origin + n * kBlock, begin, factor_.v().block(n));
                }
                carried_.multiply(factor_, origin / kBlock, from, to, partial);
            });
        for (Index j = 0; j < width_; ++j)
            for (Index i = 0; i <= j && i < rows; ++i)
                task_.band[(column + j) * (width_ + 1) + width_ + i - j] = static_cast<Number>(factor_.r(i, j));
        if (pending_) {
            carried_.reflect(factor_);
        } else {  // a zero panel: nothing to multiply by, but the last update must still be finished
            for (Index row = origin; row < size_; row += kBlock) store_vectors(column, row, begin, nullptr);
        }
        if (pending_ || was_pending) sweep(begin, updated, pending_);
        if (pending_) compute_update(origin, begin, panel_blocks);
    }

    // Rows [row, row + kBlock) of V of this panel, zeros if there is none, as parts of the rows of its columns; what
    // the matrix held there is in the tiles.
    void store_vectors(Index column, Index row, Index begin, const double* block) const {
        if (task_.vectors == nullptr) return;
        const Index from = row < begin ? begin : row, to = row + kBlock < size_ ? row + kBlock : size_;
        for (Index j = 0; j < width_; ++j)
            for (Index i = from; i < to; ++i)
                task_.vectors[(column + j) * size_ + i] =
                    block != nullptr ? static_cast<Number>(block[j * kBlock + i - row]) : Number{};
    }

    // Z of this panel, of the product with its V.
    void compute_update(Index origin, Index begin, Index panel_blocks) {
        const Index n = factor_.cols();
        const double* t = factor_.t();
        factor_.for_chunks(panel_blocks, [&](Index from, Index to, double* partial) {
            sweep_.set_x(origin + from * kBlock, origin + to * kBlock, begin, partial);
            carried_.add(factor_, origin / kBlock, from, to);
        });
        double *inner = small_.data(), *product = inner + n * n, *s = product + n * n;
        factor_.reduce(inner);
        // s <- -1/2 T^T (V^T A V) T
        for (Index i = 0; i < n * n; ++i) product[i] = s[i] = 0;
        for (Index i = 0; i < n; ++i)
            for (Index k = 0; k < n; ++k) add_row(n, k, inner[i * n + k], t + k * n, product + i * n);
        for (Index k = 0; k < n; ++k)
            for (Index i = k; i < n; ++i) add_row(n, 0, -0.5 * t[k * n + i], product + k * n, s + i * n);
        factor_.for_chunks(panel_blocks, [&](Index from, Index to, double*) {
            sweep_.set_z(origin + from * kBlock, origin + to * kBlock, t, s);
        });
    }

    // Over all tiles from row and column `begin` on: the last panel's update where it is still due (columns from block
    // `updated`), then, if `multiply`, this panel's share of A V.
    void sweep(Index begin, Index updated, bool multiply) {
        const Index first = begin / tiles_.edge(), blocks = tiles_.blocks() - first;
#pragma omp parallel num_threads(threads_)
        {
            const typename SweepType::Session session;
            const int thread = omp_get_thread_num();
            if (multiply) sweep_.clear(thread, first * tiles_.edge());
#pragma omp for schedule(static, 1)
            for (Index t = 0; t < blocks * (blocks + 1) / 2; ++t) {
                const auto [row, col] = locate(t);
                if (first + col >= updated) sweep_.update(first + row, first + col, begin, true);
                if (multiply) sweep_.multiply(first + row, first + col, begin, thread);
            }
        }
    }

    // Rows [row, row + kBlock) of the panel at `column`, as a block of a panel; rows before `begin` are zeros.
    void gather(Index row, Index begin, Index column, double* block) const {
        constexpr Index lanes = kVectorBytes / static_cast<Index>(sizeof(Number));  // columns at a time
        alignas(64) Number rows[kBlock * lanes], columns[lanes * kBlock];
        for (Index c = 0; c < width_;) {
            const Index skip = (column + c) % lanes, rest = width_ - c,
                        width = rest < lanes - skip ? rest : lanes - skip;
            const Number* from = tiles_.column(row, column + c - skip);
            Index stride = kStrip;
            if (row < begin) {
                for (Index r = 0; r < kBlock; ++r)
                    for (Index i = 0; i < lanes; ++i)
                        rows[r * lanes + i] = row + r < begin ? Number{} : from[r * stride + i];
                from = rows;
                stride = lanes;
            }
            for (Index r = 0; r < kBlock; r += lanes)
                SquareTranspose<Number, lanes>::run(from + r * stride, stride, columns + r, kBlock);
            for (Index i = 0; i < width * kBlock; ++i)
                block[c * kBlock + i] = static_cast<double>(columns[skip * kBlock + i]);
            c += width;
        }
        for (Index i = width_ * kBlock; i < factor_.cols() * kBlock; ++i) block[i] = 0;
    }

    const BandTask<Number>& task_;
    Index size_, width_;
    int threads_;
    Tiles tiles_;
    PanelFactor<kVectorBytes> factor_;
    Scratch<double> small_;
    SweepType sweep_;
    Carried<kVectorBytes> carried_;
    bool pending_ = false;  // the last panel's update has not been applied to all tiles
    Index updated_ = 0;     // but it has been to tile columns before this one
};

}  // namespace
