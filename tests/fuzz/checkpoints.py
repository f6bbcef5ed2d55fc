"""Whole scans of checkpoints that were tampered with: ``python tests/fuzz/checkpoints.py --mutants 100000``.

A mutant is a small checkpoint of one of the formats with one to four changes: shapes, types, companions, numbers,
names, the header's bytes, the index, the configuration. It follows from a seed and a number alone: ``--only
SEED:NUMBER`` makes and scans the same one again, with ``--keep FOLDER`` for a look at its files. ``--state FILE`` goes
on where an interrupted campaign was.

The oracle: the scan ends well, or with some tensors failed, or with one error of this package (exit codes 0, 1, 2); its
file loads as what was returned; no tensor failed by a fault of this program; memory grew by less than a limit.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import spectrum_fast as sf
from spectrum_fast.errors import SpectrumFastError

from support.gguf_files import GgufTensor, random_tensor, write_gguf

LIMIT_BYTES = 256 << 20
"""Growth of the resident memory that a mutant may cause: its files have a few kilobytes, the buffer ten megabytes."""
_LONGEST_WORDS = 20_000
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a file system in memory, where there is one

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}
BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "U64": 64, "U32": 32, "F8_E8M0": 8, "F4": 4}
ODD_EXTENTS = (0, 1, 2, 3, 7, 2**31, 2**32 + 1, 2**62, 2**63, 10**30, 10**400)
ODD_VALUES: tuple[Any, ...] = (
    None,
    0,
    1,
    -1,
    3,
    2**62,
    10**400,
    0.5,
    -0.0,
    1e308,
    "",
    "x",
    "nf4",
    [],
    {},
    True,
    [1, 2],
)
ODD_NAMES = ("", ".", "..", "weight", "a\nb", "\u202e", "é" * 300, "9" * 5000, "layers.0", "model.layers.0.q.weight")
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, 1e-45, 6e4, 2.0**-14, 1.0)


@dataclass
class Made:
    """A checkpoint before it is written.

    Attributes:
        tensors: name -> type, shape and bytes.
        config: content of ``config.json``; None for no such file.
        index: whether every tensor has a shard of its own, listed in an index.
        gguf: the architecture of a GGUF file that all of it is; empty for safetensors.
        options: of the scan.
        rewrite: changes of the bytes of files, by their names.
    """

    tensors: dict[str, tuple[str, list[int], bytes]] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    index: bool = False
    gguf: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    rewrite: list[Callable[[str, bytes], bytes]] = field(default_factory=list)

    def add(self, name: str, dtype: str, shape: list[int], draw: random.Random, content: bytes | None = None) -> None:
        """A tensor of the given bytes, or of random ones that are finite numbers of moderate size."""
        if content is None:
            content = values(dtype, int(np.prod(shape)), draw)
        self.tensors[name] = (dtype, shape, content)

    def write(self, folder: Path) -> None:
        """Write all files, whatever is wrong with them."""
        if self.gguf:
            heads = {"general.architecture": self.gguf, f"{self.gguf}.attention.head_count": 4}
            tensors = [
                GgufTensor(name, dtype, tuple(extent % 2**64 for extent in shape), content)
                for name, (dtype, shape, content) in self.tensors.items()
            ]
            self._put(folder, "model.gguf", write_gguf(tensors, heads))
            return
        files = {"model.safetensors": self.tensors}
        if self.index:
            names = {name: f"model-{place}.safetensors" for place, name in enumerate(self.tensors)}
            files = {file: {name: self.tensors[name]} for name, file in names.items()}
            self._put(folder, "model.safetensors.index.json", json.dumps({"weight_map": names}).encode())
        for file, tensors in files.items():
            header: dict[str, Any] = {}
            data = b""
            for name, (dtype, shape, content) in tensors.items():
                header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
                data += content
            raw = json.dumps(header).encode()
            self._put(folder, file, struct.pack("<Q", len(raw)) + raw + data)
        if self.config is not None:
            self._put(folder, "config.json", json.dumps(self.config).encode())

    def _put(self, folder: Path, name: str, content: bytes) -> None:
        for change in self.rewrite:
            content = change(name, content)
        (folder / name).write_bytes(content)


def values(dtype: str, count: int, draw: random.Random) -> bytes:
    """So many numbers of a type, as bytes."""
    generator = np.random.default_rng(draw.getrandbits(64))
    if dtype == "BF16":
        return (generator.standard_normal(count).astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    if dtype in ("F64", "F32", "F16"):
        return generator.standard_normal(count).astype(f"<f{BITS[dtype] // 8}").tobytes()
    return generator.integers(0, 120, count * BITS[dtype] // 8, dtype=np.uint8).tobytes()


# --- one checkpoint of every format ------------------------------------------------------------------------------


def plain(draw: random.Random) -> Made:
    made = Made(config={"model_type": "llama", "tie_word_embeddings": draw.random() < 0.5})
    dtype = draw.choice(["F64", "F32", "F16", "BF16"])
    side = 200 if draw.random() < 0.05 else 24
    for layer in range(2):
        made.add(f"model.layers.{layer}.mlp.up_proj.weight", dtype, [side, side + 16], draw)
        made.add(f"model.layers.{layer}.norm.weight", dtype, [16], draw)
    made.add("model.embed_tokens.weight", dtype, [30, 16], draw)
    made.add("lm_head.weight", dtype, [30, 16], draw, made.tensors["model.embed_tokens.weight"][2])
    return made


def fused(draw: random.Random) -> Made:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16, "intermediate_size": 20}
    made = Made(config={"model_type": draw.choice(["phi3", "gpt_neox", "gpt2"]), **heads})
    made.options["split_fused"] = draw.random() < 0.7
    made.add("model.layers.0.self_attn.qkv_proj.weight", "F32", [32, 16], draw)
    made.add("model.layers.0.mlp.gate_up_proj.weight", "F32", [40, 16], draw)
    made.add("model.layers.1.mlp.experts.gate_up_proj", "BF16", [3, 16, 24], draw)
    return made


def fp8(draw: random.Random) -> Made:
    layout = draw.choice(["block", "row", "tensor"])
    block = {"quant_method": "fp8", "weight_block_size": [16, 16]} if layout == "block" else {"quant_method": "fp8"}
    made = Made(config={"quantization_config": block})
    scale = {"block": [2, 3], "row": [32, 1], "tensor": draw.choice([[], [1]])}[layout]
    made.add("model.layers.0.mlp.up_proj.weight", draw.choice(["F8_E4M3", "F8_E5M2"]), [32, 48], draw)
    suffix = "weight_scale_inv" if layout == "block" else "weight_scale"
    made.add(f"model.layers.0.mlp.up_proj.{suffix}", draw.choice(["F32", "BF16"]), scale, draw)
    return made


def mxfp4(draw: random.Random) -> Made:
    made = Made(config={"quantization_config": {"quant_method": "mxfp4"}})
    made.add("model.layers.0.mlp.experts.down_proj_blocks", "U8", [2, 16, 2, 16], draw)
    made.add("model.layers.0.mlp.experts.down_proj_scales", "U8", [2, 16, 2], draw)
    return made


def four_bits(draw: random.Random) -> Made:
    made, nested = Made(), draw.random() < 0.5
    name = "model.layers.0.mlp.up_proj.weight"
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [32, 64]}
    made.add(name, "U8", [1024, 1], draw)
    made.add(f"{name}.absmax", "U8" if nested else "F32", [32], draw)
    made.add(f"{name}.quant_map", "F32", [16], draw)
    if nested:
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.1}
        made.add(f"{name}.nested_absmax", "F32", [1], draw)
        made.add(f"{name}.nested_quant_map", "F32", [256], draw)
    if draw.random() < 0.5:
        place = draw.choice([*state, "extra"])
        state[place] = draw.choice(ODD_VALUES) if draw.random() < 0.7 else [draw.choice(ODD_EXTENTS), 64]
    raw = json.dumps(state).encode()
    made.add(f"{name}.quant_state.bitsandbytes__nf4", "U8", [len(raw)], draw, raw)
    return made


def eight_bits(draw: random.Random) -> Made:
    made = Made()
    made.add("model.layers.0.mlp.up_proj.weight", "I8", [24, 40], draw)
    made.add("model.layers.0.mlp.up_proj.SCB", "F32", [24], draw)
    made.add("model.layers.0.mlp.up_proj.weight_format", "U8", [], draw, b"\0")
    return made


def gptq(draw: random.Random) -> Made:
    made = Made(
        config={"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}}
    )
    for part, dtype, shape in (
        ("qweight", "I32", [8, 16]),
        ("qzeros", "I32", [2, 2]),
        ("scales", "F16", [2, 16]),
        ("g_idx", "I32", [64]),
    ):
        content = np.repeat(np.arange(2, dtype="<i4"), 32).tobytes() if part == "g_idx" else None
        made.add(f"model.layers.0.mlp.up_proj.{part}", dtype, shape, draw, content)
    return made


def awq(draw: random.Random) -> Made:
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    made = Made(config={"quantization_config": settings})
    for part, dtype, shape in (("qweight", "I32", [64, 2]), ("qzeros", "I32", [2, 2]), ("scales", "F16", [2, 16])):
        made.add(f"model.layers.0.mlp.up_proj.{part}", dtype, shape, draw)
    return made


def packed(draw: random.Random) -> Made:
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    made = Made(config={"quantization_config": settings})
    made.add("model.layers.0.mlp.up_proj.weight_packed", "I32", [24, 8], draw)
    made.add("model.layers.0.mlp.up_proj.weight_scale", "BF16", [24, 2], draw)
    shape = np.array([24, 64], dtype="<i8").tobytes()
    made.add("model.layers.0.mlp.up_proj.weight_shape", "I64", [2], draw, shape)
    return made


def gguf(draw: random.Random) -> Made:
    made = Made(gguf=draw.choice(["llama", "llama", "qwen3moe", "mamba"]))
    for name, shape in (
        ("attn_q", (32, 256)),
        ("attn_k", (16, 256)),
        ("ffn_down", (24, 256)),
        ("ffn_up_exps", (2, 8, 256)),
    ):
        kind = draw.choice(["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K"])
        tensor = random_tensor(f"blk.0.{name}.weight", kind, shape, draw.getrandbits(32))
        made.tensors[tensor.name] = (kind, list(shape), tensor.data)
    return made


FORMATS = (plain, fused, fp8, mxfp4, four_bits, eight_bits, gptq, awq, packed, gguf)


# --- changes -----------------------------------------------------------------------------------------------------


def change_shape(made: Made, draw: random.Random) -> None:
    name = draw.choice(list(made.tensors))
    dtype, shape, content = made.tensors[name]
    shape = list(shape)
    kind = draw.randrange(5)
    if kind == 0 and shape:
        shape[draw.randrange(len(shape))] = draw.choice(ODD_EXTENTS)
    elif kind == 1 and shape:
        place = draw.randrange(len(shape))
        shape[place] = max(0, draw.choice([shape[place] - 1, shape[place] + 1, shape[place] * 2, shape[place] // 2]))
    elif kind == 2:
        draw.shuffle(shape)
    elif kind == 3:
        shape.insert(draw.randint(0, len(shape)), 1)
    elif shape:
        shape.pop(draw.randrange(len(shape)))
    made.tensors[name] = (dtype, shape, fitted(dtype, shape, content, draw))


def change_dtype(made: Made, draw: random.Random) -> None:
    name = draw.choice(list(made.tensors))
    _, shape, content = made.tensors[name]
    dtype = draw.choice([*BITS, "F128", ""])
    made.tensors[name] = (dtype, shape, fitted(dtype, shape, content, draw))


def fitted(dtype: str, shape: list[int], content: bytes, draw: random.Random) -> bytes:
    """Mostly as many bytes as type and shape ask for, if that is not too many."""
    count = 1
    for extent in shape:
        count *= extent
    needed = count * BITS.get(dtype, 8) // 8
    if needed > 1 << 17 or draw.random() < 0.1:
        return content
    return (content * (needed // max(1, len(content)) + 1))[:needed].ljust(needed, b"\0")


def change_values(made: Made, draw: random.Random) -> None:
    name = draw.choice(list(made.tensors))
    dtype, shape, content = made.tensors[name]
    data = bytearray(content)
    kind = draw.randrange(5)
    if kind == 0 and dtype in ("F64", "F32", "F16") and data:
        numbers = np.frombuffer(content, f"<f{BITS[dtype] // 8}").copy()
        with np.errstate(over="ignore"):
            places = draw.choice([1, 1, 3, len(numbers)])
            numbers[[draw.randrange(len(numbers)) for _ in range(places)]] = draw.choice(SPECIAL)
        data = bytearray(numbers.tobytes())
    elif kind == 1:
        data = bytearray(len(data))
        if data and draw.random() < 0.5:
            data[draw.randrange(len(data))] = draw.choice([1, 63, 64, 127, 128, 255])
    elif kind == 2:
        data = bytearray(draw.choice([b"\xff", b"\x7f", b"\x80", b"\x01"]) * len(data))
    elif kind == 3:
        data = bytearray(draw.randbytes(len(data)))
    elif data:
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    made.tensors[name] = (dtype, shape, bytes(data))


def change_names(made: Made, draw: random.Random) -> None:
    name = draw.choice(list(made.tensors))
    entry = made.tensors[name]
    kind = draw.randrange(4)
    if kind == 0 and len(made.tensors) > 1:
        del made.tensors[name]
    elif kind == 1:
        made.tensors[draw.choice(ODD_NAMES)] = made.tensors.pop(name)
    elif kind == 2:  # a companion, or codes, of another tensor's
        other = draw.choice(list(made.tensors))
        made.tensors[name], made.tensors[other] = made.tensors[other], entry
    else:
        suffix = name.rpartition(".")[2]
        made.tensors[f"model.layers.1.mlp.up_proj.{suffix}"] = entry


def change_config(made: Made, draw: random.Random) -> None:
    made.config = made.config or {"quantization_config": {}}
    config: Any = made.config
    while True:
        key = draw.choice([*config, "extra", "quant_method", "bits"])
        if isinstance(config.get(key), dict) and config[key] and draw.random() < 0.9:
            config = config[key]
            continue
        kind = draw.randrange(3)
        if kind == 0:
            config.pop(key, None)
        else:
            config[key] = draw.choice(ODD_VALUES)
        return


def change_bytes(made: Made, draw: random.Random) -> None:
    """One file's bytes: its header above all, or its length."""
    seed = draw.getrandbits(64)
    wanted = draw.choice(["safetensors", "safetensors", "json"])

    def change(name: str, content: bytes) -> bytes:
        own = random.Random(seed)  # noqa: S311 - no secret is made of it
        if not name.endswith((wanted, "gguf")) or not content:
            return content
        kind = own.randrange(4)
        if kind == 0:
            return content[: own.randrange(len(content))]
        if kind == 1:
            return content + own.randbytes(own.randint(1, 9))
        data = bytearray(content)
        for _ in range(own.randint(1, 3)):
            place = own.randrange(min(len(data), 600))
            data[place] = own.choice(b'0123456789"{}[],:-. \n\\eE\xff\0')
        return bytes(data)

    made.rewrite.append(change)


def change_options(made: Made, draw: random.Random) -> None:
    made.options |= draw.choice(
        [{"criterion": "mp"}, {"method": "svd"}, {"method": "band"}, {"precision": "float64"}, {"include_norms": True}]
    )


CHANGES = (change_shape, change_dtype, change_values, change_values, change_names, change_config, change_bytes)


def make(seed: int, number: int) -> Made:
    """The mutant of this number."""
    draw = random.Random(f"{seed}:{number}")  # noqa: S311 - likewise
    made = draw.choice(FORMATS)(draw)
    made.index = draw.random() < 0.2
    for _ in range(draw.randint(1, 4)):
        draw.choice((*CHANGES, change_options))(made, draw)
    return made


# --- the oracle --------------------------------------------------------------------------------------------------


def judge(made: Made, folder: Path) -> tuple[int, str]:
    """Scan a mutant; returns the exit code, and what is wrong with the program, or nothing."""
    model, out = folder / "model", folder / "scan.json"
    model.mkdir()
    made.write(model)
    before = reset_peak()
    try:
        scan = sf.scan(model, out=out, threads=1, buffer_gib=0.01, **made.options)
    except SpectrumFastError as error:
        code, problem = 2, "" if 0 < len(str(error)) < _LONGEST_WORDS else "an error without words, or without end"
    except Exception:  # noqa: BLE001 - this is what is looked for
        return 2, traceback.format_exc()
    else:
        code, problem = int(bool(scan.failures)), ""
        faults = [failure for failure in scan.failures if failure.kind == "error"]
        if faults:
            problem = faults[0].traceback
        elif lost := what_is_lost(scan, out):
            problem = lost
        elif len(list(folder.iterdir())) != 2:
            problem = f"left behind: {sorted(path.name for path in folder.iterdir())}"
    grown = peak_bytes() - before
    if not problem and grown > LIMIT_BYTES:
        problem = f"memory grew by {grown >> 20} MiB"
    return code, problem


def what_is_lost(scan: sf.Scan, out: Path) -> str:
    """What is wrong with a scan file that should hold this scan."""
    try:
        return "" if sf.load_scan(out) == scan else "the file does not say what was found"
    except SpectrumFastError as error:
        return f"the file cannot be read: {error}".replace(str(out), "scan.json")


def reset_peak() -> int:
    """Forget the peak of the resident memory; returns what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The most memory that was resident since :func:`reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise OSError("no VmHWM in /proc/self/status")


def run(seed: int, number: int, keep: Path | None = None) -> tuple[int, str]:
    """Make and judge one mutant in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="spectrum-fast-mutant-", dir=_MEMORY) as name:
        try:
            return judge(make(seed, number), Path(name))
        finally:
            if keep is not None:
                shutil.copytree(name, keep, dirs_exist_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="SEED:NUMBER of one mutant")
    parser.add_argument("--keep", type=Path, help="with --only: folder for its files")
    parser.add_argument("--state", type=Path, help="file by which an interrupted campaign goes on")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    options = parser.parse_args()
    if options.only:
        code, problem = run(*map(int, options.only.split(":")), keep=options.keep)
        print(f"exit code {code}", problem or "as it should be", sep="\n")
        return int(bool(problem))
    codes: Counter[str] = Counter()
    finds: dict[str, str] = {}
    begin = 0
    if options.state and options.state.exists():
        begin, codes, finds = _read_state(options.state, options.seed)
    for number in range(begin, options.mutants):
        code, problem = run(options.seed, number)
        codes[str(code)] += 1
        if problem and (last := problem.strip().splitlines()[-1]) not in finds:
            finds[last] = f"{options.seed}:{number}"
            print(f"find {options.seed}:{number}\n{problem}", flush=True)
        if options.state and (number % 500 == 499 or number + 1 == options.mutants):
            state = {"seed": options.seed, "next": number + 1, "codes": codes, "finds": finds}
            options.state.parent.mkdir(parents=True, exist_ok=True)
            options.state.write_text(json.dumps(state))
    print(f"{options.mutants} mutants, exit codes {dict(sorted(codes.items()))}, {len(finds)} kinds of finds")
    if options.state and not finds:
        options.state.unlink(missing_ok=True)  # the next campaign begins anew
    if options.out and not finds:
        figures = {"seed": options.seed, "mutants": options.mutants, "exit_codes": dict(sorted(codes.items()))}
        options.out.write_text(json.dumps({**figures, "memory_limit_bytes": LIMIT_BYTES}, indent=1) + "\n")
    return int(bool(finds))


def _read_state(path: Path, seed: int) -> tuple[int, Counter[str], dict[str, str]]:
    state = json.loads(path.read_text())
    if state["seed"] != seed:
        raise SystemExit(f"{path}: of seed {state['seed']}, not {seed}")
    return state["next"], Counter(state["codes"]), state["finds"]


if __name__ == "__main__":
    sys.exit(main())
