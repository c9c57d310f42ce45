"""``invrestore demo``: degrade bundled photos in six ways and restore them with three priors, offline."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invrestore.cli._options import Debug, Quiet
from invrestore.cli._progress import Callback, progress
from invrestore.errors import ImageFileError

if TYPE_CHECKING:
    import torch

    from invrestore.operators import Operator
    from invrestore.priors import Prior

__all__ = ["demo"]


@dataclasses.dataclass(frozen=True)
class _Task:
    """One kind of damage on one photo.

    Attributes:
        noise: Standard deviation of the noise that is added.
        sigma: What ``solve`` is told about it; None where rounding is the only noise.
    """

    name: str
    title: str
    photo: str
    noise: float
    sigma: float | None
    operator: Callable[[tuple[int, ...]], Operator]


@dataclasses.dataclass(frozen=True, eq=False)
class _Result:
    """A restoration with its score and time."""

    x: torch.Tensor
    psnr: float
    seconds: float
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class _Case:
    """A task with everything that came of it, by the name of the prior."""

    task: _Task
    truth: torch.Tensor
    y: torch.Tensor
    before: float
    results: dict[str, _Result]

    def best(self) -> str:
        """Name of the prior with the highest PSNR."""
        return max(self.results, key=lambda name: self.results[name].psnr)


def demo(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="New folder for the results; default: invrestore-demo."),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Degrade bundled photos in six ways and restore each with three priors; needs no network.

    Writes PNG pictures, a contact sheet and an HTML page with before/after
    sliders.
    """
    folder = _new_folder(output)
    began = time.perf_counter()
    cases = _run_all(quiet)
    _write(folder, cases)
    if not quiet:
        _print_table(cases)
        seconds = time.perf_counter() - began
        print(f"{seconds:.0f} s. Open {folder / 'index.html'} or {folder / 'contact-sheet.png'}")


def _new_folder(wanted: Path | None) -> Path:
    """Create the folder; the default name is numbered until it is free."""
    folder, number = wanted or Path("invrestore-demo"), 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError as error:
            if wanted is not None:
                raise ImageFileError(
                    "demo --output",
                    expected="a folder that does not exist yet",
                    found=str(folder),
                    remedy="Choose another name; nothing is overwritten.",
                ) from error
            number += 1
            folder = Path(f"invrestore-demo-{number}")
        except OSError as error:
            raise ImageFileError(
                "demo",
                expected="a folder that can be created",
                found=f"{folder} ({error.strerror})",
                remedy="Name another with --output.",
            ) from error


def _tasks() -> list[_Task]:
    import torch

    from invrestore import kernels, operators

    def rng() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    return [
        _Task(
            "blur",
            "blur 1.6 and noise 0.01",
            "astronaut",
            0.01,
            0.01,
            lambda _: operators.Blur(kernels.gaussian(1.6)),
        ),
        _Task(
            "missing",
            "half of it missing",
            "coffee",
            0.0,
            0.0,
            lambda shape: operators.SparseSampling(shape, keep=0.5, rng=rng()),
        ),
        _Task("downsample", "reduced 3 times", "chelsea", 0.0, 0.0, lambda _: operators.Downsample(3)),
        _Task("jpeg", "JPEG quality 10", "rocket", 0.0, None, lambda _: operators.JPEG(10)),
        _Task("levels", "5 levels a channel", "coffee", 0.0, None, lambda _: operators.Quantize(5)),
        _Task("noise", "noise 0.1", "chelsea", 0.1, 0.1, lambda _: operators.Identity()),
    ]


def _priors() -> dict[str, Prior]:
    """Two formulas and the trained denoiser, or a third formula where none is shipped."""
    from invrestore import priors

    third = "denoiser" if "denoiser" in priors.available() else "tgv"
    return {name: priors.load(name) for name in ("tv", "wavelet", third)}


def _run_all(quiet: bool) -> list[_Case]:
    import torch

    from invrestore.assets import photo
    from invrestore.io import load_image

    cases = []
    tasks, priors = _tasks(), _priors()
    with progress(quiet) as start:
        for number, task in enumerate(tasks, 1):
            truth = load_image(photo(task.photo))
            operator = task.operator(tuple(truth.shape[1:]))
            noise = torch.randn(
                operator(truth).shape, generator=torch.Generator().manual_seed(number), dtype=truth.dtype
            )
            y = operator(truth) + task.noise * noise
            results: dict[str, _Result] = {}
            for name, prior in priors.items():
                done = (number - 1 + len(results) / len(priors)) / len(tasks)
                results[name] = _solve(task, operator, prior, y, truth, start(f"{task.name}, {name}", done))
            cases.append(_Case(task, truth, y, _score(_shown(y, truth), truth), results))
    return cases


def _solve(
    task: _Task,
    operator: Operator,
    prior: Prior,
    y: torch.Tensor,
    truth: torch.Tensor,
    callback: Callback | None,
) -> _Result:
    from invrestore.solvers import solve

    solution = solve(y, operator, prior, sigma=task.sigma, callback=callback)
    return _Result(solution.x, _score(solution.x, truth), solution.seconds, str(solution))


def _shown(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The measurement at the size of the picture, each pixel repeated, to be looked at and scored."""
    import torch

    return (
        y
        if y.shape == like.shape
        else torch.nn.functional.interpolate(y, tuple(like.shape[-2:]), mode="nearest")
    )


def _score(x: torch.Tensor, truth: torch.Tensor) -> float:
    """PSNR of the picture as it is saved, in dB: clipped to [0, 1]."""
    from invrestore.metrics import psnr

    return float(psnr(x.clamp(0, 1), truth))


def _write(folder: Path, cases: list[_Case]) -> None:
    from invrestore.cli._page import Comparison, View, page
    from invrestore.cli._sheet import Cell, Row, contact_sheet
    from invrestore.io import encode, save_image, write_bytes

    cards, rows = [], []
    for case in cases:
        name, best = case.task.name, case.best()
        save_image(case.truth, folder / f"{name}-original.png")
        save_image(case.y, folder / f"{name}-degraded.png")
        for prior, result in case.results.items():
            save_image(result.x, folder / f"{name}-{prior}.png")
        order = sorted(case.results, key=lambda prior: case.results[prior].psnr, reverse=True)
        views = [
            View(prior, encode(case.results[prior].x, ".png"), f"{case.results[prior].psnr:.2f} dB")
            for prior in order
        ]
        views.append(View("original", encode(case.truth, ".png")))
        cards.append(
            Comparison(
                f"{case.task.photo}: {case.task.title}",
                f"Degraded: {case.before:.2f} dB",
                View("degraded", encode(case.y, ".png")),
                tuple(views),
            )
        )
        cells = [Cell(case.truth), Cell(_shown(case.y, case.truth), f"{case.before:.2f} dB")]
        cells += [Cell(r.x, f"{r.psnr:.2f} dB", prior == best) for prior, r in case.results.items()]
        rows.append(Row(f"{case.task.photo}: {case.task.title}", tuple(cells)))
    columns = ("original", "degraded", *cases[0].results)
    save_image(contact_sheet(columns, rows, title="invrestore demo"), folder / "contact-sheet.png")
    document = page(
        "invrestore demo",
        "Six kinds of damage, each undone by solve(y, operator, prior) with nothing tuned by hand. "
        "Drag across a picture to compare; the buttons choose the prior, best PSNR first.",
        cards,
        "Photos: NASA, SpaceX (public domain), Stéfan van der Walt, Rachel Michetti (CC0). "
        "PSNR over all channels of pictures clipped to [0, 1]; the reduced picture is scored with its pixels "
        "repeated.",
    )
    write_bytes(folder / "index.html", document.encode())
    details = "\n\n".join(
        f"{case.task.name}, {prior}: {result.psnr:.2f} dB\n{result.text}"
        for case in cases
        for prior, result in case.results.items()
    )
    write_bytes(folder / "details.txt", (details + "\n").encode())


def _print_table(cases: list[_Case]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="PSNR in dB, and seconds", title_justify="left", box=None, pad_edge=False)
    table.add_column("damage")
    table.add_column("degraded", justify="right")
    for name in cases[0].results:
        table.add_column(name, justify="right")
    for case in cases:
        best = case.best()
        scores = []
        for name, result in case.results.items():
            score = f"{result.psnr:.2f}" if name != best else f"[bold]{result.psnr:.2f}[/bold]"
            scores.append(f"{score} [dim]{result.seconds:.1f} s[/dim]")
        table.add_row(f"{case.task.photo}: {case.task.title}", f"{case.before:.2f}", *scores)
    Console().print(table)
