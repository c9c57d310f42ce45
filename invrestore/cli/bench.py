"""``invrestore bench``: compare methods on the same images, with a report."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invrestore.cli._options import Debug, Quiet
from invrestore.errors import CapabilityError, ConvergenceError, ImageFileError, UnknownNameError

if TYPE_CHECKING:
    from invrestore.bench import Results, Unit

__all__ = ["bench"]

_MARK = "run.json"


def bench(
    suite: Annotated[
        str, typer.Argument(help="Name of a suite, or 'list' to print the names.", metavar="SUITE")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data folder; default: $INVRESTORE_DATA.", envvar="INVRESTORE_DATA", show_envvar=False
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Rows, separated by commas; 'list' prints them.", metavar="A,B,C")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Columns, separated by commas; default: all.", metavar="A,B,C")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Image sets, separated by commas; default: all.", metavar="A,B,C")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images of each set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/bench-SUITE.")] = None,
    peers: Annotated[
        Path | None,
        typer.Option(
            help="Folder of published weights; default: $INVRESTORE_PEERS.",
            envvar="INVRESTORE_PEERS",
            show_envvar=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that work at the same time.")] = 1,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; report what the run folder holds.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run methods on a suite of degraded images; go on where an earlier run of the same folder stopped.

    The run folder then holds report.html, results.json and CSV files.
    """
    try:
        from invrestore import bench as engine
    except ModuleNotFoundError as error:
        raise CapabilityError(
            "invrestore bench",
            expected="the packages of the extra 'bench'",
            found=f"no {error.name}",
            remedy="pip install 'invrestore[bench]'",
        ) from error
    if suite == "list":
        for one in engine.SUITES.values():
            print(f"{one.name:12} {one.summary}")
        return
    if suite not in engine.SUITES:
        raise UnknownNameError.suggest("invrestore bench", "suite", suite, engine.SUITES)
    chosen = engine.SUITES[suite]
    if methods == "list":
        for row in chosen.rows:
            print(row.method)
        return
    if data is None:
        raise ImageFileError(
            "invrestore bench",
            expected="a data folder",
            found="none",
            remedy="Give --data DIR or set INVRESTORE_DATA.",
        )
    if not data.is_dir():
        raise ImageFileError("invrestore bench", expected="an existing data folder", found=str(data))
    if peers is not None and not peers.is_dir():
        raise ImageFileError("invrestore bench", expected="an existing folder of weights", found=str(peers))
    folder = out if out is not None else Path("runs") / f"bench-{suite}"
    plan = engine.plan(
        chosen,
        data.resolve(),
        folder,
        methods=_names(methods),
        tasks=_names(tasks),
        images=_names(images),
        limit=limit,
        peers=None if peers is None else peers.resolve(),
    )
    _claim(folder, suite)
    failures = []
    if not report_only:
        with _bar(len(plan.units), quiet) as watch:
            failures = engine.run(plan, jobs=jobs, watch=watch)
    results = engine.collect(plan)
    files = engine.write_report(results, folder)
    if not quiet:
        _print_tables(results)
        print("\n".join(str(path) for path in files))
    if failures:
        first = failures[0]
        raise ConvergenceError(
            "invrestore bench",
            expected="every method to restore every image",
            found=f"{len(failures)} of {len(plan.units)} batches failed, first {first.unit.method} on "
            f"{first.unit.task}: {first.error}",
            remedy="The same command tries them again; the report holds the others.",
        )


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _claim(folder: Path, suite: str) -> None:
    """Take a run folder: a new or empty one, or that of an earlier run of the suite."""
    mark = folder / _MARK
    if mark.is_file():
        try:
            found = json.loads(mark.read_text())["suite"]
        except (ValueError, KeyError, TypeError):
            found = "something else"
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "other files"
    else:
        folder.mkdir(parents=True, exist_ok=True)
        partial = mark.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({"suite": suite}) + "\n")
        partial.replace(mark)
        return
    if found != suite:
        raise ImageFileError(
            "invrestore bench",
            expected=f"an empty folder or an earlier run of {suite}",
            found=f"{found} in {folder}",
            remedy="Choose another folder with --out.",
        )


@contextlib.contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[Unit], None] | None]:
    """A progress bar on standard error where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda unit: progress.update(task, advance=1, description=f"{unit.task} {unit.method}")


def _print_tables(results: Results) -> None:
    """Mean PSNR and SSIM of each image set."""
    from rich.table import Table

    from invrestore.bench._tables import summarise
    from invrestore.cli._tables import wide_console

    console = wide_console()
    sums: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for score in results.scores:
        sums.setdefault((score.images, score.method, score.task), []).append((score.psnr, score.ssim))
    for images, label in results.image_sets.items():
        if not any(key[0] == images for key in sums):
            continue
        table = Table(title=f"{label}: PSNR in dB / SSIM")
        table.add_column("method")
        for task in results.tasks.values():
            table.add_column(task, justify="right")
        for method in results.methods:
            cells = []
            for task in results.tasks:
                values = sums.get((images, method.name, task), [])
                means = [summarise(column).mean for column in zip(*values, strict=True)]
                cells.append(f"{means[0]:.2f} / {means[1]:.3f}" if values else "")
            if any(cells):
                table.add_row(method.label, *cells)
        console.print(table)
    for method in results.methods:
        if method.left_out:
            console.print(f"left out: {method.name} ({method.left_out})", style="dim")
