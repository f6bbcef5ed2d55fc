#include "cpu/pool.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string_view>
#include <utility>

#if defined(__linux__)
#include <pthread.h>
#include <sys/mman.h>
#endif

// Under AddressSanitizer nothing is kept, so that a use after free is seen.
#if defined(__SANITIZE_ADDRESS__)
#define POOL_KEEPS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_KEEPS 0
#endif
#endif
#if !defined(POOL_KEEPS) && defined(__linux__) && defined(MADV_FREE)
#define POOL_KEEPS 1
#endif

namespace {

constexpr std::size_t cache_line = 64, huge_page = std::size_t{1} << 21;

#if POOL_KEEPS
constexpr std::size_t mebibyte = std::size_t{1} << 20;

// Kept blocks, the longest kept first.
class Shelf {
  public:
    constexpr explicit Shelf(std::size_t limit) : limit_(limit) {}

    // The smallest block that holds so many bytes and at most a quarter more, if there is one.
    Block take(std::size_t bytes) {
        const std::lock_guard guard(mutex_);
        int best = count_;
        for (int i = 0; i < count_; ++i) {
            const bool fits = blocks_[i].bytes >= bytes && blocks_[i].bytes - bytes <= bytes / 4;
            if (fits && (best == count_ || blocks_[i].bytes <= blocks_[best].bytes)) best = i;
        }
        return best == count_ ? Block{} : remove(best);
    }

    // Keeps a block, in place of those that have lain longest. They are freed with the lock open: that takes a while.
    void put(Block block) {
        if (block.bytes > limit_) return std::free(block.memory);
        for (;;) {
            Block oldest;
            {
                const std::lock_guard guard(mutex_);
                if (count_ < most && kept_ + block.bytes <= limit_) {
                    blocks_[count_++] = block;
                    kept_ += block.bytes;
                    return;
                }
                oldest = remove(0);
            }
            std::free(oldest.memory);
        }
    }

    void clear() {
        for (Block block = first(); block.memory != nullptr; block = first()) std::free(block.memory);
    }

    std::size_t kept() {
        const std::lock_guard guard(mutex_);
        return kept_;
    }

    void lock() { mutex_.lock(); }
    void unlock() { mutex_.unlock(); }

  private:
    static constexpr int most = 64;

    Block first() {
        const std::lock_guard guard(mutex_);
        return count_ == 0 ? Block{} : remove(0);
    }

    Block remove(int place) {
        const Block block = blocks_[place];
        std::move(blocks_ + place + 1, blocks_ + count_, blocks_ + place);
        --count_;
        kept_ -= block.bytes;
        return block;
    }

    std::mutex mutex_;
    Block blocks_[most];
    int count_ = 0;
    std::size_t kept_ = 0, limit_;
};

// Never destroyed: tensors may outlive the module.
constinit Shelf large{256 * mebibyte}, small{16 * mebibyte};

// A child that is forked while another thread holds a lock would wait for it for ever.
[[maybe_unused]] const int at_fork = pthread_atfork(
    [] { large.lock(), small.lock(); }, [] { small.unlock(), large.unlock(); }, [] { small.unlock(), large.unlock(); });
#endif

Block take_kept([[maybe_unused]] std::size_t bytes) {
#if POOL_KEEPS
    if (bytes >= huge_page) return large.take(bytes);
    if (bytes >= kPooledBytes) return small.take(bytes);
#endif
    return {};
}

void prefer_huge_pages([[maybe_unused]] Block block) {
#if defined(__linux__)
    // Advice only: a kernel without huge pages serves small ones.
    if (block.bytes >= huge_page) (void)madvise(block.memory, block.bytes, MADV_HUGEPAGE);
#endif
}

Block allocate_anew(std::size_t bytes, std::size_t alignment) {
    void* memory = std::aligned_alloc(alignment, bytes);
    if (memory == nullptr) {  // what is kept counts where a process is limited
        release_kept();
        memory = std::aligned_alloc(alignment, bytes);
    }
    if (memory == nullptr) throw std::bad_alloc();
    prefer_huge_pages({memory, bytes});
    return {memory, bytes};
}

// Whether every block begins with NaN in all of it, as the suite wants it: no result may depend on what was there.
bool is_poisoned() {
    static const bool asked = [] {
        const char* value = std::getenv("SPECTRUM_FAST_POISON");
        return value != nullptr && std::string_view(value) == "1";
    }();
    return asked;
}

}  // namespace

Block allocate_block(std::size_t bytes) {
    const std::size_t alignment = bytes >= huge_page ? huge_page : cache_line;
    const std::size_t size = std::max((bytes + alignment - 1) / alignment, std::size_t{1}) * alignment;
    if (size < bytes) throw std::bad_alloc();
    Block block = take_kept(size);
    if (block.memory == nullptr) block = allocate_anew(size, alignment);
    if (is_poisoned()) std::memset(block.memory, 0xFF, block.bytes);
    return block;
}

void free_block(Block block) noexcept {
#if POOL_KEEPS
    // 4096 x 4096, 64 MiB in huge pages: 0.02 ms, where faulting them in takes 5. Small pages would take a tenth of
    // what they save, and as much again when they are written: of those a few are kept as they are.
    if (block.bytes >= huge_page && madvise(block.memory, block.bytes, MADV_FREE) == 0) return large.put(block);
    if (block.bytes >= kPooledBytes && block.bytes < huge_page) return small.put(block);
#endif
    std::free(block.memory);
}

std::size_t kept_bytes() noexcept {
#if POOL_KEEPS
    return large.kept() + small.kept();
#else
    return 0;
#endif
}

void release_kept() noexcept {
#if POOL_KEEPS
    large.clear();
    small.clear();
#endif
}
