// The blocked driver of the symmetric product: out = A A^T, computed for the lower half and mirrored.
//
// A is taken in slabs of columns. A slab is packed once into strips that serve as left and as right operand; then every
// tile of the lower triangle is one task: it is accumulated in a private buffer (L2) over depth blocks whose right
// strip stays in L1, and added to `out` at the end of the slab. Each tile has one owner and a fixed order of summation,
// so the result does not depend on the number of threads.
#pragma once

#include "cpu/scratch.hpp"
#include "cpu/threads.hpp"
#include "gram/pack.hpp"
#include "gram/view.hpp"

namespace {

inline Index round_up(Index value, Index step) { return (value + step - 1) / step * step; }

// Kernel: a micro-kernel (gram/fma_kernel.hpp describes one). Packer: packs one strip of a slab for it,
//   kColumns                        columns of A in one packed element;
//   static Index depth(Index cols)  packed depth of that many columns, a multiple of Kernel::kDepthStep;
//   static void pack(view, row, col, depth, left, right)  (left == right unless Kernel::kTwoPackings).
template <class Kernel, class Packer>
class SymmetricProduct {
    using Packed = typename Kernel::Packed;
    using Sum = typename Kernel::Sum;
    static constexpr Index kStrip = Kernel::kStrip, kRows = Kernel::kRows;
    static constexpr Index kDepthBlock = 256;  // packed elements: a right strip of 32 KiB, in L1
    // Packed depth of a slab. A short one costs passes over `out`, a long one memory that the system clears each time.
    static Index choose_slab(Index rows) { return rows > 2048 ? 8 * kDepthBlock : 4 * kDepthBlock; }

  public:
    // out (view.rows x view.rows, row-major, `stride` elements a row) <- view view^T, both halves; `add` adds to what
    // its lower half holds.
    static void run(const MatrixView& view, Sum* out, Index stride, bool add) {
        const Index rows = round_up(view.rows, kStrip), strips = rows / kStrip;
        const int threads = omp_get_max_threads();
        const Index edge = choose_edge(rows, threads);
        const Index blocks = (rows + edge - 1) / edge, tiles = blocks * (blocks + 1) / 2;

        const Index whole = Packer::depth(view.cols);
        const Index slabs = (whole + choose_slab(rows) - 1) / choose_slab(rows);
        const Index slab =
            round_up((whole + slabs - 1) / slabs, kDepthBlock < whole ? kDepthBlock : Kernel::kDepthStep);

        Scratch<Packed> right(rows * slab);
        Scratch<Packed> left(Kernel::kTwoPackings ? rows * slab : 0);
        Packed* left_strips = Kernel::kTwoPackings ? left.data() : right.data();
        Scratch<Sum> buffers(threads * edge * edge);

        bool first = true;
        for (Index begin = 0; first || begin < whole; begin += slab, first = false) {
            const Index depth = whole - begin < slab ? whole - begin : slab;
            const bool last = begin + slab >= whole;
#pragma omp parallel num_threads(threads)
            {
                const typename Kernel::Session session;
#pragma omp for schedule(dynamic, 1)
                for (Index s = 0; s < strips; ++s)
                    Packer::pack(view, s * kStrip, begin * Packer::kColumns, depth, left_strips + s * kStrip * slab,
                                 right.data() + s * kStrip * slab);
                Sum* buffer = buffers.data() + omp_get_thread_num() * edge * edge;
#pragma omp for schedule(dynamic, 1)
                for (Index t = 0; t < tiles; ++t) {
                    Index block_row = 0, block_col = t;  // rows of the triangle have 1, 2, 3, ... tiles
                    while (block_col > block_row) block_col -= ++block_row;
                    const Tile tile{block_row * edge, block_col * edge,
                                    rows - block_row * edge < edge ? rows - block_row * edge : edge,
                                    rows - block_col * edge < edge ? rows - block_col * edge : edge};
                    multiply_tile(tile, depth, slab, left_strips, right.data(), buffer);
                    write_tile(tile, view.rows, buffer, out, stride, first && !add, last);
                }
            }
        }
    }

  private:
    struct Tile {
        Index row, col, rows, cols;
    };

    // Large tiles for reuse of the caches, smaller ones where there would be too few to share out.
    static Index choose_edge(Index rows, int threads) {
        Index edge = 256;
        while (edge > 64 && (rows / edge) * (rows / edge + 1) / 2 < 8 * threads) edge /= 2;
        return edge;
    }

    // buffer (strips of kStrip columns, each tile.rows x kStrip) = A[tile rows] A[tile cols]^T over this slab,
    // leaving out blocks wholly above the diagonal.
    static void multiply_tile(const Tile& tile, Index depth, Index slab, const Packed* left, const Packed* right,
                              Sum* buffer) {
        for (Index i = 0; i < tile.rows * tile.cols; ++i) buffer[i] = Sum{};
        for (Index k = 0; k < depth; k += kDepthBlock) {
            const Index step = depth - k < kDepthBlock ? depth - k : kDepthBlock;
            for (Index j = 0; j < tile.cols; j += kStrip) {
                const Packed* b = right + (tile.col + j) * slab + k * kStrip;
                for (Index i = 0; i < tile.rows; i += kRows) {
                    const Index row = tile.row + i;
                    if (row + kRows <= tile.col + j) continue;
                    const Packed* a = left + row / kStrip * kStrip * slab + k * kStrip + row % kStrip;
                    Kernel::multiply_strips(step, a, b, buffer + j * tile.rows + i * kStrip);
                }
            }
        }
    }

    static void write_tile(const Tile& tile, Index size, Sum* buffer, Sum* out, Index stride, bool first, bool last) {
        const Index rows = size - tile.row < tile.rows ? size - tile.row : tile.rows;
        const Index cols = size - tile.col < tile.cols ? size - tile.col : tile.cols;
        for (Index j = 0; j < cols; j += kStrip) {
            const Index width = cols - j < kStrip ? cols - j : kStrip;
            for (Index i = 0; i < rows; ++i) {
                Sum* from = buffer + j * tile.rows + i * kStrip;
                Sum* to = out + (tile.row + i) * stride + tile.col + j;
                const Index row_width =
                    tile.row + i < tile.col + j + width ? tile.row + i - tile.col - j + 1 : width;  // lower half only
                if (first) {
                    for (Index c = 0; c < row_width; ++c) to[c] = from[c];
                } else {
                    for (Index c = 0; c < row_width; ++c) to[c] = from[c] += to[c];
                }
            }
            if (!last) continue;
            for (Index c = 0; c < width; ++c) {
                const Index col = tile.col + j + c;
                const Index start = col < tile.row ? 0 : col - tile.row;
                const Sum* from = buffer + j * tile.rows + c;
                Sum* to = out + col * stride + tile.row;
                for (Index i = start; i < rows; ++i) to[i] = from[i * kStrip];
            }
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
