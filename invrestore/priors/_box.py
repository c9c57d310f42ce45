"""Values in a range, as a hard constraint."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import torch

from invrestore._checks import check_image, check_nonnegative
from invrestore._types import PerImage, Tensor
from invrestore.errors import DTypeError, RangeError
from invrestore.priors._base import Capability, Prior

__all__ = ["Box"]


@dataclasses.dataclass(frozen=True, eq=False)
class Box(Prior):
    """Indicator of ``lower <= x <= upper``: 0 inside, infinite outside.

    A constraint has no weight: ``lam`` is 1 and stays 1.

    Args:
        lower: Smallest admissible value, a number or a tensor that broadcasts to the images.
        upper: Largest admissible value, likewise; an infinity leaves that side open.

    Shapes:
        x, v: (B, C, H, W).

    Raises:
        DTypeError: A bound is neither a number nor a tensor.
        RangeError: A bound is NaN, or ``lower`` exceeds ``upper`` somewhere.

    Example:
        >>> Box().prox(torch.tensor([[[[-1.0, 0.5, 3.0]]]]))
        tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """

    lower: float | Tensor = 0.0
    upper: float | Tensor = 1.0
    lam: PerImage | None = dataclasses.field(default=1.0, init=False)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.VALUE, Capability.PROX})
    is_convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if isinstance(bound, bool) or not isinstance(bound, int | float | torch.Tensor):
                raise DTypeError(
                    self.name, expected=f"{name} as a number or tensor", found=type(bound).__name__
                )
        lower, upper = torch.as_tensor(self.lower), torch.as_tensor(self.upper)
        # Written so that NaN, which compares false, is refused too.
        if not bool((lower <= upper).all()):
            raise RangeError(self.name, expected="lower <= upper", found="bounds that cross, or NaN")

    def with_lam(self, lam: PerImage) -> Self:
        """The box itself: a constraint has no weight."""
        return self

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Both bounds as tensors of the type and place of ``like``."""
        lower, upper = (
            torch.as_tensor(b, dtype=like.dtype, device=like.device) for b in (self.lower, self.upper)
        )
        return lower, upper

    def value(self, x: Tensor) -> Tensor:
        """0 for each image that lies in the box up to rounding, else infinity; shape (B,)."""
        x = check_image(f"{self.name}.value", x)
        slack = 16 * torch.finfo(x.dtype).eps
        outside = (x < self.lower - slack) | (x > self.upper + slack)
        return torch.where(outside.flatten(1).any(1), torch.inf, 0.0).to(x.dtype)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """Projection: ``v`` clamped to the box, whatever the step."""
        v = check_image(f"{self.name}.prox", v, "v")
        check_nonnegative(f"{self.name}.prox", "step", step)
        lower, upper = self.bounds(v)
        return torch.minimum(torch.maximum(v, lower), upper)
