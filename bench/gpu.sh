#!/usr/bin/env bash
# What needs a GPU, in three calls, best things first: bench/gpu.sh first (280 s), second (270 s), third (240 s); without
# an argument all three in a row. Each may be cut anywhere. Two files a call go to $OUT (default bench/results): gpu-CALL.json and gpu-CALL.log.
# Where there is no .git, pass the commit: COMMIT=hash bench/gpu.sh first. SCALE=2 doubles every limit.
# No compiled extension is needed, and nothing is installed. See bench/gpu/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
COMMIT="${COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}"
[ -n "$COMMIT" ] || { echo "bench/gpu.sh: no .git here: pass COMMIT=hash" >&2; exit 2; }
export COMMIT PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TRITON_DEFAULT_FP_FUSION=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
exec "${PYTHON:-python3}" -m bench.gpu.call "$@"
