"""Numerical operations on one matrix: one folder an operation, every backend with one signature.

``reference`` is readable torch and runs anywhere in any float dtype; ``native`` is the compiled C++ for CPU tensors;
callers never import a backend: :func:`spectrum_fast.measure.ops.dispatch.backend_module` picks it in one place.
"""
