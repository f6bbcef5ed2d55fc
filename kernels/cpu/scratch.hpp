// Scratch memory of the kernels: aligned for vectors, in huge pages where it is large, freed when it goes out of scope.
#pragma once

#include <cstddef>

// All are compiled once, for the base instruction set (cpu/scratch.cpp).
void* allocate_scratch(std::size_t bytes);
void free_scratch(void* memory) noexcept;

// Asks for huge pages where large memory that is about to be written for the first time has whole ones.
void prefer_huge_pages(void* memory, std::size_t bytes) noexcept;

// The unnamed namespace keeps one copy per source file: a copy compiled for AVX-512 must never serve portable code.
namespace {

template <class T>
class Scratch {
  public:
    Scratch() = default;
    explicit Scratch(std::ptrdiff_t count)
        : data_(static_cast<T*>(allocate_scratch(static_cast<std::size_t>(count) * sizeof(T)))) {}
    Scratch(Scratch&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Scratch& operator=(Scratch&& other) noexcept {
        T* mine = data_;
        data_ = other.data_;
        other.data_ = mine;
        return *this;
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { free_scratch(data_); }

    T* data() const { return data_; }
    T& operator[](std::ptrdiff_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
};

}  // namespace
