// Calls every kernel on random operands of awkward shapes, for the sanitizers: no Python, and each result is compared
// with a plain loop, so that a wrong number is found as well as a wrong access. Usage: drive CASES SEED
#include <algorithm>
#include <atomic>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "band/kernels.hpp"
#include "cpu/features.hpp"
#include "cpu/pool.hpp"
#include "decode/decode.hpp"
#include "digest/digest.hpp"
#include "gram/kernels.hpp"
#include "product/product.hpp"
#include "sturm/slice.hpp"
#include "values/inverse.hpp"
#include "values/values.hpp"

namespace {

using Rng = std::mt19937_64;

Index draw(Rng& rng, Index low, Index high) { return std::uniform_int_distribution<Index>(low, high)(rng); }

void require(bool good, const char* what, Index a, Index b) {
    if (good) return;
    std::fprintf(stderr, "drive: %s is wrong at sizes %td, %td\n", what, a, b);
    std::exit(1);
}

std::uint16_t to_bfloat16(float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>(bits >> 16);
}

float from_bfloat16(std::uint16_t value) {
    const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
    float out;
    __builtin_memcpy(&out, &bits, sizeof out);
    return out;
}

// Entries of exactly the view's extent: one element past it is past the allocation.
template <class T>
void check_gram(Rng& rng, Element element) {
    const Index rows = draw(rng, 1, 90), cols = draw(rng, rows, 300);
    const bool by_columns = rng() & 1U;
    std::vector<T> data(static_cast<std::size_t>(rows * cols));
    std::vector<double> wide(data.size());
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < data.size(); ++i) {
        const float value = normal(rng);
        if constexpr (sizeof(T) == 2) {
            data[i] = to_bfloat16(value);
            wide[i] = static_cast<double>(from_bfloat16(data[i]));
        } else {
            data[i] = value;
            wide[i] = static_cast<double>(value);
        }
    }
    const MatrixView view{data.data(), element, rows, cols, by_columns ? 1 : cols, by_columns ? rows : 1};
    const GramKernel& kernel = choose_gram_kernel(element);
    std::vector<double> exact(static_cast<std::size_t>(rows * rows)), out64(exact.size());
    for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < rows; ++j)
            for (Index k = 0; k < cols; ++k)
                exact[i * rows + j] +=
                    wide[i * view.row_stride + k * view.col_stride] * wide[j * view.row_stride + k * view.col_stride];
    kernel.to_float64(view, out64.data(), false);
    for (std::size_t i = 0; i < exact.size(); ++i)
        require(std::fabs(out64[i] - exact[i]) <= 1e-10 * static_cast<double>(cols), "float64 Gram", rows, cols);
    kernel.to_float64(view, out64.data(), true);
    for (std::size_t i = 0; i < exact.size(); ++i)
        require(std::fabs(out64[i] - 2 * exact[i]) <= 2e-10 * static_cast<double>(cols), "added Gram", rows, cols);
    if (element == Element::float64) {
        const Index rank = std::min<Index>(rows, 40);
        const MatrixView some{data.data(), element, rows, rank, view.row_stride, view.col_stride};
        std::vector<double> room = out64;
        kernel.update(room.data(), some, some);
        const float* updated = reinterpret_cast<const float*>(room.data());
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < rows; ++j) {
                double expected = out64[i * rows + j];
                for (Index k = 0; k < rank; ++k)
                    expected += 2 * wide[i * view.row_stride + k * view.col_stride] *
                                wide[j * view.row_stride + k * view.col_stride];
                require(std::fabs(updated[i * rows + j] - expected) <= 1e-4 * static_cast<double>(cols), "update", rows,
                        cols);
            }
        return;
    }
    std::vector<float> out32(exact.size());
    kernel.to_float32(view, out32.data(), false);
    for (std::size_t i = 0; i < exact.size(); ++i)
        require(std::fabs(out32[i] - exact[i]) <= 1e-4 * static_cast<double>(cols), "float32 Gram", rows, cols);
}

template <class T>
void check_band(Rng& rng, bool large) {
    const Index n = large ? draw(rng, 770, 860) : draw(rng, 1, 200),
                b = draw(rng, 1, std::max<Index>(1, std::min<Index>(70, n)));
    std::vector<T> matrix(static_cast<std::size_t>(n * n)), band(static_cast<std::size_t>(n * (b + 1)));
    std::normal_distribution<double> normal;
    double trace = 0, norm = 0;
    for (Index i = 0; i < n; ++i)
        for (Index j = 0; j <= i; ++j) {
            const T value = static_cast<T>(normal(rng));
            matrix[i * n + j] = matrix[j * n + i] = value;
            norm += (i == j ? 1.0 : 2.0) * static_cast<double>(value) * static_cast<double>(value);
            if (i == j) trace += static_cast<double>(value);
        }
    std::vector<double> carried(static_cast<std::size_t>(rng() & 1U ? kCarried * n : 0));
    for (double& x : carried) x = normal(rng);
    const std::vector<double> before = carried;
    const BandTask<T> task{matrix.data(), n, b, band.data(), carried.empty() ? nullptr : carried.data(), matrix.data()};
    const BandKernel kernel = choose_band_kernel(Product::automatic);
    if constexpr (sizeof(T) == 4) {
        kernel.float32(task);
    } else {
        kernel.float64(task);
    }
    double band_trace = 0, band_norm = 0;
    for (Index j = 0; j < n; ++j)
        for (Index d = 0; d <= b; ++d) {
            const double value = static_cast<double>(band[j * (b + 1) + d]);
            band_norm += (d == 0 ? 1.0 : 2.0) * value * value;
            if (d == 0) band_trace += value;
        }
    const double tolerance = (sizeof(T) == 4 ? 1e-4 : 1e-11) * std::sqrt(norm);
    require(std::fabs(band_trace - trace) <= tolerance * 10, "trace of the band", n, b);
    require(std::fabs(std::sqrt(band_norm) - std::sqrt(norm)) <= tolerance, "norm of the band", n, b);
    for (std::size_t c = 0; c + 1 < carried.size() / static_cast<std::size_t>(n); ++c) {  // turned, they keep products
        double was = 0, is = 0;
        for (Index i = c * n; i < (static_cast<Index>(c) + 1) * n; ++i) {
            was += before[i] * before[i + n];
            is += carried[i] * carried[i + n];
        }
        require(std::fabs(was - is) <= 1e-10 * static_cast<double>(n), "products of carried vectors", n, b);
    }
    if (carried.empty()) return;
    turn_back(matrix.data(), n, b, carried.data(), kCarried);
    for (std::size_t i = 0; i < carried.size(); ++i)
        require(std::fabs(carried[i] - before[i]) <= tolerance + 1e-9, "vectors turned back", n, b);
}

// A diagonal matrix dressed as a band: counts and log-determinants are known exactly.
template <class T>
void check_sturm(Rng& rng) {
    const Index n = draw(rng, 1, 300), width = draw(rng, 1, 70), count = draw(rng, 0, 100);
    std::vector<T> band(static_cast<std::size_t>(n * width));
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    std::vector<double> diagonal(static_cast<std::size_t>(n));
    for (Index j = 0; j < n; ++j) {
        band[j * width] = static_cast<T>(uniform(rng));
        diagonal[j] = static_cast<double>(band[j * width]);
    }
    std::vector<double> shifts(static_cast<std::size_t>(count));
    for (double& x : shifts) x = uniform(rng) * 1.5;
    if (count > 3) shifts[1] = HUGE_VAL, shifts[2] = -HUGE_VAL;
    std::vector<std::int64_t> below(shifts.size());
    count_below(band.data(), n, width, shifts.data(), count, below.data());
    for (std::size_t s = 0; s < shifts.size(); ++s) {
        std::int64_t least = 0, most = 0;
        for (const double value : diagonal) {
            least += value < shifts[s] - 1e-5;
            most += value < shifts[s] + 1e-5;
        }
        require(least <= below[s] && below[s] <= most, "count", n, width);
    }
    const double largest = *std::max_element(diagonal.begin(), diagonal.end());
    std::vector<double> lo(2, 0.0), hi(2, 2.0);
    const std::vector<double> enough{1e-3, 1e-4};
    const std::vector<std::int64_t> ranks{n - 1, n - 1};
    narrow(band.data(), n, width, lo.data(), hi.data(), ranks.data(), enough.data(), 2);
    for (std::size_t k = 0; k < 2; ++k) {
        require(hi[k] - lo[k] <= enough[k], "narrow", n, width);
        require(largest < 1e-5 || (lo[k] * lo[k] <= largest + 1e-5 && largest <= hi[k] * hi[k] + 1e-5), "bracket", n,
                width);
    }
    std::vector<std::complex<double>> points(shifts.size());
    std::vector<double> values(shifts.size());
    const std::unique_ptr<bool[]> wanted(new bool[shifts.size() + 1]);
    for (std::size_t s = 0; s < points.size(); ++s) {
        const double beside = std::fabs(uniform(rng));
        points[s] =
            s % 3 == 0 ? std::complex<double>(-1.1 - beside, 0.0) : std::complex<double>(shifts[s], 0.1 + beside);
        wanted[s] = std::isfinite(points[s].real()) && rng() % 3 != 0;
    }
    log_abs_det(band.data(), n, width, points.data(), count, values.data(), wanted.get());
    for (std::size_t s = 0; s < points.size(); ++s) {
        double exact = 0;
        for (const double value : diagonal)
            if (wanted[s]) exact += std::log(std::abs(value - points[s]));
        require(std::abs(values[s] - exact) <= 1e-3 * static_cast<double>(n), "log-determinant", n, width);
    }
}

// Ragged blocks, groups cut short, buffers of the exact size: every value against its definition.
void check_decode(Rng& rng) {
    std::uniform_int_distribution<std::int64_t> side(1, 70);
    std::uniform_int_distribution<int> byte(0, 255);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::int64_t size) {
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(size));
        for (auto& code : codes) code = static_cast<std::uint8_t>(byte(rng));
        return codes;
    };
    const auto draw = [&](std::int64_t size) {
        std::vector<float> values(static_cast<std::size_t>(size));
        for (auto& value : values) value = normal(rng);
        return values;
    };
    const ScaledBlocks blocks{side(rng), side(rng), side(rng), side(rng)};
    const std::int64_t across = (blocks.columns + blocks.block_columns - 1) / blocks.block_columns;
    const std::int64_t grid = (blocks.rows + blocks.block_rows - 1) / blocks.block_rows * across;
    const auto codes = fill(blocks.rows * blocks.columns);
    const auto table = draw(256), scales = draw(grid), zeros = draw(grid);
    std::vector<float> out(codes.size());
    decode_scaled(blocks, codes.data(), table.data(), scales.data(), zeros.data(), out.data());
    for (std::int64_t i = 0; i < blocks.rows * blocks.columns; ++i) {
        const auto block = i / blocks.columns / blocks.block_rows * across + i % blocks.columns / blocks.block_columns;
        require(out[i] == (table[codes[i]] - zeros[block]) * scales[block], "scaled", blocks.rows, blocks.columns);
    }

    NibbleGroups groups{side(rng), side(rng) % 4 + 1, 2 * side(rng), 0, 0, 0, byte(rng) % 2 == 0};
    groups.stride = groups.groups * groups.width / 2;
    groups.scale_stride = groups.groups;
    groups.count = groups.rows * groups.groups * groups.width - side(rng) % groups.width;
    const auto packed = fill((groups.count + 1) / 2);
    const auto sixteen = draw(16), group_scales = draw(groups.rows * groups.groups);
    out.assign(static_cast<std::size_t>(groups.count), 0);
    decode_nibbles(groups, packed.data(), sixteen.data(), group_scales.data(), nullptr, out.data());
    for (std::int64_t i = 0; i < groups.count; ++i) {
        const int code = packed[i / 2] >> (groups.low_first == (i % 2 == 0) ? 0 : 4) & 15;
        require(out[i] == (sixteen[code] - 0.0F) * group_scales[i / groups.width], "nibbles", groups.rows,
                groups.width);
    }

    const std::int64_t count = side(rng);
    const auto blocks32 = fill(16 * count), exponents = fill(count);
    std::vector<std::uint16_t> tables(4096), halves(static_cast<std::size_t>(32 * count));
    for (auto& entry : tables) entry = static_cast<std::uint16_t>(byte(rng) << 8 | byte(rng));
    decode_groups(count, blocks32.data(), exponents.data(), tables.data(), halves.data());
    for (std::int64_t i = 0; i < 32 * count; ++i) {
        const int code = blocks32[i / 2] >> (i % 2 == 0 ? 0 : 4) & 15;
        require(halves[i] == tables[16 * exponents[i / 32] + code], "groups of 32", count, 32);
    }
}

// What is refused must be refused before anything is read or written past its end.
void check_refusals() {
    const std::vector<double> band{1.0, std::nan("")}, shifts{0.0};
    std::vector<std::int64_t> below(1);
    bool refused = false;
    try {
        count_below(band.data(), 2, 1, shifts.data(), 1, below.data());
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    require(refused, "NaN in a band", 2, 1);
}

// A digest is the same whichever message it is computed beside (tests/read/stream/test_digests.py knows the numbers).
void check_digests(Rng& rng) {
    constexpr int count = 20;
    std::vector<std::uint8_t> bytes[count];
    Message together[count];
    for (int i = 0; i < count; ++i) {
        bytes[i].resize(static_cast<std::size_t>(draw(rng, 0, 300)));
        for (auto& byte : bytes[i]) byte = static_cast<std::uint8_t>(rng());
        together[i] = {bytes[i].data(), std::ssize(bytes[i]), {}};
    }
    for (const DigestKernel& kernel : digest_kernels()) {
        kernel.hash(together, count);
        for (const Message& one : together) {
            Message alone{one.bytes, one.size, {}};
            kernel.hash(&alone, 1);
            require(std::equal(alone.digest, alone.digest + 32, one.digest), "a digest", one.size, together[0].size);
        }
    }
}

// No two threads hold one block at a time, of any size, whichever are kept; and a child that is forked meanwhile gets
// one.
void check_pool(std::uint64_t seed) {
    std::vector<std::thread> threads;
    std::atomic<bool> done = false;
    for (unsigned char mark = 1; mark <= 3; ++mark)
        threads.emplace_back([mark, seed, &done] {
            Rng rng(seed + mark);
            while (!done) {
                const Index bytes = draw(rng, 1, 4) * static_cast<Index>(kPooledBytes) * (rng() % 8 == 0 ? 16 : 1);
                const Block block = allocate_block(static_cast<std::size_t>(bytes));
                auto* const data = static_cast<volatile unsigned char*>(block.memory);
                for (Index i = 0; i < bytes; i += 65536) data[i] = mark;
                for (Index i = 0; i < bytes; i += 65536) require(data[i] == mark, "a block's content", bytes, i);
                free_block(block);
            }
        });
#if defined(__linux__)
    for (int i = 0; i < 20; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);  // which ends a child that waits for ever
            free_block(allocate_block(kPooledBytes));
            _exit(0);
        }
        int status = 1;
        require(waitpid(child, &status, 0) == child && status == 0, "a child's block", i, status);
    }
#endif
    done = true;
    for (std::thread& thread : threads) thread.join();
    release_kept();
    require(kept_bytes() == 0, "what is kept after its return", 0, 0);
}

}  // namespace

// Trace and norm of a band are those of its eigenvalues, and the eigenvector of one of these is one.
void check_values(Rng& rng) {
    const Index n = draw(rng, 1, 200), half_width = draw(rng, 0, 64);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    std::vector<double> band(static_cast<std::size_t>(n * (half_width + 1))), values(static_cast<std::size_t>(n));
    double trace = 0.0, squares = 0.0;
    for (Index j = 0; j < n; ++j)
        for (Index d = 0; d <= half_width && j + d < n; ++d) {
            const double entry = band[j * (half_width + 1) + d] = uniform(rng);
            trace += d == 0 ? entry : 0.0;
            squares += (d == 0 ? 1 : 2) * entry * entry;
        }
    band_values(band.data(), n, half_width, 1e-12, values.data());
    for (const double value : values) {
        trace -= value;
        squares -= value * value;
    }
    require(std::abs(trace) <= 1e-8 && std::abs(squares) <= 1e-6, "values", n, half_width);
    std::vector<double> vector(static_cast<std::size_t>(n), 1.0);
    const double shift = values[static_cast<std::size_t>(n / 2)] + 1e-9;
    iterate_inverse(band.data(), n, half_width, &shift, 1, 3, vector.data());
    for (Index i = 0; i < n; ++i) {
        double residual = -shift * vector[i];
        for (Index j = std::max<Index>(0, i - half_width); j <= std::min(n - 1, i + half_width); ++j)
            residual += band[std::min(i, j) * (half_width + 1) + std::abs(i - j)] * vector[j];
        require(std::abs(residual) <= 1e-5, "eigenvector", n, half_width);
    }
}

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 100;
    Rng rng(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
    check_refusals();
    check_pool(rng());
    for (int i = 0; i < cases; ++i) {
        check_gram<float>(rng, Element::float32);
        check_gram<double>(rng, Element::float64);
        check_gram<std::uint16_t>(rng, Element::bfloat16);
        check_band<float>(rng, i % 20 == 0);
        check_band<double>(rng, i % 20 == 10);
        check_sturm<float>(rng);
        check_sturm<double>(rng);
        check_values(rng);
        check_digests(rng);
        check_decode(rng);
    }
    std::printf("%d rounds of every kernel, %s and %s\n", cases, choose_gram_kernel(Element::bfloat16).name,
                sturm_kernel_name());
}
