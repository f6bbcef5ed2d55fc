#!/usr/bin/env bash
# The kernels for aarch64, cross-compiled and emulated: every instruction set, each result against plain float64 loops.
#   tests/native/arm.sh [CASES]    (Debian: apt install g++-aarch64-linux-gnu qemu-user)
set -euo pipefail
cd "$(dirname "$0")/../.."
cases=${1:-20}
build=build/native-arm
mkdir -p "$build"
{
    cmake -S . -B "$build" -DSPECTRUM_FAST_SANITIZER=none -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux \
        -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ &&
        cmake --build "$build" -j2
} >"$build/build.log" 2>&1 || { tail -30 "$build/build.log" >&2; exit 1; }
for level in portable neon neon_bf16; do
    SPECTRUM_FAST_ISA=$level qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max,sve=off "$build/drive" "$cases" "${SEED:-1}"
done
