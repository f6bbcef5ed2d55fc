// Memory of the kernels and of the tensors that they write. What was large is kept when it is freed and given to who
// asks next for about as much: it need not be faulted in again, page by page, for every matrix.
//
// Of a large block Linux may take the pages at any time that it is short of memory (MADV_FREE). They count as resident
// until it does, and cost nothing to write again if it did not.
#pragma once

#include <cstddef>

struct Block {
    void* memory = nullptr;
    std::size_t bytes = 0;  // at least as many as were asked for
};

// glibc's first threshold for blocks that are mapped and unmapped one by one; smaller ones are left to it.
constexpr std::size_t kPooledBytes = std::size_t{128} << 10;

// Aligned for vectors, in huge pages from the size of one on; with any content. Throws std::bad_alloc.
Block allocate_block(std::size_t bytes);
void free_block(Block block) noexcept;

// Bytes that are kept, at most 256 MiB in huge pages (all that a 4096 x 14336 matrix with outliers takes is 180) and 16
// in small ones, beside what is in use; and their return to the system.
std::size_t kept_bytes() noexcept;
void release_kept() noexcept;
