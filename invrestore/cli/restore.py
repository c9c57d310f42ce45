"""``invrestore restore``: one picture, or every picture of a folder."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invrestore.cli._options import Debug, Device, Force, Operators, Quiet
from invrestore.cli._progress import Callback, Start, progress
from invrestore.errors import (
    CapabilityError,
    DeviceError,
    ImageFileError,
    InvrestoreError,
    UnknownNameError,
)

if TYPE_CHECKING:
    import torch

    from invrestore.cli._page import Comparison
    from invrestore.cli._specs import Spec
    from invrestore.io import ImageInfo
    from invrestore.operators import Operator
    from invrestore.priors import Prior
    from invrestore.solvers import Solution

__all__ = ["restore"]


def restore(
    source: Annotated[Path, typer.Argument(help="Picture, or a folder of pictures.", metavar="IN")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Picture to write; for a folder, another folder.", metavar="OUT"),
    ],
    operator: Operators = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Picture of the input's size: white is known, black is lost.", metavar="FILE"),
    ] = None,
    prior: Annotated[
        str, typer.Option(help="What pictures look like; invrestore priors lists them.", metavar="NAME")
    ] = "tv",
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the noise, in [0, 1]; 0: none; default: estimated.", metavar="S"
        ),
    ] = None,
    lam: Annotated[
        float | None, typer.Option(help="Weight of the prior; default: chosen for each picture.", metavar="L")
    ] = None,
    method: Annotated[
        str, typer.Option(help="fista, pdhg, admm, hqs, red, latent, restorer, cg, gradient.", metavar="NAME")
    ] = "auto",
    max_steps: Annotated[
        int | None, typer.Option(help="Most iterations; default: by method.", metavar="N")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write an HTML page with before/after sliders.", metavar="FILE")
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="8 or 16; default: as the input, where the format can.")
    ] = None,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restore a picture, or all pictures of a folder, degraded by a known operator and noise.

    Opacity, colour profile and EXIF of the input are put back. In a folder
    other files are skipped with a note, and a picture that fails does not
    stop the rest; the exit code is then 1.
    """
    from invrestore.cli._catalogue import build_prior, load_mask, parse_operators

    specs = parse_operators(operator)

    from invrestore._checks import check_count, check_sigma
    from invrestore.io import check_free

    check_sigma("restore --sigma", sigma)
    if max_steps is not None:
        check_count("restore --max-steps", "N", max_steps)
    if report is not None:
        if report.suffix.lower() not in (".html", ".htm"):
            raise ImageFileError("restore --report", expected="a name ending in .html", found=str(report))
        check_free(report, force=force)
    job = _Job(
        specs=specs,
        prior=build_prior(prior, lam),
        mask=None if mask is None else load_mask(mask),
        device=_device(device),
        options={"sigma": sigma, "method": method, "max_steps": max_steps},
        bits=bits,
        force=force,
        keep=report is not None,
    )
    with progress(quiet) as start:
        if source.is_dir():
            cards, failed = _restore_folder(job, source, output, quiet, start)
        else:
            cards, failed = [_restore_file(job, source, output, quiet, start(source.name, 0), whole=True)], 0
    if report is not None and cards:
        _write_report(report, [card for card in cards if card is not None], prior, force)
        if not quiet:
            print(f"{report}: before and after")
    if failed:
        raise typer.Exit(1)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is the same for every picture."""

    specs: list[Spec]
    prior: Prior
    mask: torch.Tensor | None
    device: torch.device
    options: dict[str, Any]
    bits: int | None
    force: bool
    keep: bool

    def operator(self, shape: tuple[int, ...]) -> Operator:
        """The operator behind a measurement of shape (C, H, W)."""
        from invrestore.cli._catalogue import build_backwards
        from invrestore.operators import Identity, Mask

        chain = build_backwards(self.specs, shape)
        if self.mask is not None:
            chain.append(Mask(self.mask))
        chain = [step for step in chain if not isinstance(step, Identity)] or [Identity()]
        whole = chain[0]
        for step in chain[1:]:
            whole = step @ whole
        return whole.to(self.device)


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            "restore --device",
            expected="cpu, or cuda or cuda:N where there is such a GPU",
            found=repr(name),
            remedy="Leave it out to take what there is.",
        ) from error
    return device


def _read(path: Path, specs: list[Spec]) -> tuple[torch.Tensor, ImageInfo]:
    from invrestore.io import read

    y, info = read(path)
    to_gray = any(spec.name in ("grayscale", "value") for spec in specs)
    if to_gray and y.shape[1] == 3 and bool((y == y[:, :1]).all()):
        y = y[:, :1]  # a gray picture stored as colour
    return y, info


def _restore_file(
    job: _Job, source: Path, target: Path, quiet: bool, callback: Callback | None, *, whole: bool
) -> Comparison | None:
    """Restore one picture; returns its card for the report if one is wanted."""
    from invrestore.io import check_target, save_image
    from invrestore.solvers import solve

    check_target(target, force=job.force, bits=job.bits)
    y, info = _read(source, job.specs)
    check_target(target, force=job.force, bits=job.bits, like=info)
    solution = solve(
        y.to(job.device), job.operator(tuple(y.shape[1:])), job.prior, callback=callback, **job.options
    )
    save_image(solution.x, target, force=job.force, bits=job.bits, like=info)
    text = str(solution)
    if not quiet:
        print(f"{target}: {text if whole else text.splitlines()[0]}")
    return _comparison(source.name, text, y, solution) if job.keep else None


def _restore_folder(
    job: _Job, source: Path, target: Path, quiet: bool, start: Start
) -> tuple[list[Comparison | None], int]:
    from invrestore.io import SUFFIXES

    entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    pictures = [path for path in entries if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    if not pictures:
        raise ImageFileError(
            "restore",
            expected=f"a folder with pictures ({' '.join(SUFFIXES)})",
            found=f"{source}, which holds none",
            remedy="Name a picture, or a folder that holds some directly.",
        )
    if target.exists() and not target.is_dir():
        raise ImageFileError("restore", expected="a folder to write to", found=f"the file {target}")
    if target.resolve() == source.resolve():
        raise ImageFileError(
            "restore",
            expected="another folder than the one with the originals",
            found=str(target),
            remedy="Name a new folder; it is created.",
        )
    created = not target.exists()
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise ImageFileError(
            "restore", expected="a folder that can be created", found=f"{target} ({error.strerror})"
        ) from error
    for path in entries:
        if path not in pictures and not quiet:
            kind = "a folder" if path.is_dir() else "no picture"
            print(f"note: skipped {path.name}: {kind}", file=sys.stderr)
    cards, failed = [], 0
    try:
        for number, path in enumerate(pictures, 1):
            try:
                callback = start(f"{path.name} ({number} of {len(pictures)})", (number - 1) / len(pictures))
                cards.append(_restore_file(job, path, target / path.name, quiet, callback, whole=False))
            except (UnknownNameError, CapabilityError):
                raise  # the next picture would fail alike
            except InvrestoreError as error:
                failed += 1
                print(f"error: {path.name}: {error}", file=sys.stderr)
    finally:
        if created and not any(target.iterdir()):
            target.rmdir()
    if failed:
        print(
            f"error: {failed} of {len(pictures)} pictures failed; the others are in {target}", file=sys.stderr
        )
    elif not quiet:
        print(f"{target}: {len(pictures)} pictures")
    return cards, failed


def _comparison(name: str, text: str, y: torch.Tensor, solution: Solution) -> Comparison:
    from invrestore.cli._page import Comparison, View
    from invrestore.io import encode

    before, after = View("before", encode(y, ".png")), View("after", encode(solution.x, ".png"))
    return Comparison(name, text, before, (after,))


def _write_report(path: Path, cards: list[Comparison], prior: str, force: bool) -> None:
    from invrestore.cli._page import page
    from invrestore.io import write_bytes

    document = page("Restored pictures", f"Prior: {prior}. Drag across a picture to compare.", cards)
    write_bytes(path, document.encode(), force=force)
