"""The operator that changes nothing: denoising."""

from __future__ import annotations

import dataclasses

import torch

from invrestore._checks import expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.operators._base import DataStep, LinearOperator

__all__ = ["Identity"]


@dataclasses.dataclass(frozen=True, eq=False)
class Identity(LinearOperator):
    """``A x = x``: the measurement is the image plus noise.

    Example:
        >>> x = torch.rand(1, 3, 4, 5)
        >>> bool((Identity()(x) == x).all())
        True
    """

    def _apply(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """1."""
        return torch.ones(())

    def data_step(self, y: Tensor) -> DataStep:
        """``(z + step y) / (1 + step)``."""

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            s = expand(step, z)
            return (z + s * y) / (1 + s)

        return step_from

    def pinv(self, y: Tensor) -> Tensor:
        """``y``."""
        return y
