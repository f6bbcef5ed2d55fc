// Dense symmetric -> band, blocked and two-sided: for each panel of `half_width` columns below the diagonal block
//   P = Q [R; 0],  Q = I - V T V^T;   Y = A V T,  S = T^T V^T Y,  Z = Y - V S / 2;   A <- Q^T A Q = A - V Z^T - Z V^T.
//
// The update with one panel's vectors is put off until the next panel is factored, and then done tile by tile together
// with that panel's A V: the matrix is read and written once a panel. Only the next panel's own columns are updated
// first.
//
// All threads go through the whole reduction side by side and meet five times a panel; each has its own rows of a panel
// and its own tiles of the matrix, which stay in its cache.
#pragma once

#include "band/carried.hpp"
#include "band/factor.hpp"
#include "band/kernels.hpp"
#include "band/sweep.hpp"
#include "band/tiles.hpp"
#include "cpu/team.hpp"
#include "cpu/threads.hpp"

namespace {

template <class SweepType, int kVectorBytes>
class BandReduction {
    using Number = typename SweepType::Number;
    using Tiles = typename SweepType::Tiles;
    using Tall = Panel<kVectorBytes>;
    static constexpr Index kBlock = Tall::kBlock, kStrip = SweepType::kStrip;
    static_assert(kBlock % kStrip == 0);
    // Two threads take 1.6 ms at 512 where one takes 2.5; with their cores apart (two last caches) 2.8.
    static constexpr Index kThreadedSize = 512;
    static constexpr Index kRowsOfThread = 128;
    // Panels of float32 matrices may be as far from orthonormal as 2e-11: 128 of them leave a tenth of eps.
    static constexpr double kOnceBelow = sizeof(Number) == sizeof(float) ? 300 : 0;

  public:
    static void run(const BandTask<Number>& task) {
        const Memory memory(task, choose_threads(task.size));
        Barrier barrier;
#pragma omp parallel num_threads(memory.threads)
        BandReduction(task, memory, Team{barrier}).reduce();
    }

  private:
    // What the threads share, and room for three small matrices of each.
    struct Memory {
        Memory(const BandTask<Number>& task, int count)
            : threads(count),
              tiles(task.size, SweepType::choose_edge(task.size), threads),
              // A band wider than the matrix has no panels; do not allocate for it.
              panel(tiles.rows(), task.half_width < task.size ? task.half_width : task.size, threads),
              sweep(tiles, panel.cols, threads),
              carried(task.carried, task.size, tiles.rows()),
              small(threads * 3 * panel.cols * panel.cols) {}

        int threads;
        Tiles tiles;
        PanelMemory<kVectorBytes> panel;
        SweepType sweep;
        Carried<kVectorBytes> carried;
        Scratch<double> small;
    };

    BandReduction(const BandTask<Number>& task, const Memory& memory, const Team& team)
        : task_(task),
          size_(task.size),
          width_(task.half_width),
          team_(team),
          tiles_(memory.tiles),
          sweep_(memory.sweep),
          carried_(memory.carried),
          factor_(memory.panel, team_, width_ < size_ ? width_ : size_, kOnceBelow),
          small_(memory.small.data() + team.index * 3 * factor_.cols() * factor_.cols()) {
        // Fewer threads may come than were asked for.
        for (int t = team.index + team.count; t < memory.threads; t += team.count) sweep_.clear(t, 0);
    }

    static int choose_threads(Index size) {
        if (size < kThreadedSize) return 1;
        const int most = static_cast<int>(size / kRowsOfThread), threads = omp_get_max_threads();
        return threads < most ? threads : most;
    }

    void reduce() {
        const typename SweepType::Session session;
        for_tiles(0, [&](Index row, Index col) { tiles_.load(task_.matrix, row, col); });
        if (is_first())
            for (Index i = 0; i < size_ * (width_ + 1); ++i) task_.band[i] = 0;
        team_.wait();
        Index column = 0;
        for (; size_ - column > width_ + 1; column += width_) reduce_panel(column);
        if (!is_first()) return;
        update_rows(column / kBlock * kBlock, tiles_.rows(), column, size_);
        write_diagonal(column, size_ - column);
        carried_.store();
    }

    bool is_first() const { return team_.index == 0; }

    // Runs work(tile row, tile column) over this thread's tiles with columns from tile column `first` on.
    template <class Work>
    void for_tiles(Index first, const Work& work) const {
        tiles_.for_each(first, team_.index, team_.count, work);
    }

    // Applies the pending update to rows [row, last) in columns [column, end).
    void update_rows(Index row, Index last, Index column, Index end) const {
        for (; pending_ && row < last; row += kBlock)
            for (Index c = column / kStrip * kStrip; c < end; c += kStrip)
                sweep_.update_strip(set_, row, row + kBlock, c, column);
    }

    void write_diagonal(Index column, Index count) const {
        for (Index j = 0; j < count; ++j)
            for (Index i = j; i < count && i - j <= width_; ++i)
                task_.band[(column + j) * (width_ + 1) + i - j] = *tiles_.column(column + i, column + j);
    }

    void reduce_panel(Index column) {
        const Index begin = column + width_, rows = size_ - begin;
        const Index origin = sweep_.first_row(begin);  // the first row that takes part
        const Index panel_blocks = (tiles_.rows() - origin) / kBlock;

        if (is_first()) update_rows(column / kBlock * kBlock, origin, column, begin);
        factor_.for_share(panel_blocks, [&](Index from, Index to) {
            update_rows(origin + from * kBlock, origin + to * kBlock, column, begin);
        });
        const Index next = 1 - set_;
        const bool found = factor_.factor(
            panel_blocks, begin - origin, rows,
            [&](Index n, double* block) { gather(origin + n * kBlock, begin, column, block); },
            [&](Index from, Index to, double* partial) {
                for (Index n = from; n < to; ++n) {
                    sweep_.set_v(next, origin + n * kBlock, factor_.v().block(n));
                    store_vectors(column, origin + n * kBlock, begin, factor_.v().block(n));
                }
                carried_.multiply(factor_, origin / kBlock, from, to, partial);
            });
        if (is_first()) {
            write_diagonal(column, width_);
            for (Index j = 0; j < width_; ++j)
                for (Index i = 0; i <= j && i < rows; ++i)
                    task_.band[(column + j) * (width_ + 1) + width_ + i - j] = static_cast<Number>(factor_.r(i, j));
        }
        if (!found && is_first())  // a zero panel: nothing to multiply by, but the last update must still be finished
            for (Index row = origin; row < size_; row += kBlock) store_vectors(column, row, begin, nullptr);
        if (found || pending_) sweep(begin, found);
        pending_ = found;
        set_ = next;
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
        double *inner = small_, *product = inner + n * n, *s = product + n * n;
        carried_.reflect(factor_, inner, product);
        factor_.for_chunks(panel_blocks, [&](Index from, Index to, double* partial) {
            sweep_.set_x(set_, origin + from * kBlock, origin + to * kBlock, begin, partial);
            carried_.add(factor_, origin / kBlock, from, to, product);
        });
        factor_.reduce(inner);
        // s <- -1/2 T^T (V^T A V) T
        multiply_small<false>(n, n, 1, inner, t, product);
        multiply_small<true>(n, n, -0.5, t, product, s);
        // Of s only its symmetric part counts, V (s + s^T) V^T: an upper triangle has the same at half of the work.
        for (Index i = 0; i < n; ++i) {
            for (Index j = 0; j < i; ++j) {
                s[j * n + i] += s[i * n + j];
                s[i * n + j] = 0;
            }
        }
        factor_.for_chunks(panel_blocks, [&](Index from, Index to, double*) {
            sweep_.set_z(set_, origin + from * kBlock, origin + to * kBlock, t, s);
        });
    }

    // Over all tiles from row and column `begin` on: the last panel's update where it is still due (the columns of the
    // strip before have it), then, if `multiply`, this panel's share of A V.
    void sweep(Index begin, bool multiply) const {
        const Index first = begin / tiles_.edge(), due = (begin + kStrip - 1) / kStrip * kStrip;
        if (multiply) sweep_.clear(team_.index, first * tiles_.edge());
        for_tiles(first, [&](Index row, Index col) {
            if (pending_) sweep_.update(set_, row, col, due);
            if (multiply) sweep_.multiply(row, col, begin, team_.index);
        });
        team_.wait();
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
    const Team team_;
    const Tiles& tiles_;
    const SweepType& sweep_;
    const Carried<kVectorBytes>& carried_;
    PanelFactor<kVectorBytes> factor_;
    double* small_;
    Index set_ = 0;         // of V and Z of the last panel
    bool pending_ = false;  // their update has not been applied to all tiles
};

}  // namespace
