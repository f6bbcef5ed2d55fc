// The symmetric update of rank 2 r: G + V Z^T + Z V^T in float64, rounded to float32 at the end; the lower half is
// computed and mirrored.
//
// The result takes the first half of G's own memory. Rows of tiles come in blocks, all threads to each, that end twice
// as far down as they begin: what is written of one lies where G had rows before it. The first is a single tile.
#pragma once

#include "gram/symmetric_product.hpp"

namespace {

// Kernel: a micro-kernel in float64.
template <class Kernel>
class SymmetricUpdate : SymmetricProduct<Kernel, NumberPacker<Kernel>, float> {
    using Product = SymmetricProduct<Kernel, NumberPacker<Kernel>, float>;
    using typename Product::Tile;
    static constexpr Index kStrip = Kernel::kStrip, kEdge = 64;

  public:
    // gram (v.rows x v.rows, row-major, contiguous); z is of the shape of v.
    static void run(double* gram, const MatrixView& v, const MatrixView& z) {
        const Index size = v.rows, rank = v.cols, rows = round_up(size, kStrip), last = (rows + kEdge - 1) / kEdge;
        const int threads = omp_get_max_threads();
        Scratch<double> strips(2 * rows * rank), buffers(threads * kEdge * kEdge);
        double *const of_v = strips.data(), *const of_z = of_v + rows * rank;
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (Index row = 0; row < rows; row += kStrip) {
                pack_numbers<double, kStrip>(v, row, 0, rank, of_v + row * rank);
                pack_numbers<double, kStrip>(z, row, 0, rank, of_z + row * rank);
            }
            double* buffer = buffers.data() + omp_get_thread_num() * kEdge * kEdge;
            for (Index begin = 0, end = 1; begin < last; begin = end, end = 2 * end < last ? 2 * end : last) {
#pragma omp for schedule(dynamic, 1)
                for (Index t = begin * (begin + 1) / 2; t < end * (end + 1) / 2; ++t) {
                    const Tile tile = Product::tile_at(t, kEdge, rows);
                    update_tile(tile, gram, size, rank, of_v, of_z, buffer);
                    Product::write_tile(tile, size, buffer, reinterpret_cast<float*>(gram), size, true, true);
                }
            }
        }
    }

  private:
    static void update_tile(const Tile& tile, const double* gram, Index size, Index rank, const double* v,
                            const double* z, double* buffer) {
        Ahead vectors(v, 0, z, 0);  // they stay in the caches
        for (Index col = tile.col; col < tile.col + tile.cols; col += kStrip) {
            for (Index row = tile.row < col ? col : tile.row; row < tile.row + tile.rows; row += kStrip) {
                double* block = buffer + (col - tile.col) * tile.rows + (row - tile.row) * kStrip;
                load(gram + row * size + col, size, size - row, size - col, block);
                Product::add_product(false, rank, v + row * rank, z + col * rank, row == col, block, vectors);
                Product::add_product(false, rank, z + row * rank, v + col * rank, row == col, block, vectors);
            }
        }
    }

    // A block of `rows` x `cols` numbers at most, zeros past them; the one below it is asked for.
    static void load(const double* from, Index stride, Index rows, Index cols, double* block) {
        for (Index r = 0; r < kStrip; ++r) {
            for (Index c = 0; c < kStrip; c += 8) __builtin_prefetch(from + (kStrip + r) * stride + c);
            for (Index c = 0; c < kStrip; ++c)
                block[r * kStrip + c] = r < rows && c < cols ? from[r * stride + c] : 0.0;
        }
    }
};

}  // namespace
