#!/usr/bin/env bash
# Everything that needs a GPU: bench/gpu.sh [compile|tests|kernels|eigen|models|peers]..., by default all of it in this
# order and in under 9 minutes. Each section has a limit of its own, writes its results as they come and takes no other
# section with it. Results go to $OUT (default bench/results): gpu-tests.log, gpu-<section>.json, gpu-<section>.txt.
# No compiled extension is needed. SCALE=2 doubles every limit (a section alone in a call has more time).
set -uo pipefail
cd "$(dirname "$0")/.."
export OUT="${OUT:-bench/results}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TRITON_DEFAULT_FP_FUSION=1
python="${PYTHON:-python3}" scale="${SCALE:-1}" failed=""
mkdir -p "$OUT"
[ $# -gt 0 ] || set -- compile tests kernels eigen models peers

# limited SECONDS COMMAND...: stopped a little after the budget that the command itself was given
limited() { timeout -k 5 $(($1 * scale)) "${@:2}"; }

gpu_tests() {
  local parallel=()
  "$python" -c 'import xdist' 2>/dev/null && parallel=(-n 8)
  # Truth is computed on the CPU, by eight processes at once.
  OMP_NUM_THREADS=2 limited 130 "$python" -m pytest -q -m gpu "${parallel[@]}" --durations=8 tests/measure/spectra tests/scanning/test_scorers.py tests/scanning/test_overlap.py tests/scanning/test_live.py \
    tests/scanning/test_independence.py tests/read/stream tests/choose/planner/test_peak_gpu.py tests/measure/ops/test_triton_*.py tests/measure/ops/test_full_precision.py \
    tests/measure/ops/test_device_graph.py tests/measure/ops/test_compile_ahead.py tests/measure/ops/test_contract.py tests/read/formats/test_scaled.py 2>&1 | tee "$OUT/gpu-tests.log"
}

for section in "$@"; do
  echo "== $section, $SECONDS s" >&2
  case "$section" in
    compile) limited 60 "$python" -m spectrum_fast.measure.ops.compile_ahead ;;
    tests) gpu_tests ;;
    kernels | eigen) limited 110 "$python" -m bench.gpu.suite "$section" --out "$OUT" --budget $((95 * scale)) ;;
    models) limited 100 "$python" -m bench.gpu.models --out "$OUT" --budget $((17 * scale)) ;;
    peers) limited 75 "$python" -m bench.gpu.peers --out "$OUT" --budget $((70 * scale)) --limit $((60 * scale)) ;;
    *) echo "bench/gpu.sh: no section $section" >&2 && false ;;
  esac || failed="$failed $section"
done
echo "== done, $SECONDS s${failed:+, FAILED:$failed}" >&2
[ -z "$failed" ]
