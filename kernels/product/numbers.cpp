// Products of a stored matrix with four vectors in float64, for any level: loops plain enough for the compiler to
// vectorise. Four rows of a block of columns go together: they share what is read of the vectors, which stays in L1.
// Numbers of 16 bits are widened to float32 first, row by row: widened on the way into a product they took as many of
// the processor's slots for vectors as the products did.
#include <type_traits>

#include "cpu/lanes.hpp"
#include "gram/transpose.hpp"
#include "product/kernels.hpp"

namespace {

constexpr Index kRows = 4;
constexpr Index kBlock = 512;  // columns: of four vectors 16 KiB

// Copied, for a reference to a vector takes it to be aligned (Clang).
inline Lanes load(const double* from) {
    Lanes lanes;
    __builtin_memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline void store(const Lanes& lanes, double* to) { __builtin_memcpy(to, &lanes, sizeof lanes); }

// kTile rows of a block, as numbers that an instruction widens to float64: where they lie, or in a buffer.
template <class Read, Index kTile>
class Rows {
    using Stored = typename Read::Stored;
    static constexpr bool kCopied = sizeof(Stored) == 2;
    using Widened = std::conditional_t<sizeof(Stored) == 8, ReadFloat64, ReadFloat32>;
    using Number = typename Widened::Stored;

  public:
    Rows(const Stored* a, Index stride, Index cols) : a_(a), stride_(stride) {
        if constexpr (kCopied)
            for (Index r = 0; r < kTile; ++r) read_row<Read>(a + r * stride, cols, buffer_ + r * kBlock);
    }

    Lanes at(Index row, Index j) const {
        if constexpr (kCopied) {
            return widen<Widened>(buffer_ + row * kBlock + j);
        } else {
            return widen<Widened>(a_ + row * stride_ + j);
        }
    }

    double one(Index row, Index j) const { return static_cast<double>(Read::read(a_[row * stride_ + j])); }

    // Runs work(j) for every whole register of columns; returns the first column after them. Meanwhile the rows that
    // follow these are asked for, a line at a time: too far from them for a processor to foresee. Into L2: rows a power
    // of two apart would drive each other out of the first cache.
    template <class Work>
    Index for_columns(Index cols, const Work& work) const {
        constexpr Index line = 64 / static_cast<Index>(sizeof(Stored)), steps = line / kLanes;
        const Stored* next = a_ + kTile * stride_;
        Index j = 0;
        for (; j + line <= cols; j += line) {
#pragma GCC unroll 8
            for (Index u = 0; u < steps; ++u) {
                for (Index r = u * kTile / steps; r < (u + 1) * kTile / steps; ++r)
                    __builtin_prefetch(next + r * stride_ + j, 0, 2);
                work(j + u * kLanes);
            }
        }
        for (; j + kLanes <= cols; j += kLanes) work(j);
        return j;
    }

  private:
    const Stored* a_;
    Index stride_;
    alignas(64) Number buffer_[kCopied ? kTile * kBlock : 1];
};

// The sum of each of kCount registers.
template <Index kCount>
inline void add_up(const Lanes* lanes, double* sums) {
    if constexpr (kCount % kLanes == 0) {
        alignas(64) double rows[kCount * kLanes];
        for (Index i = 0; i < kCount; ++i) store(lanes[i], rows + i * kLanes);
        for (Index i = 0; i < kCount; i += kLanes) SquareTranspose<double, kLanes>::add(rows + i * kLanes, sums + i);
    } else {
        for (Index i = 0; i < kCount; ++i) {
            sums[i] = 0.0;
            for (Index k = 0; k < kLanes; ++k) sums[i] += lanes[i][k];
        }
    }
}

// kTile rows of a block against four vectors.
template <class Read, Index kTile>
inline void forward_rows(const typename Read::Stored* a, Index row_stride, Index cols, const double* x, Index x_stride,
                         double* out, Index out_stride) {
    const Rows<Read, kTile> rows(a, row_stride, cols);
    Lanes sums[kVectors * kTile] = {};
    Index rest = rows.for_columns(cols, [&](Index j) __attribute__((always_inline)) {
        Lanes from[kVectors];
        for (Index p = 0; p < kVectors; ++p) from[p] = load(x + p * x_stride + j);
#pragma GCC unroll 4
        for (Index r = 0; r < kTile; ++r) {
            const Lanes row = rows.at(r, j);
#pragma GCC unroll 4
            for (Index p = 0; p < kVectors; ++p) sums[p * kTile + r] += row * from[p];
        }
    });
    alignas(64) double found[kVectors * kTile];
    add_up<kVectors * kTile>(sums, found);
    for (; rest < cols; ++rest)
        for (Index p = 0; p < kVectors; ++p)
            for (Index r = 0; r < kTile; ++r) found[p * kTile + r] += rows.one(r, rest) * x[p * x_stride + rest];
    for (Index p = 0; p < kVectors; ++p)
        for (Index r = 0; r < kTile; ++r) out[p * out_stride + r] += found[p * kTile + r];
}

template <class Read, Index kTile>
inline void transposed_rows(const typename Read::Stored* a, Index row_stride, Index cols, const double* x,
                            Index x_stride, double* out, Index out_stride) {
    const Rows<Read, kTile> rows(a, row_stride, cols);
    Lanes factors[kTile][kVectors];
    for (Index r = 0; r < kTile; ++r)
        for (Index p = 0; p < kVectors; ++p) factors[r][p] = x[p * x_stride + r] - Lanes{};
    Index rest = rows.for_columns(cols, [&](Index j) __attribute__((always_inline)) {
        Lanes sums[kVectors];
        for (Index p = 0; p < kVectors; ++p) sums[p] = load(out + p * out_stride + j);
#pragma GCC unroll 4
        for (Index r = 0; r < kTile; ++r) {
            const Lanes row = rows.at(r, j);
#pragma GCC unroll 4
            for (Index p = 0; p < kVectors; ++p) sums[p] += row * factors[r][p];
        }
        for (Index p = 0; p < kVectors; ++p) store(sums[p], out + p * out_stride + j);
    });
    for (; rest < cols; ++rest)
        for (Index r = 0; r < kTile; ++r)
            for (Index p = 0; p < kVectors; ++p) out[p * out_stride + rest] += rows.one(r, rest) * x[p * x_stride + r];
}

// Runs work(tile, row, column, columns) over blocks of columns, in each over tiles of kRows rows and what is left of
// them.
template <class Work>
inline void for_tiles(Index rows, Index cols, const Work& work) {
    for (Index j = 0; j < cols; j += kBlock) {
        const Index width = cols - j < kBlock ? cols - j : kBlock;
        Index i = 0;
        for (; i + kRows <= rows; i += kRows) work(std::integral_constant<Index, kRows>{}, i, j, width);
        for (; i < rows; ++i) work(std::integral_constant<Index, 1>{}, i, j, width);
    }
}

template <class Read>
void forward(const void* data, Index row_stride, Index rows, Index cols, Vectors x, Vectors out) {
    const auto* a = static_cast<const typename Read::Stored*>(data);
    for_tiles(rows, cols, [&](auto tile, Index i, Index j, Index width) {
        forward_rows<Read, tile>(a + i * row_stride + j, row_stride, width, x.data + j, x.stride, out.data + i,
                                 out.stride);
    });
}

template <class Read>
void transposed(const void* data, Index row_stride, Index rows, Index cols, Vectors x, Vectors out) {
    const auto* a = static_cast<const typename Read::Stored*>(data);
    for_tiles(rows, cols, [&](auto tile, Index i, Index j, Index width) {
        transposed_rows<Read, tile>(a + i * row_stride + j, row_stride, width, x.data + i, x.stride, out.data + j,
                                    out.stride);
    });
}

template <class Read>
constexpr ProductLoops kLoops{forward<Read>, transposed<Read>};

}  // namespace

extern constexpr ProductKernel LEVELLED(product){kLoops<ReadFloat64>, kLoops<ReadFloat32>, kLoops<ReadFloat16>,
                                                 kLoops<ReadBfloat16>};
