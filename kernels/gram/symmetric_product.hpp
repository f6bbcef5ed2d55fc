// The blocked driver of the symmetric product: out = A A^T, computed for the lower half and mirrored.
//
// A is taken in slabs of columns. A slab is packed once into strips that serve as left and as right operand, depth
// block by depth block: what a tile reads of one lies together, where strips a power of two apart would share sets of
// L2. Then every tile of the lower triangle is one task: it is accumulated in a private buffer (L2) over the depth
// blocks, and added to `out` at the end of the slab. Each tile has one owner and a fixed order of summation, so the
// result does not depend on the number of threads. While a depth block is multiplied, the next one is asked for
// (Ahead).
//
// Sums of kBlockTerms products in float32, at most eight of these likewise, all others in float64: a tenth of the
// rounding that float32 throughout has, for a twentieth more time.
#pragma once

#include "cpu/scratch.hpp"
#include "cpu/threads.hpp"
#include "gram/pack.hpp"
#include "gram/view.hpp"

namespace {

inline Index round_up(Index value, Index step) { return (value + step - 1) / step * step; }

// What is read next, to be asked for a few lines at a time: two places. A processor that prefetches by itself begins
// anew at every page, each time by a few misses of the last cache.
class Ahead {
  public:
    Ahead(const void* first, Index first_bytes, const void* second, Index second_bytes)
        : at_(static_cast<const char*>(first)),
          end_(at_ + first_bytes),
          then_(static_cast<const char*>(second)),
          then_end_(then_ + second_bytes) {}

    // Where the next so many bytes lie; when all have been taken, some of the last again.
    const char* take(Index bytes) {
        if (at_ >= end_) {
            at_ = then_;
            end_ = then_end_;
            then_end_ = then_;
        }
        const char* from = at_;
        at_ += bytes;
        return from;
    }

  private:
    const char *at_, *end_, *then_, *then_end_;
};

// Kernel: a micro-kernel (gram/fma_kernel.hpp describes one). Packer: packs one strip of a slab for it,
//   kColumns                        columns of A in one packed element;
//   static Index depth(Index cols)  packed depth of that many columns, a multiple of Kernel::kDepthStep;
//   static void pack(view, row, col, depth, left, right)  (left == right unless Kernel::kTwoPackings).
template <class Kernel, class Packer, class Out = typename Kernel::Sum>
class SymmetricProduct {
    using Packed = typename Kernel::Packed;
    using Sum = typename Kernel::Sum;
    static constexpr Index kStrip = Kernel::kStrip, kRows = Kernel::kRows;
    static constexpr Index kBlockTerms = 64, kTerms = kBlockTerms / Packer::kColumns;
    // Where strips are a line wide, all rows of a tile take their turn at kTerms of a strip of columns, which stay in
    // L1 with the sums (16 KiB). Of wider ones a row goes through a depth block at once: measured where L2 has 1 MiB,
    // for 128 KiB of left strips, as much of right ones, and what follows both.
    static constexpr bool kTurns = kStrip * sizeof(Packed) <= 64;
    static constexpr Index kEdge = 128, kDepthBytes = kTurns && Packer::kColumns == 1 ? 2048 : 1024;
    static constexpr Index kDepthBlock = kDepthBytes / static_cast<Index>(sizeof(Packed));
    static constexpr Index kTurn = kTurns ? kTerms : kDepthBlock;
    static_assert(kDepthBlock * Packer::kColumns <= 8 * kBlockTerms);
    static constexpr Index kSlabBytes = Index{16} << 20;                            // what stays in the last cache
    static constexpr Index kLeastSlab = 4096 / static_cast<Index>(sizeof(Packed));  // of a row

  public:
    // out (view.rows x view.rows, row-major, `stride` elements a row) <- view view^T, both halves; `add` adds to what
    // its lower half holds.
    static void run(const MatrixView& view, Out* out, Index stride, bool add) {
        const Index rows = round_up(view.rows, kStrip), strips = rows / kStrip;
        const int threads = omp_get_max_threads();
        const Index edge = choose_edge(rows, threads);
        const Index blocks = (rows + edge - 1) / edge, tiles = blocks * (blocks + 1) / 2;

        const Index whole = Packer::depth(view.cols);
        const Index most = choose_slab(rows), slabs = (whole + most - 1) / most;
        const Index slab =
            round_up((whole + slabs - 1) / slabs, kDepthBlock < whole ? kDepthBlock : Kernel::kDepthStep);

        Scratch<Packed> right(rows * slab);
        Scratch<Packed> left(Kernel::kTwoPackings ? rows * slab : 0);
        Packed* left_strips = Kernel::kTwoPackings ? left.data() : right.data();
        Scratch<double> buffers(threads * edge * edge);

        bool first = true;
        for (Index begin = 0; first || begin < whole; begin += slab, first = false) {
            const Index depth = whole - begin < slab ? whole - begin : slab;
            const bool last = begin + slab >= whole;
#pragma omp parallel num_threads(threads)
            {
                const typename Kernel::Session session;
#pragma omp for schedule(dynamic, 1)
                for (Index s = 0; s < strips; ++s) {
                    for (Index k = 0; k < depth; k += kDepthBlock) {
                        const Index step = block_depth(depth, k), at = k * rows + s * kStrip * step;
                        Packer::pack(view, s * kStrip, (begin + k) * Packer::kColumns, step, left_strips + at,
                                     right.data() + at);
                    }
                }
                double* buffer = buffers.data() + omp_get_thread_num() * edge * edge;
#pragma omp for schedule(dynamic, 1)
                for (Index t = 0; t < tiles; ++t) {
                    const Tile tile = tile_at(t, edge, rows);
                    const Tile next = t + threads < tiles ? tile_at(t + threads, edge, rows) : tile;  // mostly
                    multiply_tile(tile, next, depth, rows, left_strips, right.data(), buffer);
                    write_tile(tile, view.rows, buffer, out, stride, first && !add, last);
                }
            }
        }
    }

  protected:
    struct Tile {
        Index row, col, rows, cols;
    };

    // Tile number t of the lower triangle, whose rows have 1, 2, 3, ... tiles.
    static Tile tile_at(Index t, Index edge, Index rows) {
        Index row = 0, col = t;
        while (col > row) col -= ++row;
        return {row * edge, col * edge, rows - row * edge < edge ? rows - row * edge : edge,
                rows - col * edge < edge ? rows - col * edge : edge};
    }

    // Packed elements of a row that go into a slab.
    static Index choose_slab(Index rows) {
        const Index fit = kSlabBytes / (rows * static_cast<Index>(sizeof(Packed))) / kDepthBlock * kDepthBlock;
        return fit > kLeastSlab ? fit : kLeastSlab;
    }

    // Large tiles for reuse of the caches, smaller ones where there would be too few to share out.
    static Index choose_edge(Index rows, int threads) {
        Index edge = kEdge;
        while (edge > 64 && (rows / edge) * (rows / edge + 1) / 2 < 8 * threads) edge /= 2;
        return edge;
    }

    static Index block_depth(Index depth, Index k) { return depth - k < kDepthBlock ? depth - k : kDepthBlock; }

    // buffer (strips of kStrip columns, each tile.rows x kStrip) = A[tile rows] A[tile cols]^T over this slab,
    // leaving out what lies wholly above the diagonal.
    static void multiply_tile(const Tile& tile, const Tile& next, Index depth, Index rows, const Packed* left,
                              const Packed* right, double* buffer) {
        for (Index i = 0; i < tile.rows * tile.cols && depth == 0; ++i) buffer[i] = 0;
        for (Index k = 0; k < depth; k += kDepthBlock) {
            const Index step = block_depth(depth, k), then = k + step < depth ? k + step : 0;
            Ahead ahead = strips_of(then > 0 ? tile : next, then, block_depth(depth, then), rows, left, right);
            for (Index col = tile.col; col < tile.col + tile.cols; col += kStrip)
                multiply_columns(tile, col, step, left + k * rows, right + k * rows, k == 0, buffer, ahead);
        }
    }

    // The strip of columns at `col`, over one depth block.
    static void multiply_columns(const Tile& tile, Index col, Index step, const Packed* left, const Packed* right,
                                 bool first, double* buffer, Ahead& ahead) {
        constexpr bool direct = sizeof(Sum) == sizeof(double);
        alignas(64) Sum sums[direct ? 1 : (kTurns ? kEdge : kStrip) * kStrip];
        double* const strip = buffer + (col - tile.col) * tile.rows;
        for (Index k = 0; k < step; k += kTurn) {
            const Index terms = step - k < kTurn ? step - k : kTurn;
            for (Index row = tile.row < col ? col : tile.row; row < tile.row + tile.rows; row += kStrip) {
                const Packed *a = left + row * step + k * kStrip, *b = right + col * step + k * kStrip;
                double* const to = strip + (row - tile.row) * kStrip;
                if constexpr (direct) {
                    add_product(first && k == 0, terms, a, b, row == col, to, ahead);
                } else {
                    Sum* const c = sums + (kTurns ? (row - tile.row) * kStrip : 0);
                    add_product(k == 0, terms, a, b, row == col, c, ahead);
                    if (k + terms == step) write_row(c, kStrip * kStrip, to, first);
                }
            }
        }
    }

    // What a tile reads of the depth block at k.
    static Ahead strips_of(const Tile& tile, Index k, Index step, Index rows, const Packed* left, const Packed* right) {
        const Index bytes = step * static_cast<Index>(sizeof(Packed));
        return {left + k * rows + tile.row * step, tile.rows * bytes, right + k * rows + tile.col * step,
                tile.row == tile.col && left == right ? 0 : tile.cols * bytes};
    }

    // C (kStrip x kStrip) += A B, or C = A B, strips of `depth` packed elements, in sums of kTerms; on the diagonal
    // without the second half of rows that it crosses in the first. All rows take their turn every kTerms: that much of
    // both strips, and the sums, stay in L1.
    static void add_product(bool first, Index depth, const Packed* a, const Packed* b, bool diagonal, Sum* c,
                            Ahead& ahead) {
        for (Index k = 0; k < depth; k += kTerms, first = false) {
            const Index terms = depth - k < kTerms ? depth - k : kTerms;
            if (first) {
                multiply_rows<true>(terms, a + k * kStrip, b + k * kStrip, diagonal, c, ahead);
            } else {
                multiply_rows<false>(terms, a + k * kStrip, b + k * kStrip, diagonal, c, ahead);
            }
        }
    }

    template <bool kFirst>
    static void multiply_rows(Index depth, const Packed* a, const Packed* b, bool diagonal, Sum* c, Ahead& ahead) {
        for (Index r = 0; r < kStrip; r += kRows) {
            const char* next = ahead.take(depth * Kernel::kAheadBytes);
            if (diagonal && r + kRows <= kStrip / 2) {
                if constexpr (kFirst) clear_half(c + r * kStrip);
                Kernel::template multiply_strips<1, kFirst>(depth, a + r, b, c + r * kStrip, next);
            } else {
                Kernel::template multiply_strips<2, kFirst>(depth, a + r, b, c + r * kStrip, next);
            }
        }
    }

    // The second half of kRows rows, which is no part of the result, but read with it.
    static void clear_half(Sum* rows) {
        for (Index i = 0; i < kRows; ++i)
            for (Index j = kStrip / 2; j < kStrip; ++j) rows[i * kStrip + j] = 0;
    }

    // Adds a tile to `out`, or in the first slab writes it, and in the last one writes what mirrors it.
    static void write_tile(const Tile& tile, Index size, const double* buffer, Out* out, Index stride, bool first,
                           bool last) {
        const Index rows = size - tile.row < tile.rows ? size - tile.row : tile.rows;
        const Index cols = size - tile.col < tile.cols ? size - tile.col : tile.cols;
        for (Index j = 0; j < cols; j += kStrip) {
            const Index col = tile.col + j;
            const Index width = cols - j < kStrip ? cols - j : kStrip;
            const double* sums = buffer + j * tile.rows;
            Out* to = out + tile.row * stride + col;
            // Rows before `below` have entries above the diagonal.
            const Index start = col > tile.row ? col - tile.row : 0;
            const Index edge = col + kStrip > tile.row ? col + kStrip - tile.row : 0;
            const Index below = width < kStrip || edge > rows ? rows : edge;
            for (Index i = start; i < below; ++i) {
                const Index there = tile.row + i - col + 1;
                write_row(sums + i * kStrip, there < width ? there : width, to + i * stride, first);
            }
            for (Index i = below; i < rows; ++i) write_row(sums + i * kStrip, kStrip, to + i * stride, first);
            if (last) mirror(to, start, below, rows, width, out + col * stride + tile.row, stride, tile.row - col);
        }
    }

    // to <- from where `first`, to += from in float64 elsewhere.
    template <class From, class To>
    static inline void write_row(const From* from, Index width, To* to, bool first) {
        if (first) {
            for (Index c = 0; c < width; ++c) to[c] = static_cast<To>(from[c]);
        } else {
            for (Index c = 0; c < width; ++c)
                to[c] = static_cast<To>(static_cast<double>(from[c]) + static_cast<double>(to[c]));
        }
    }

    // to(c, i) = from(i, c) for start <= i < rows, c < width: squares from row `below` on, where entries are whole rows
    // of the lower half; before it one by one, those with c <= i + offset.
    static void mirror(const Out* from, Index start, Index below, Index rows, Index width, Out* to, Index stride,
                       Index offset) {
        constexpr Index lanes = kStrip / 2 * static_cast<Index>(sizeof(Sum)) / static_cast<Index>(sizeof(Out));
        const Index squares = (rows - below) / lanes * lanes;
        for (Index c = 0; c < kStrip; c += lanes) {  // the rows of one square at a time, as long as they are
            for (Index i = below; i < below + squares; i += lanes)
                SquareTranspose<Out, lanes>::run(from + i * stride + c, stride, to + c * stride + i, stride);
        }
        for (Index c = 0; c < width; ++c) {
            for (Index i = c - offset > start ? c - offset : start; i < below; ++i)
                to[c * stride + i] = from[i * stride + c];
            for (Index i = below + squares; i < rows; ++i) to[c * stride + i] = from[i * stride + c];
        }
    }
};

// Packs any element type into the numbers that an FmaKernel multiplies.
template <class Kernel>
struct NumberPacker {
    static constexpr Index kColumns = 1;
    static Index depth(Index cols) { return cols; }
    static void pack(const MatrixView& view, Index row, Index col, Index depth, typename Kernel::Packed*,
                     typename Kernel::Packed* right) {
        pack_numbers<typename Kernel::Packed, Kernel::kStrip>(view, row, col, depth, right);
    }
};

}  // namespace
