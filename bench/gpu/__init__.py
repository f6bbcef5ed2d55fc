"""Benchmarks that need a GPU: see ``bench/gpu.sh`` and README.md beside it."""
