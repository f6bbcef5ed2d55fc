"""Compile Triton kernels for a GPU that is not there and read what they need of it.

``pytest -s tests/measure/ops/test_triton_compile.py`` prints the whole table.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SHARED_LIMIT_BYTES = {80: 163 * 1024, 90: 227 * 1024}
"""Shared memory of one thread block at most, by compute capability (CUDA C++ Programming Guide, table of features)."""

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_JUMP = re.compile(r"\bBRA\b.*?(\.L_x_\d+)")


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel needs.

    Attributes:
        registers: a thread.
        stack_bytes: a thread, local memory: spills or indexed arrays.
        local_bytes: a thread, further local memory.
        shared_bytes: a thread block.
        cubin: the machine code.
        ttgir: the program before it becomes instructions.
        ptx: the program as the assembler gets it.
    """

    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    cubin: Path
    ttgir: str
    ptx: str

    @cached_property
    def sass(self) -> frozenset[str]:
        """Names of the machine instructions in it, to see which matrix unit serves it."""
        return frozenset(re.findall(r"\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]+)", self._code))

    @cached_property
    def loop(self) -> int:
        """Machine instructions of its longest innermost loop."""
        return max((len(body) for body in _innermost_loops(self._code)), default=0)

    @cached_property
    def _code(self) -> str:
        """Only for whoever asks: the disassembler takes a third of a second."""
        return _run(_TOOLS / "nvdisasm", "-c", "-ndf", self.cubin)

    def long_tensor_core_sums(self) -> list[str]:
        """Float32 products that are added to a sum of the loop around them inside the tensor cores."""
        products = [line for line in self.ttgir.splitlines() if re.search(r"tt\.dot |warp_group_dot ", line)]
        return [line for line in products if re.search(r"_?dot %\S+, %\S+, %arg\d+.*xf32", line)]

    def copies_in_flight(self) -> list[int]:
        """Copies to shared memory still under way where a loop goes on, for each of its waits; in order."""
        inside = re.split(r"scf\.for", self.ttgir)[1].split("scf.yield")[0]
        return [int(count) for count in re.findall(r"async_wait .*?num = (\d+)", inside)]

    def line(self, name: str, capability: int, warps: int) -> str:
        """One line of the resource table."""
        unit = next((op for op in ("HGMMA", "QGMMA", "HMMA", "DMMA") if op in self.sass), "-")
        return (
            f"{name:<34} sm_{capability} warps {warps:>2}  registers {self.registers:>3}  spills "
            f"{self.stack_bytes + self.local_bytes:>4} B  shared {self.shared_bytes:>6} B  loop {self.loop:>4}  {unit}"
        )


def compile_kernel(kernel, signature: dict, constants: dict, options: dict, capability: int, folder: Path) -> Resources:
    """Compile without a driver.

    Args:
        kernel: a ``triton.jit`` function.
        signature: argument name to type (``"*fp32"``, ``"i32"``); constants may be left out.
        constants: values of the ``tl.constexpr`` arguments.
        options: launch options (``num_warps``, ``num_stages``).
        capability: 80 or 90.
        folder: where the machine code is put.
    """
    full = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    # What the launcher finds out by itself: pointers and sizes divisible by 16.
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(kernel.arg_names)
        if full[name].startswith("*") or name in constants.get("DIVISIBLE", ())
    }
    constants = {name: value for name, value in constants.items() if name != "DIVISIBLE"}
    source = ASTSource(fn=kernel, signature=full, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = folder / f"{compiled.hash}.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage = _run(_TOOLS / "cuobjdump", "--dump-resource-usage", cubin)
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    programs = (compiled.asm["ttgir"], compiled.asm["ptx"])
    return Resources(found["REG"], found["STACK"], found["LOCAL"], compiled.metadata.shared, cubin, *programs)


def _innermost_loops(code: str) -> list[list[str]]:
    """Bodies of the loops that hold no other: from a label to the branch back to it."""
    labels: dict[str, int] = {}
    found: list[str] = []
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(found)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            found.append(instruction[1])
    jumps = [(place, _JUMP.search(text)) for place, text in enumerate(found)]
    ends = [(labels.get(jump[1], len(found)), place) for place, jump in jumps if jump]
    loops = [(begin, end) for begin, end in ends if begin <= end]
    inner = [
        (begin, end)
        for begin, end in loops
        if not any(begin <= other[0] and other[1] <= end and other != (begin, end) for other in loops)
    ]
    return [found[begin : end + 1] for begin, end in inner]


def _run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
