"""The commands, put together, and the one place where an error becomes a line and an exit code.

A command imports what it works with when it runs: help and usage errors come at once, and Ctrl-C is caught from the
first moment.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from spectrum_fast.errors import SpectrumFastError
from spectrum_fast.use.cli import (
    check,
    compare,
    doctor,
    eval,
    fleet,
    gallery,
    laser,
    merge,
    pissa,
    plan,
    report,
    scan,
    scans,
    select,
    show,
    train,
)
from spectrum_fast.use.cli.consoles import say
from spectrum_fast.use.cli.interrupts import Terminated
from spectrum_fast.use.cli.options import RayCommand
from spectrum_fast.version import __version__

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

HELP = """Find out which weight matrices of a model carry signal, and train only those.

\b
Example: spectrum-fast scan MODEL --out scan.json
         spectrum-fast select scan.json --top-percent 25 -o selection.json

\b
Exit codes: 0 done; 1 some tensors failed (named); 2 bad usage or input."""


class _Commands(TyperGroup):
    """The group of commands; what a command raises on purpose ends here."""

    def invoke(self, ctx: typer.Context) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run a command and turn its errors into an exit code."""
        try:
            return super().invoke(ctx)  # pyright: ignore[reportArgumentType]
        except SpectrumFastError as error:
            say(f"error: {error}", style="bold red")
            raise typer.Exit(EXIT_USAGE) from error
        except KeyboardInterrupt as interrupt:
            say(str(interrupt) or "interrupted: no file is left half-written")
            raise typer.Exit(EXIT_TERMINATED if isinstance(interrupt, Terminated) else EXIT_INTERRUPTED) from interrupt
        except BrokenPipeError as error:
            # The reader of our stdout went away (`| head`): nothing to report, and nothing more to flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_DONE) from error


app = typer.Typer(
    name="spectrum-fast",
    cls=_Commands,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=RayCommand)(scan.scan)
app.command(short_help="Make one scan of its parts.")(merge.merge)
app.command()(select.select)
app.command(short_help="Compare two scans.")(compare.compare)
app.command(short_help="Show what each reader would train.")(check.check)
app.command(short_help="Scan many checkpoints into a library.", cls=RayCommand)(fleet.fleet)
app.add_typer(scans.app, name="scans", short_help="A library of scans: list, get, add.")
app.command(short_help="Draw one module's spectrum.")(show.show)
app.command(short_help="Write an HTML report.")(report.report)
app.command(short_help="Write pages over a library.")(gallery.gallery)
app.command(short_help="Train the selected modules.")(train.train)
app.command(name="eval", short_help="Evaluate a run on benchmarks.")(eval.evaluate)
app.command(short_help="Replace matrices by low-rank ones.")(laser.laser)
app.command(short_help="Split matrices into adapter and rest.")(pissa.pissa)
app.command(short_help="Predict the memory of a training run.")(plan.plan)
app.command(short_help="Show what this machine offers.")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit(EXIT_DONE)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    local_rank: Annotated[  # the deepspeed launcher puts it before the command; the environment says the same
        int | None, typer.Option("--local_rank", "--local-rank", hidden=True)
    ] = None,
) -> None:
    """Options before the command."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    app(prog_name="spectrum-fast")
