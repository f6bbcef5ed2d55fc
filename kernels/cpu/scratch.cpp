#include "cpu/scratch.hpp"

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {
constexpr std::size_t cache_line = 64, huge_page = std::size_t{1} << 21;
}

void* allocate_scratch(std::size_t bytes) {
    const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : cache_line;
    const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, size == 0 ? alignment : size);
    if (memory == nullptr) throw std::bad_alloc();
    prefer_huge_pages(memory, size);
    return memory;
}

void free_scratch(void* memory) noexcept { std::free(memory); }

void prefer_huge_pages(void* memory, std::size_t bytes) noexcept {
#if defined(__linux__)
    if (bytes < 2 * huge_page) return;
    const std::size_t before = (huge_page - reinterpret_cast<std::uintptr_t>(memory) % huge_page) % huge_page;
    // Advice only: a kernel without huge pages serves small ones.
    (void)madvise(static_cast<char*>(memory) + before, (bytes - before) / huge_page * huge_page, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}
