"""Benchmarks: model-shaped checkpoints, the peers' way as baseline, results with their machine."""
