#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under 9 minutes: tests first, then benchmarks.
# Writes gpu_tests.log, gpu.json and gpu.txt to $OUT (default bench/results). No compiled extension is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-bench/results}"
mkdir -p "$out"
python="${PYTHON:-python3}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TRITON_DEFAULT_FP_FUSION=1
timeout 160 "$python" -m pytest -q -m gpu tests/spectra tests/scanning/test_scorers.py tests/stream tests/planner/test_peak_gpu.py tests/ops/test_triton_*.py 2>&1 | tee "$out/gpu_tests.log"
timeout 240 "$python" bench/gpu_suite.py --out "$out" "$@"
timeout 135 "$python" bench/gpu_scan.py --out "$out" --budget 40 "$@"
