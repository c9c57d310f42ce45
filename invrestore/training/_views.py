"""Damaged images as a latent search shows them to an encoder that has never seen the whole ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from invrestore.operators import Downsample, Grayscale, LinearOperator, Mask
from invrestore.training._degradations import uniform

__all__ = ["View", "damaged_views"]

_HOLE = (0.25, 0.6)  # Sides of holes in shares of the image's
_KNOWN = (0.05, 0.5)  # Share of scattered known pixels
_SIGMA = (0.02, 0.2)
_FACTORS = (2, 4, 8)
_LEVELS = (3, 8)


@dataclass(frozen=True)
class View:
    """Some images as an encoder sees them.

    Attributes:
        clean: The images, (N, C, H, W).
        seen: The start of a search for them, (N, C, H, W).
        project: Puts the exact data of these images into others; None where the data are not exact.
    """

    clean: Tensor
    seen: Tensor
    project: Callable[[Tensor], Tensor] | None = None


def damaged_views(clean: Tensor, rng: torch.Generator) -> Iterator[View]:
    """Damage each image (N, C, H, W) in one of six ways, consecutive ones alike.

    Holes and scattered pixels are filled as `Mask.initial` does, reduced images enlarged as `Downsample.initial`
    does, gray ones repeated in every channel.
    """
    total = sum(_SHARES.values())
    first, done = 0, 0
    for damage, share in _SHARES.items():
        done += share
        until = round(len(clean) * done / total)
        if until > first:
            yield from damage(clean[first:until], rng)
        first = until


def _gray(x: Tensor, rng: torch.Generator) -> Iterator[View]:
    yield _measured(x, Grayscale()) if x.shape[1] == 3 else View(x, x)


def _hole(x: Tensor, rng: torch.Generator) -> Iterator[View]:
    """Rectangles, every other one in the middle."""
    n, _, *sides = x.shape
    known = torch.ones_like(x[:, :1])
    centred = torch.arange(n, device=x.device) % 2 == 0
    inside = known.bool()
    for axis, side in zip((2, 3), sides, strict=True):
        length = side * uniform(_HOLE, n, rng)
        start = torch.where(centred, 0.5 * (side - length), (side - length) * uniform((0.0, 1.0), n, rng))
        shape = [1, 1, 1, 1]
        shape[axis] = side
        place = torch.arange(side, device=x.device).view(shape)
        start, length = start.view(-1, 1, 1, 1), length.view(-1, 1, 1, 1)
        inside = inside & (place >= start) & (place < start + length)
    yield _measured(x, Mask(known - inside.to(x)))


def _scattered(x: Tensor, rng: torch.Generator) -> Iterator[View]:
    share = uniform(_KNOWN, len(x), rng).view(-1, 1, 1, 1)
    drawn = torch.rand(x[:, :1].shape, device=x.device, generator=rng)
    yield _measured(x, Mask((drawn < share).to(x)))


def _reduced(x: Tensor, rng: torch.Generator) -> Iterator[View]:
    for part, factor in enumerate(_FACTORS):
        if len(x[part :: len(_FACTORS)]):
            yield _measured(x[part :: len(_FACTORS)], Downsample(factor))


def _noisy(x: Tensor, rng: torch.Generator) -> Iterator[View]:
    sigma = uniform(_SIGMA, len(x), rng).view(-1, 1, 1, 1)
    noise = torch.randn(x.shape, device=x.device, generator=rng)
    yield View(x, x + sigma * noise)


def _few_levels(x: Tensor, rng: torch.Generator) -> Iterator[View]:
    low, high = _LEVELS
    steps = torch.randint(low - 1, high, (len(x), 1, 1, 1), device=x.device, generator=rng)
    yield View(x, (x * steps).round() / steps)


_SHARES: dict[Callable[[Tensor, torch.Generator], Iterator[View]], int] = {
    _gray: 10,
    _hole: 10,
    _scattered: 3,
    _reduced: 5,
    _noisy: 2,
    _few_levels: 2,
}
"""How often images are damaged in each way."""


def _measured(x: Tensor, operator: LinearOperator) -> View:
    y = operator(x)
    seen = y.expand_as(x) if isinstance(operator, Grayscale) else operator.initial(y, tuple(x.shape[1:]))
    return View(x, seen, lambda z: operator.project(z, y))
