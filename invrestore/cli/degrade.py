"""``invrestore degrade``: make the measurement ``y = A(x) + noise`` of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invrestore.cli._options import Debug, Force, Operators, Quiet
from invrestore.errors import RangeError

if TYPE_CHECKING:
    from invrestore.operators import Operator

__all__ = ["degrade"]


def degrade(
    picture: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or WebP file.", metavar="IN")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write.", metavar="OUT")],
    operator: Operators = None,
    sigma: Annotated[
        float, typer.Option(help="Standard deviation of added noise, in [0, 1]; 8-bit level 25 is 0.098.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness; the same seed gives the same file.")] = 0,
    mask: Annotated[
        Path | None,
        typer.Option(help="Picture of the result's size: white is kept, black is lost.", metavar="FILE"),
    ] = None,
    corruption: Annotated[
        list[str] | None,
        typer.Option(
            help="Damage whose place a restoration does not know, as NAME:KEY=VALUE,... ; may be repeated. "
            "Names: color-noise, salt-pepper, block, clutter, poisson, uniform.",
            metavar="SPEC",
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="8 or 16; default: as the input, where the format can.")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Degrade a picture: operators, then noise, corruptions and the mask.

    The result is clipped to [0, 1] and rounded to 8 or 16 bits, which is
    noise of its own.
    """
    from invrestore.cli._catalogue import CORRUPTIONS, build_forwards, generator, load_mask, parse_operators
    from invrestore.cli._specs import parse

    operators = parse_operators(operator)
    corruptions = [parse("--corruption", text, CORRUPTIONS) for text in corruption or []]

    import torch

    from invrestore._checks import check_sigma
    from invrestore.io import check_target, read, save_image
    from invrestore.operators import Mask

    check_sigma("degrade --sigma", sigma)
    check_target(output, force=force, bits=bits)
    if not -(2**63) <= seed < 2**63:
        raise RangeError("degrade --seed", expected="a seed of 64 bits", found=str(seed))
    rng = generator(seed)
    x, info = read(picture)
    check_target(output, force=force, bits=bits, like=info)
    chain = build_forwards(operators, tuple(x.shape[1:]))
    # Pixels lost at the end are lost with their noise.
    losses: list[Operator] = []
    while chain and isinstance(chain[-1], Mask):
        losses.insert(0, chain.pop())
    if mask is not None:
        losses.append(Mask(load_mask(mask)))
    y = x
    for step in chain:
        y = step(y)
    if sigma > 0:
        y = y + sigma * torch.randn(y.shape, generator=rng)
    for spec in corruptions:
        y = spec.build(x=y, rng=rng)
    for step in losses:
        y = step(y)
    save_image(y, output, force=force, bits=bits, like=info)
    if not quiet:
        size = f"{y.shape[-1]} x {y.shape[-2]}"
        print(f"{output}: {size}, {' then '.join(step.name for step in [*chain, *losses])}, sigma {sigma:g}")
