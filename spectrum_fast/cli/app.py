"""The commands, put together, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import sys

import typer

from spectrum_fast.cli import compare, doctor, scan, select
from spectrum_fast.cli.consoles import err
from spectrum_fast.errors import SpectrumFastError

EXIT_DONE = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="spectrum-fast",
    help="Find out which weight matrices of a model carry signal, and train only those.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(help=scan.HELP)(scan.scan)
app.command(help=select.HELP)(select.select)
app.command(help=compare.HELP)(compare.compare)
app.command(help=doctor.HELP)(doctor.doctor)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        app()
    except SpectrumFastError as error:
        err.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        err.print("interrupted; no file was written", markup=False)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`): nothing to report, and nothing more to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_DONE)
