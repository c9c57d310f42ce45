"""From colour to one channel: weighted grayscale and HSV value."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import check_shape, check_tensor, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.operators._base import DataStep, LinearOperator, Operator

__all__ = ["Grayscale", "Value"]


def _image_shape(where: str, output_shape: Shape, channels: int) -> Shape:
    if len(output_shape) != 3 or output_shape[0] != 1:
        raise ShapeError(where, expected="a measurement of shape (1, H, W)", found=str(tuple(output_shape)))
    return (channels, *output_shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class Grayscale(LinearOperator):
    """``A x = 0.299 R + 0.587 G + 0.114 B``: luma of ITU-R BT.601.

    Args:
        weights: One finite weight for each channel, a sequence or a tensor (C,), not all 0. Gradients flow
            to a tensor.

    Shapes:
        x: (B, 3, H, W), or as many channels as weights. y: (B, 1, H, W).

    Raises:
        RangeError: The weights are all 0 or not finite.
        ShapeError: The weights have not one axis, or the image another number of channels.

    Example:
        >>> Grayscale()(torch.ones(1, 3, 1, 1)).squeeze().item()
        1.0
    """

    weights: Tensor | tuple[float, ...] = (0.299, 0.587, 0.114)

    def __post_init__(self) -> None:
        given: object = self.weights
        if isinstance(given, list):
            object.__setattr__(self, "weights", tuple(given))
        elif not isinstance(given, torch.Tensor | tuple):
            raise DTypeError(
                self.name, expected="weights as a sequence or tensor", found=type(given).__name__
            )
        w = self._weights(torch.zeros((), dtype=torch.float64)).detach()
        if w.ndim != 1 or w.numel() == 0:
            raise ShapeError(self.name, expected="weights of shape (C,)", found=str(tuple(w.shape)))
        if not bool(torch.isfinite(w).all()) or not bool((w != 0).any()):
            raise RangeError(self.name, expected="finite weights, not all 0", found=str(w.tolist()))

    def _weights(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.weights, dtype=like.dtype, device=like.device)

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return len(self.weights)

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """(1, H, W)."""
        return (1, *input_shape[1:])

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """(C, H, W)."""
        return _image_shape(f"{self.name}.input_shape_of", output_shape, self.channels)

    def _check_input(self, x: object, where: str = "") -> Tensor:
        x = check_tensor(where or self.name, "x", x)
        check_shape(where or self.name, "x", x, (self.channels, None, None))
        return x

    def _check_output(self, y: object, where: str) -> Tensor:
        y = check_tensor(where, "y", y)
        check_shape(where, "y", y, (1, None, None))
        return y

    def _column(self, like: Tensor) -> Tensor:
        return self._weights(like).view(-1, 1, 1)

    def _apply(self, x: Tensor) -> Tensor:
        return (self._column(x) * x).sum(1, keepdim=True)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._column(y) * y

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Euclidean norm of the weights."""
        weights = torch.as_tensor(self.weights, dtype=_working_dtype(self.weights))
        return (weights * weights).sum().sqrt()

    def data_step(self, y: Tensor) -> DataStep:
        """``z + step w (y - w.z) / (1 + step |w|^2)``: colours move along w, all other differences stay."""
        w = self._column(y)
        energy = (w * w).sum()

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            s = expand(step, z)
            return z + w * ((y - (w * z).sum(1, keepdim=True)) * (s / (1 + s * energy)))

        return step_from

    def pinv(self, y: Tensor) -> Tensor:
        """``w y / |w|^2``."""
        w = self._column(self._check_output(y, f"{self.name}.pinv"))
        return w * (y / (w * w).sum())


def _working_dtype(weights: Tensor | tuple[float, ...]) -> torch.dtype:
    return weights.dtype if isinstance(weights, torch.Tensor) else torch.get_default_dtype()


@dataclasses.dataclass(frozen=True, eq=False)
class Value(Operator):
    """``A(x) = max(R, G, B)``: the value channel of HSV, nonlinear.

    Where channels tie, the gradient is shared equally among them, which is the subgradient of least norm:
    from a gray start, all channels move together.

    Shapes:
        x: (B, 3, H, W). y: (B, 1, H, W).

    Raises:
        ShapeError: The image has not three channels.

    Example:
        >>> Value()(torch.tensor([0.2, 0.9, 0.5]).view(1, 3, 1, 1)).squeeze()
        tensor(0.9000)
    """

    is_linear: ClassVar[bool] = False

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """(1, H, W)."""
        return (1, *input_shape[1:])

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """(3, H, W)."""
        return _image_shape("Value.input_shape_of", output_shape, 3)

    def _check_input(self, x: object, where: str = "") -> Tensor:
        x = check_tensor(where or self.name, "x", x)
        check_shape(where or self.name, "x", x, (3, None, None))
        return x

    def _apply(self, x: Tensor) -> Tensor:
        return x.amax(1, keepdim=True)
