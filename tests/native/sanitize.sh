#!/usr/bin/env bash
# The compiled kernels under sanitizers, every instruction set that this processor has.
#   tests/native/sanitize.sh address [CASES]   AddressSanitizer and UndefinedBehaviorSanitizer (GCC or Clang)
#   tests/native/sanitize.sh thread [CASES]    ThreadSanitizer (Clang with libomp and Archer: apt install clang-14 libomp-14-dev)
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=${1:?address or thread}
cases=${2:-100}
build=build/sanitize-$kind
case $kind in
address)
    cmake -S . -B "$build" -DSPECTRUM_FAST_SANITIZER=address,undefined -DCMAKE_BUILD_TYPE=Release >/dev/null
    export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
    ;;
thread)
    clang=${CLANGXX:-$(command -v clang++ || command -v clang++-14)}
    runtime=$("$clang" -print-file-name=libarcher.so)
    [ -e "$runtime" ] || runtime=$(dirname "$(readlink -f "$clang")")/../lib/libarcher.so
    [ -e "$runtime" ] || { echo "sanitize: expected Archer (libarcher.so of libomp), found none; without it every OpenMP barrier reads as a race" >&2; exit 2; }
    cmake -S . -B "$build" -DSPECTRUM_FAST_SANITIZER=thread -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$clang" >/dev/null
    export OMP_TOOL_LIBRARIES=$runtime TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 OMP_NUM_THREADS=4
    ;;
*) echo "sanitize: expected address or thread, found $kind" >&2; exit 2 ;;
esac
cmake --build "$build" -j2 >"$build/build.log" 2>&1 || { tail -30 "$build/build.log" >&2; exit 1; }
for level in portable avx2 avx512 avx512_bf16; do
    SPECTRUM_FAST_ISA=$level "$build/drive" "$cases" "${SEED:-1}"
done
