"""An option is declared once: what Python, the command line and the pages show follows from the declaration."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

import spectrum_fast as sf
from spectrum_fast.checks import PERCENT
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.options import SpectrumOptions
from spectrum_fast.options import Option, Options, options_of, takes_options
from spectrum_fast.scanning.options import ScanOptions
from spectrum_fast.use.cli.app import app as commands
from spectrum_fast.use.cli.options import with_options


@dataclass(frozen=True, kw_only=True)
class Baking(Options):
    """Options of a cake."""

    sugar_percent: Annotated[float | None, Option("Share of sugar.", "By weight.", metavar="P", check=PERCENT)] = None
    shape: Annotated[str, Option("round or square.", choices=("round", "square"))] = "round"
    nuts: Annotated[Sequence[str], Option("Nuts; repeatable.")] = ()
    vegan: Annotated[bool, Option("Without eggs.")] = False
    tin: Annotated[str | os.PathLike[str] | None, Option("Tin.", flags=("--tin", "-t"))] = None
    taster: Annotated[object | None, Option("Who tastes.", python_only=True)] = None


@takes_options(Baking)
def bake(cake: str, options: Baking) -> tuple[str, Baking]:
    """Bake.

    Args:
        cake: which.
        options: the options of :class:`Baking`.

    Returns:
        Both.
    """
    return cake, options


def test_a_function_takes_every_option_as_a_keyword() -> None:
    assert bake("plum") == ("plum", Baking())
    assert bake("plum", nuts=["hazel"], vegan=True) == ("plum", Baking(nuts=["hazel"], vegan=True))
    with pytest.raises(TypeError, match=r"bake\(\) got an unexpected keyword argument 'size'"):
        bake("plum", size=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="too many positional arguments"):
        bake("plum", 3)  # pyright: ignore[reportCallIssue]


def test_its_signature_and_docstring_show_them() -> None:
    assert str(inspect.signature(bake)) == (
        "(cake: str, *, sugar_percent: float | None = None, shape: str = 'round', "
        "nuts: collections.abc.Sequence[str] = (), vegan: bool = False, tin: str | os.PathLike[str] | None = None, "
        "taster: object | None = None) -> tuple[str, tests.test_options.Baking]".replace("tests.test_options", __name__)
    )
    assert "        sugar_percent: Share of sugar. By weight.\n        shape: round or square.\n" in str(bake.__doc__)
    assert "options of" not in str(bake.__doc__)
    assert str(bake.__doc__).endswith("    Returns:\n        Both.\n    ")
    assert get_type_hints(bake)["vegan"] is bool


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": "oval"}, "unknown shape 'oval': expected one of round, square"),
        ({"sugar_percent": 0}, r"sugar percent: expected a number in \(0, 100\], found 0"),
        ({"sugar_percent": float("nan")}, "sugar percent: .* found nan"),
        ({"sugar_percent": True}, "sugar percent: .* found True"),
        ({"sugar_percent": "9"}, "sugar percent: .* found '9'"),
        ({"sugar_percent": 10**400}, "sugar percent"),
    ],
)
def test_a_wrong_value_is_refused_where_the_class_is_made(wrong: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Baking(**wrong)
    with pytest.raises(UsageError, match=message):
        bake("plum", **wrong)


def test_an_option_without_words_is_a_mistake_of_ours() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Bare(Options):
        size: int = 1

    with pytest.raises(TypeError, match=r"Bare.size: an option is declared as Annotated\[type, Option"):
        list(options_of(Bare))


def test_a_command_has_the_same_options() -> None:
    taken: list[Baking] = []
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @with_options
    def command(cake: str, options: Baking, loud: bool = False) -> None:
        taken.append(options)

    run = CliRunner().invoke
    assert (
        run(app, ["plum", "--nuts", "hazel", "--nuts", "wal", "--vegan", "-t", "x/y", "--sugar-percent", "5"]).exit_code
        == 0
    )
    assert run(app, ["plum", "--loud"]).exit_code == 0
    assert taken == [Baking(nuts=["hazel", "wal"], vegan=True, tin=Path("x/y"), sugar_percent=5.0), Baking()]
    refused = run(app, ["plum", "--shape", "oval"]).exception
    assert isinstance(refused, UsageError)
    words = run(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "--sugar-percent P" in words
    assert "Share of sugar." in words
    assert "taster" not in words


@pytest.mark.parametrize(("function", "options"), [(sf.scan, ScanOptions), (sf.spectrum, SpectrumOptions)])
def test_public_functions_show_all_their_options(function, options: type) -> None:
    shown = inspect.signature(function).parameters
    assert list(shown)[1:] == [parameter.name for parameter, _ in options_of(options)]
    for parameter, option in options_of(options):
        assert shown[parameter.name] == parameter
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"        {parameter.name}: " in str(function.__doc__)
        assert option.help.endswith(".")


def test_the_command_scan_has_them_all() -> None:
    (scan,) = [command for name, command in typer.main.get_command(commands).commands.items() if name == "scan"]  # type: ignore[attr-defined]
    declared = {parameter.name: option for parameter, option in options_of(ScanOptions) if not option.python_only}
    found = {parameter.name: parameter for parameter in scan.params}
    assert set(declared) <= set(found)
    for name, option in declared.items():
        assert found[name].help == option.help
        assert f"--{name.replace('_', '-')}" in found[name].opts


@pytest.mark.slow
def test_a_type_checker_finds_a_criterion_that_does_not_exist(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    lines = [
        "import spectrum_fast as sf",
        'sf.scan("m", criterion="mp")',
        'sf.scan("m", criterion="mpp")',
        'sf.load_scan("s.json").select(25, criterion="alpha")',
        'sf.load_scan("s.json").select(25, criterion="alpah")',
        "sf.SpectrumCallback, sf.svd_lowrank",
        'sf.sacn("m")',
    ]
    (tmp_path / "script.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, str(tmp_path / "script.py")], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    found = {one["range"]["start"]["line"]: one for one in json.loads(done.stdout)["generalDiagnostics"]}
    rules = {line: one["rule"] for line, one in found.items() if one["severity"] == "error"}
    assert rules == {2: "reportArgumentType", 4: "reportArgumentType", 6: "reportAttributeAccessIssue"}
    assert "\"Literal['mpp']\"" in found[2]["message"]
