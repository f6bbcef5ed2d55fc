"""A CUDA device that computes on the CPU: what a GPU would refuse is refused, and what it would wait for is counted.

No kernel is measured or proved by it (the interpreter and the compiler do that). What it proves is everything around
the kernels, in the code that a GPU runs, to the letter: that no tensor of the host meets one of the device, that the
host waits where it is said to and nowhere else, that memory is given back, that copies have arrived before they are
used, and that the GPU's own tests are right themselves.

=================  ====================================================================================
``tensors.py``     tensors that say ``cuda:0`` and keep their numbers on the CPU; every operation goes through here
``creation.py``    the ways that lead from the host to the device and do not pass the dispatcher
``waits.py``       operations for which the host waits for the device: counted, warned of or refused as torch does
``memory.py``      bytes that are alive on the device, the most there ever were, and a limit
``streams.py``     streams and events; what one stream copies or writes no other uses before somebody has waited for it
``graphs.py``      graphs: what is captured, and replayed
``kernels.py``     Triton's launches, in its interpreter
``runtime.py``     the rest of ``torch.cuda``
=================  ====================================================================================

A process is emulated from its start to its end: ``TRITON_INTERPRET=1 EMULATED_CUDA=1 python -m pytest -m gpu ...``.
"""

from __future__ import annotations

import os

ASKED_FOR = os.environ.get("EMULATED_CUDA") == "1"
"""This process is to have an emulated device."""


def install() -> None:
    """Give this process the device; it cannot be taken away again."""
    from emulated_cuda import creation, graphs, guard, kernels, runtime, tensors

    for part in (guard, tensors, creation, graphs, kernels, runtime):
        part.install()
