"""Forward differences, the analysis operator behind total variation."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch

from invrestore._types import Shape, Tensor
from invrestore.errors import ShapeError
from invrestore.operators._base import LinearOperator

__all__ = ["Gradient"]


@dataclasses.dataclass(frozen=True, eq=False)
class Gradient(LinearOperator):
    """Forward differences ``(x[i+1] - x[i], x[j+1] - x[j])`` with Neumann ends.

    The difference past the last row or column is 0.

    Shapes:
        x: (B, C, H, W). Returns: (B, 2C, H, W), the C vertical differences first, then the C horizontal ones.

    Example:
        >>> Gradient()(torch.tensor([[[[1.0, 4.0], [2.0, 6.0]]]])).tolist()
        [[[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [4.0, 0.0]]]]
    """

    image_range: ClassVar[bool] = False

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """(2C, H, W)."""
        c, h, w = input_shape
        return (2 * c, h, w)

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """(C, H, W) of the image behind a field of differences."""
        c, h, w = output_shape
        if c % 2:
            raise ShapeError(
                f"{self.name}.adjoint",
                expected="y with an even number of channels, 2C",
                found=f"{c} channels",
            )
        return (c // 2, h, w)

    def _apply(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        out = x.new_zeros(x.shape[0], 2 * c, *x.shape[2:])
        out[:, :c, :-1] = x[:, :, 1:] - x[:, :, :-1]
        out[:, c:, :, :-1] = x[..., 1:] - x[..., :-1]
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        c, _, _ = self.input_shape_of(tuple(y.shape[1:]))
        down, right = y[:, :c, :-1], y[:, c:, :, :-1]
        out = y.new_zeros(y.shape[0], c, *y.shape[2:])
        out[:, :, 1:] += down
        out[:, :, :-1] -= down
        out[..., 1:] += right
        out[..., :-1] -= right
        return out

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Bound sqrt(8) for any size, exactly ``2 sqrt(cos^2(pi/2H) + cos^2(pi/2W))`` for a known one."""
        if input_shape is None:
            return torch.tensor(math.sqrt(8.0))
        _, h, w = input_shape
        squares = sum(4 * math.cos(math.pi / (2 * n)) ** 2 for n in (h, w) if n > 1)
        # Rounding to float32 must not turn the bound into a number below the norm.
        return torch.tensor(math.sqrt(squares) * (1 + 1e-6))
