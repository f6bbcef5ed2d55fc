// The micro-kernel over pairs of bfloat16 that belongs to the level of this file, and its packing.
#pragma once

#if defined(KERNEL_IS_avx512_bf16)

#include "gram/pair_kernel.hpp"

namespace {
using LevelKernel = PairKernel;
using LevelPacker = PairPacker;
}  // namespace

#elif defined(KERNEL_IS_neon_bf16)

#include "gram/neon_pair_kernel.hpp"

namespace {
using LevelKernel = NeonPairKernel;
using LevelPacker = NeonPairPacker;
}  // namespace

#else

#include "gram/tile_kernel.hpp"
#if defined(KERNEL_IS_amx)
#include "gram/processor_tiles.hpp"
#else
#include "gram/model_tiles.hpp"
#endif

namespace {
using LevelKernel = TileKernel<Tiles>;
using LevelPacker = TilePacker<Tiles>;
}  // namespace

#endif
