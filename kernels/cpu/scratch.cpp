#include "cpu/scratch.hpp"

#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

void* allocate_scratch(std::size_t bytes) {
    constexpr std::size_t cache_line = 64, huge_page = std::size_t{1} << 21;
    const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : cache_line;
    const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, size == 0 ? alignment : size);
    if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    // Advice only: a kernel without huge pages serves small ones.
    if (alignment == huge_page) (void)madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

void free_scratch(void* memory) noexcept { std::free(memory); }
