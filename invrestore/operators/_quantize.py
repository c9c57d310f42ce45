"""Few levels per channel, and rounding with a useful gradient."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch

from invrestore._checks import check_choice, check_count, check_nonnegative, check_shape
from invrestore._types import Shape, Tensor
from invrestore.errors import RangeError
from invrestore.operators._base import LinearOperator, Operator
from invrestore.operators._identity import Identity

__all__ = ["Quantize", "pass_through", "round_to_integers", "soft_round"]

GRADIENTS = ("straight-through", "soft")


def pass_through(value: Tensor, gradient_of: Tensor) -> Tensor:
    """``value`` exactly, with the gradient of ``gradient_of``.

    The added term is exactly 0, so that no rounding error touches the value; the common form
    ``v + (round(v) - v).detach()`` does not have this property.
    """
    return value.detach() + (gradient_of - gradient_of.detach())


def soft_round(v: Tensor, temperature: float) -> Tensor:
    """Smooth staircase: a logistic step of width ``temperature`` at each rounding threshold n + 1/2.

    Each step is scaled to height 1, so the staircase is continuous. Temperature to 0 gives rounding, to
    infinity the identity less one half at thresholds.
    """
    floor = v.detach().floor()
    half = math.tanh(0.25 / temperature)
    # logistic(u) = (1 + tanh(u/2)) / 2; this form neither overflows nor cancels.
    return floor + 0.5 + 0.5 * torch.tanh((v - floor - 0.5) / (2 * temperature)) / half


def round_to_integers(v: Tensor, gradient: str = "straight-through", temperature: float = 0.2) -> Tensor:
    """Nearest integer, halves upwards, with the gradient of the identity or of ``soft_round``."""
    nearest = (v.detach() + 0.5).floor()
    return pass_through(nearest, v if gradient == "straight-through" else soft_round(v, temperature))


def check_gradient(where: str, gradient: str, temperature: float) -> None:
    """Raise unless ``gradient`` names a rule and ``temperature`` is positive."""
    check_choice(where, "gradient", gradient, GRADIENTS)
    check_nonnegative(where, "temperature", temperature, positive=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Quantize(Operator):
    """``A(x) = round(clip(x, 0, 1) (levels - 1)) / (levels - 1)``: the nearest of equally spaced values.

    The true derivative is 0 almost everywhere; the one used instead is chosen by ``gradient``.

    Args:
        levels: Number of values, >= 2; 5 gives {0, 0.25, 0.5, 0.75, 1}. Halves round upwards.
        gradient: "straight-through": derivative 1 everywhere, also outside [0, 1], so that values beyond the
            ends are pulled back. "soft": derivative of ``soft``, large near thresholds, 0 outside [0, 1].
            The value of the operator is the same for both.
        temperature: Width of the soft steps in units of one step, > 0.

    Shapes:
        x, y: (B, C, H, W).

    Raises:
        RangeError: ``levels`` < 2 or ``temperature`` <= 0.
        UnknownNameError: ``gradient`` is neither of the two.

    Example:
        >>> Quantize(5)(torch.tensor([[[[0.1, 0.3, 0.8]]]]))
        tensor([[[[0.0000, 0.2500, 0.7500]]]])

    Reference:
        Straight-through estimator: Bengio, Leonard and Courville (2013).
    """

    levels: int
    gradient: str = dataclasses.field(default="straight-through", kw_only=True)
    temperature: float = dataclasses.field(default=0.2, kw_only=True)

    is_linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count(self.name, "levels", self.levels, least=2)
        check_gradient(self.name, self.gradient, self.temperature)

    @property
    def step(self) -> float:
        """Distance between neighbouring values."""
        return 1 / (self.levels - 1)

    def _apply(self, x: Tensor) -> Tensor:
        nearest = self._nearest(x)
        return pass_through(nearest, x if self.gradient == "straight-through" else self.soft(x))

    def _nearest(self, x: Tensor) -> Tensor:
        index = (x.detach().clamp(0, 1) * (self.levels - 1) + 0.5).floor()
        return index / (self.levels - 1)

    def soft(self, x: Tensor) -> Tensor:
        """The smooth staircase whose derivative ``gradient="soft"`` uses; within [0, 1], near ``A(x)``."""
        return soft_round(x.clamp(0, 1) * (self.levels - 1), self.temperature) / (self.levels - 1)

    def transform(self, input_shape: Shape) -> LinearOperator:
        """The linear map whose values ``interval`` bounds: the identity."""
        return Identity()

    def interval(
        self, y: Tensor, *, limits: tuple[float, float] | None = (0.0, 1.0)
    ) -> tuple[Tensor, Tensor]:
        """Smallest and largest x that quantise to ``y``; bounds for ``fidelity.Interval``.

        Inside the range that is ``y`` -/+ half a step. Quantisation clips, so every x <= step/2 gives 0 and
        every x >= 1 - step/2 gives 1; since images live in [0, 1], these two outer bins end at ``limits``.

        Args:
            y: Quantised image (B, C, H, W); values are moved to the nearest level first.
            limits: Ends of the two outer bins; None leaves them infinite.

        Returns:
            (lower, upper), both of y's shape.

        Raises:
            RangeError: ``limits`` leave no room for the outer bins.
        """
        y = self._check_output(y, f"{self.name}.interval")
        check_shape(f"{self.name}.interval", "y", y, (None, None, None))
        low, high = (-math.inf, math.inf) if limits is None else limits
        half = 0.5 * self.step
        if not (low <= half and high >= 1 - half):
            raise RangeError(
                f"{self.name}.interval",
                expected=f"limits (low <= {half:g}, high >= {1 - half:g})",
                found=str(limits),
            )
        level = self._nearest(y)
        lower = torch.where(level <= half, low, level - half)
        upper = torch.where(level >= 1 - half, high, level + half)
        return lower.to(y.dtype), upper.to(y.dtype)

    def estimate_sigma(self, y: Tensor) -> Tensor:
        """``step / sqrt(12)`` for every image: the standard deviation of a uniform rounding error."""
        y = self._check_output(y, f"{self.name}.estimate_sigma")
        return torch.full((y.shape[0],), self.step / math.sqrt(12), device=y.device, dtype=y.dtype)
