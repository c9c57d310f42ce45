"""The commands put together, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module, util
from typing import Annotated

import typer

from invrestore import __version__
from invrestore.cli._allocator import keep_freed_memory
from invrestore.cli.bench import bench
from invrestore.cli.compress import compress, decompress
from invrestore.cli.degrade import degrade
from invrestore.cli.demo import demo
from invrestore.cli.priors import priors
from invrestore.cli.restore import restore
from invrestore.errors import ConvergenceError, InvrestoreError, TrainingError

__all__ = ["app", "main"]

_OK, _FAILED, _WRONG, _INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="invrestore",
    help="Restore degraded pictures: undo a known operator with a prior on what pictures look like.",
    epilog="Exit codes: 0 done, 1 a restoration failed, 2 wrong usage or bad input, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"invrestore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(restore)
app.command()(degrade)
app.command()(compress)
app.command()(decompress)
app.command()(priors)
app.command()(demo)
app.command()(bench)
if util.find_spec("invrestore.cli.train") is not None:
    app.command()(import_module("invrestore.cli.train").train)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; None takes them from ``sys.argv``.

    Returns:
        0 done, 1 a restoration or training failed, 2 wrong usage or bad input, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Worker threads that wait by spinning take the processor from each other as soon as another program runs;
    # on two shared cores that made a solve ten times slower. OpenMP reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    try:
        code = app(arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except typer.Exit as end:
        code = end.exit_code
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer has printed the help as its message
            print(error)
            return _WRONG
        usage = getattr(error, "format_message", None)
        if usage is not None:
            return _fail(f"{usage().rstrip('.')}. See invrestore --help.", _WRONG)
        if "--debug" in arguments:
            raise
        if isinstance(error, ConvergenceError | TrainingError):
            return _fail(str(error), _FAILED)
        if isinstance(error, InvrestoreError):
            return _fail(str(error), _WRONG)
        return _fail(
            f"unexpected {type(error).__name__}: {error}. This is a defect; --debug shows where it arose.",
            _FAILED,
        )
    # Typer turns Ctrl-C into one of these, depending on its version.
    if code == _INTERRUPTED:
        return _fail("interrupted; nothing unfinished was left behind", _INTERRUPTED)
    return code if isinstance(code, int) else _OK


def _fail(message: str, code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code
