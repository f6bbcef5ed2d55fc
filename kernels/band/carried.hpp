// Vectors that are taken along through a reduction: x <- Q^T x, panel by panel, in float64.
#pragma once

#include "band/factor.hpp"
#include "band/kernels.hpp"
#include "band/panel.hpp"

namespace {

template <int kVectorBytes>
class Carried {
    using Tall = Panel<kVectorBytes>;
    using Factor = PanelFactor<kVectorBytes>;

  public:
    // kCarried vectors of `size` numbers, one after the other, or none (null); room for `rows` numbers each.
    Carried(double* vectors, Index size, Index rows)
        : vectors_(vectors), size_(size), data_(vectors == nullptr ? 0 : rows, kCarried) {
        for (Index c = 0; c < kCarried && vectors != nullptr; ++c)
            for (Index r = 0; r < rows; ++r) data_.at(r, c) = r < size ? vectors[c * size + r] : 0.0;
    }

    // X <- (I - V T^T V^T) X in three steps, where the first rows of V belong to those of block `first` of X. First
    // inner += V^T X of blocks [begin, end) of V,
    void multiply(const Factor& factor, Index first, Index begin, Index end, double* inner) const {
        if (vectors_ != nullptr) Tall::template add_products<false>(factor.v(), data_, first, begin, end, inner);
    }

    // then product <- -T^T times what the threads have of V^T X, with cols x cols numbers of scratch,
    void reflect(const Factor& factor, double* inner, double* product) const {
        if (vectors_ == nullptr) return;
        const Index n = factor.cols();
        factor.add_up(inner);
        multiply_small<true>(n, kCarried, -1, factor.t(), inner, product);
    }

    // and X += V times that.
    void add(const Factor& factor, Index first, Index begin, Index end, const double* product) const {
        if (vectors_ == nullptr) return;
        for (Index i = begin; i < end; ++i) data_.add_multiple(first + i, factor.v(), i, product);
    }

    void store() const {
        for (Index c = 0; c < kCarried && vectors_ != nullptr; ++c)
            for (Index r = 0; r < size_; ++r) vectors_[c * size_ + r] = data_.at(r, c);
    }

  private:
    double* vectors_;
    Index size_;
    Tall data_;
};

}  // namespace
