"""Square pieces of a measurement, each with the operator that made it.

What is estimated from a large measurement as a whole, such as the weight of a prior, can be estimated from some of it.
"""

from __future__ import annotations

import dataclasses
from functools import singledispatch

import torch

from invrestore._types import Shape, Tensor
from invrestore.operators._base import LinearOperator
from invrestore.operators._blur import Blur
from invrestore.operators._identity import Identity
from invrestore.operators._mask import Mask

__all__ = ["Pieces", "pieces_of"]

_LEAST_KNOWN = 0.1
"""Share of known pixels that every piece of a masked measurement must have."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of a batch of measurements as a batch of their own.

    Attributes:
        y: (B * count, C, side, side), all pieces of the first measurement first.
        operator: What made them.
        input_shape: (C, H, W) of the image behind a piece.
        count: Pieces of each measurement.
    """

    y: Tensor
    operator: LinearOperator
    input_shape: Shape
    count: int


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Places of the pieces, evenly spread: ``per_axis`` along each axis of ``size``."""

    batch: int
    size: tuple[int, int]
    side: int
    per_axis: int

    def cut(self, t: Tensor) -> Tensor:
        """The pieces of a tensor (B or 1, C, H, W)."""
        rows, columns = (
            [(n - self.side) * (2 * i + 1) // (2 * self.per_axis) for i in range(self.per_axis)]
            for n in self.size
        )
        found = [t[..., a : a + self.side, b : b + self.side] for a in rows for b in columns]
        return torch.stack([piece.expand(self.batch, -1, -1, -1) for piece in found], 1).flatten(0, 1)

    def repeat(self, t: Tensor) -> Tensor:
        """A tensor with one entry for each image, (B, ...), for their pieces; one for all images stays as it is."""
        return t if t.shape[0] == 1 else t.repeat_interleave(self.per_axis**2, 0)


def pieces_of(operator: LinearOperator, y: Tensor, *, side: int, per_axis: int) -> Pieces | None:
    """Square pieces of measurements, evenly spread, and the operator they came from.

    What lies around a piece is unknown, so that a blurred one comes from a larger image by a "valid" blur: the model of
    the whole, exactly, whatever its borders.

    Args:
        operator: A.
        y: Measurements (B, C, H, W).
        side: Side of a piece in pixels.
        per_axis: Pieces along each axis.

    Returns:
        None where pieces of ``y`` do not stand for it: for operators without local rules, measurements smaller than a
        piece, kernels wider than half a piece, and pieces with hardly a known pixel.
    """
    if y.ndim != 4 or min(y.shape[-2:]) < side:
        return None
    grid = _Grid(y.shape[0], (y.shape[-2], y.shape[-1]), side, per_axis)
    local = _local(operator, grid)
    if local is None:
        return None
    pieces = grid.cut(y)
    return Pieces(pieces, local, local.input_shape_of(tuple(pieces.shape[1:])), per_axis**2)


@singledispatch
def _local(operator: LinearOperator, grid: _Grid) -> LinearOperator | None:
    """The operator for the pieces of its measurements, or None."""
    return None


@_local.register
def _(operator: Identity, grid: _Grid) -> LinearOperator | None:
    return operator


@_local.register
def _(operator: Mask, grid: _Grid) -> LinearOperator | None:
    mask = grid.cut(operator.mask)
    known = (mask != 0).flatten(1).double().mean(1)
    return Mask(mask) if float(known.min()) >= _LEAST_KNOWN else None


@_local.register
def _(operator: Blur, grid: _Grid) -> LinearOperator | None:
    kernel = operator.kernel
    if 2 * max(kernel.shape[-2:]) > grid.side:
        return None
    return Blur(grid.repeat(kernel), "valid")
