"""Numerical operations on matrices of one shape: one folder an operation, every backend with one signature.

Every operation takes a batch with the leading dimension m; a single matrix is a batch of one, which costs no copy:

===========================  ===================================================  =====================================
operation                    takes                                                gives
===========================  ===================================================  =====================================
``extent.measure``           weights (m, r, c)                                    (m, 2) float64, max abs and sum w^2
``gram.gram``                weights (m, r, c), ``out_dtype``                     (m, k, k), k = min(r, c)
``gram.add_gram``            blocks (m, k, K), out (m, k, k)                      out += A A^T in place
``product.multiply``         weights (m, r, c), x (m, p, c) float64               (m, p, r) float64
``product.multiply_band``    bands (m, n, b + 1), x (m, p, n) float64             (m, p, n) float64
``band.reduce_to_band``      matrices (m, n, n), destroyed; half-width b          (m, n, b + 1)
``sturm.prepare``            bands (m, n, b + 1)                                  ``sturm.Bands``, to be sliced often
``sturm.count_below``        bands, prepared or not; shifts (m, s) float64        (m, s) int64
``sturm.log_abs_det``        bands; shifts (m, s) complex128; ``wanted`` (m, s)   (m, s) float64, 0 where not wanted
===========================  ===================================================  =====================================

Results lie where the operands lie, and nothing waits for a device. ``reference`` is readable torch and runs anywhere in
any float dtype; ``native`` is the compiled C++ for CPU tensors; ``triton`` is for CUDA tensors. Callers never import a
backend: :mod:`spectrum_fast.measure.ops.dispatch` picks it in one place, and says what is checked where.
"""
