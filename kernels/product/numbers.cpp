// Products of a stored matrix with four vectors in float64, for any level: loops plain enough for the compiler to
// vectorise. Numbers are widened in registers; four rows share what is read of the vectors.
#include "cpu/level.hpp"
#include "cpu/lanes.hpp"
#include "product/kernels.hpp"

namespace {

constexpr Index kRows = 4;
constexpr Index kTransposedRows = 8;  // whose sums are read and written once

// Asks for the line that begins at column j, if one does, of a row that follows those at work: too far from them for a
// processor to foresee. Into L2: rows a power of two apart would drive each other out of the first cache.
template <class Stored>
inline void fetch(const Stored* row, Index j) {
    if (j * static_cast<Index>(sizeof(Stored)) % 64 == 0) __builtin_prefetch(row + j, 0, 2);
}

// Copied, for a reference to a vector takes it to be aligned (Clang).
inline Lanes load(const double* from) {
    Lanes lanes;
    __builtin_memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline void store(const Lanes& lanes, double* to) { __builtin_memcpy(to, &lanes, sizeof lanes); }

inline double sum_of(const Lanes& lanes) {
    double sum = 0.0;
    for (Index k = 0; k < kLanes; ++k) sum += lanes[k];
    return sum;
}

// kTile rows against four vectors.
template <class Read, Index kTile>
inline void forward_rows(const typename Read::Stored* a, Index row_stride, Index cols, Vectors x, double* out,
                         Index out_stride) {
    Lanes sums[kTile][kVectors] = {};
    Index j = 0;
    for (; j + kLanes <= cols; j += kLanes) {
        Lanes from[kVectors];
        for (Index p = 0; p < kVectors; ++p) from[p] = load(x.data + p * x.stride + j);
        for (Index r = 0; r < kTile; ++r) {
            fetch(a + (kTile + r) * row_stride, j);
            const Lanes row = widen<Read>(a + r * row_stride + j);
            for (Index p = 0; p < kVectors; ++p) sums[r][p] += row * from[p];
        }
    }
    for (Index r = 0; r < kTile; ++r)
        for (Index p = 0; p < kVectors; ++p) {
            double sum = sum_of(sums[r][p]);
            for (Index rest = j; rest < cols; ++rest)
                sum += static_cast<double>(Read::read(a[r * row_stride + rest])) * x.data[p * x.stride + rest];
            out[p * out_stride + r] += sum;
        }
}

template <class Read>
void forward(const void* data, Index row_stride, Index rows, Index cols, Vectors x, Vectors out) {
    const auto* a = static_cast<const typename Read::Stored*>(data);
    Index i = 0;
    for (; i + kRows <= rows; i += kRows)
        forward_rows<Read, kRows>(a + i * row_stride, row_stride, cols, x, out.data + i, out.stride);
    for (; i < rows; ++i) forward_rows<Read, 1>(a + i * row_stride, row_stride, cols, x, out.data + i, out.stride);
}

template <class Read, Index kTile>
inline void transposed_rows(const typename Read::Stored* a, Index row_stride, Index cols, const double* x,
                            Index x_stride, Vectors out) {
    double factors[kTile][kVectors];
    for (Index r = 0; r < kTile; ++r)
        for (Index p = 0; p < kVectors; ++p) factors[r][p] = x[p * x_stride + r];
    Index j = 0;
    for (; j + kLanes <= cols; j += kLanes) {
        for (Index r = kTile; r < 2 * kTile; ++r) fetch(a + r * row_stride, j);
        Lanes sums[kVectors];
        for (Index p = 0; p < kVectors; ++p) sums[p] = load(out.data + p * out.stride + j);
        for (Index r = 0; r < kTile; ++r) {
            const Lanes row = widen<Read>(a + r * row_stride + j);
            for (Index p = 0; p < kVectors; ++p) sums[p] += row * factors[r][p];
        }
        for (Index p = 0; p < kVectors; ++p) store(sums[p], out.data + p * out.stride + j);
    }
    for (; j < cols; ++j)
        for (Index r = 0; r < kTile; ++r) {
            const auto value = static_cast<double>(Read::read(a[r * row_stride + j]));
            for (Index p = 0; p < kVectors; ++p) out.data[p * out.stride + j] += value * factors[r][p];
        }
}

template <class Read>
void transposed(const void* data, Index row_stride, Index rows, Index cols, Vectors x, Vectors out) {
    const auto* a = static_cast<const typename Read::Stored*>(data);
    Index i = 0;
    for (; i + kTransposedRows <= rows; i += kTransposedRows)
        transposed_rows<Read, kTransposedRows>(a + i * row_stride, row_stride, cols, x.data + i, x.stride, out);
    for (; i < rows; ++i) transposed_rows<Read, 1>(a + i * row_stride, row_stride, cols, x.data + i, x.stride, out);
}

template <class Read>
constexpr ProductLoops kLoops{forward<Read>, transposed<Read>};

}  // namespace

extern constexpr ProductKernel LEVELLED(product){kLoops<ReadFloat64>, kLoops<ReadFloat32>, kLoops<ReadFloat16>,
                                                 kLoops<ReadBfloat16>};
