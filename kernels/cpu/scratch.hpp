// Scratch memory of the kernels, freed when it goes out of scope.
#pragma once

#include <cstddef>

#include "cpu/pool.hpp"

// The unnamed namespace keeps one copy per source file: a copy compiled for AVX-512 must never serve portable code.
namespace {

template <class T>
class Scratch {
  public:
    Scratch() = default;
    explicit Scratch(std::ptrdiff_t count) : block_(allocate_block(static_cast<std::size_t>(count) * sizeof(T))) {}
    Scratch(Scratch&& other) noexcept : block_(other.block_) { other.block_ = {}; }
    Scratch& operator=(Scratch&& other) noexcept {
        const Block mine = block_;
        block_ = other.block_;
        other.block_ = mine;
        return *this;
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { free_block(block_); }

    T* data() const { return static_cast<T*>(block_.memory); }
    T& operator[](std::ptrdiff_t i) const { return data()[i]; }

  private:
    Block block_;
};

}  // namespace
