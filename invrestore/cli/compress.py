"""``invrestore compress`` and ``decompress``: a picture as a few of its pixels, restored by a prior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from invrestore.cli._options import Debug, Force, Quiet
from invrestore.errors import ImageFileError, RangeError

__all__ = ["compress", "decompress"]

_SUFFIX = ".irz"


def compress(
    picture: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or WebP file.", metavar="IN")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, ending in .irz.", metavar="OUT")
    ],
    keep: Annotated[
        str, typer.Option(help="Share of the pixels that is kept, as 1% or 0.01.", metavar="SHARE")
    ] = "1%",
    sampling: Annotated[
        str, typer.Option(help="sobel: more samples where the gradient is large; uniform.", metavar="NAME")
    ] = "sobel",
    seed: Annotated[int, typer.Option(help="Seed of the choice; the same seed gives the same file.")] = 0,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Keep a few pixels of a picture, chosen along its edges, in one small file.

    Opacity, colour profile and EXIF are not kept, colours have 8 bits.
    """
    share = _share(keep)

    from invrestore._checks import check_choice
    from invrestore.io import check_free, encode_samples, read, write_bytes

    check_choice("compress --sampling", "sampling", sampling, ("sobel", "uniform"))
    if output.suffix.lower() != _SUFFIX:
        raise ImageFileError("compress", expected=f"a name ending in {_SUFFIX}", found=str(output))
    check_free(output, force=force)

    import torch

    from invrestore.operators import SparseSampling

    x, _ = read(picture)
    rng = torch.Generator().manual_seed(seed)
    guide = x[0] if sampling == "sobel" else None
    mask = SparseSampling(tuple(x.shape[1:]), keep=share, guide=guide, rng=rng).mask
    data = encode_samples(x, mask)
    write_bytes(output, data, force=force)
    if not quiet:
        pixels, count = x.shape[2] * x.shape[3], int(mask.sum())
        print(
            f"{output}: {count} of {pixels} pixels in {len(data)} bytes, {8 * len(data) / pixels:.3f} bits a pixel"
        )


def decompress(
    source: Annotated[Path, typer.Argument(help="File made by invrestore compress.", metavar="IN")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write.", metavar="OUT")],
    prior: Annotated[
        str | None,
        typer.Option(
            help="What pictures look like; default: xgan-sparse where it is installed, else tv.",
            metavar="NAME",
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restore a picture from the samples that compress kept; they come back unchanged."""
    from invrestore.io import MAX_PIXELS, check_target, decode_samples, save_image

    check_target(output, force=force)
    data = _content(source)

    from invrestore import priors
    from invrestore.cli._catalogue import build_prior
    from invrestore.operators import Mask
    from invrestore.priors import Capability
    from invrestore.solvers import solve

    y, mask = decode_samples(data, name=source.name, max_pixels=MAX_PIXELS)
    chosen = prior or ("xgan-sparse" if "xgan-sparse" in priors.available() else "tv")
    model = build_prior(chosen, None)
    direct = model.can(Capability.RESTORE)
    solution = solve(y, Mask(mask), model, sigma=0.0, refine=direct)
    save_image(solution.x, output, force=force)
    if not quiet:
        print(f"{output}: {solution}")


def _share(text: str) -> float:
    """A share of the pixels from 1% or 0.01."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = float("nan")
    if not 0 < share <= 1:
        raise RangeError(
            "compress --keep", expected="a share above 0 and up to 100%, as 1% or 0.01", found=repr(text)
        )
    return share


def _content(path: Path) -> bytes:
    """The bytes of a file no larger than any that compress writes."""
    from invrestore.io import MAX_PIXELS

    try:
        size = path.stat().st_size
        if size > 4 * MAX_PIXELS:
            raise ImageFileError("decompress", expected="a file of samples", found=f"{path}, {size} bytes")
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError(
            "decompress", expected="a file that can be read", found=f"{path} ({error.strerror})"
        ) from error
