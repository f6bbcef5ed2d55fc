"""How much memory a training run will take on each GPU, told from the headers of its checkpoint.

Nothing is loaded: shapes come from the safetensors headers, sizes of the architecture from ``config.json``, and the
rules of partition from DeepSpeed (:mod:`spectrum_fast.choose.planner.states`).
"""
