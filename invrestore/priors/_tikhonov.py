"""Quadratic penalties."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import torch

from invrestore._checks import check_batch_tensor, check_choice, check_image, check_step, expand
from invrestore._types import PerImage, Tensor
from invrestore.errors import DTypeError
from invrestore.operators import Gradient, LinearOperator
from invrestore.operators._linalg import conjugate_gradient
from invrestore.priors._base import Capability, Prior

__all__ = ["Tikhonov"]


@dataclasses.dataclass(frozen=True, eq=False)
class Tikhonov(Prior):
    """Quadratic penalty, ``lam/2 * ||K x||^2``.

    Args:
        lam: Weight >= 0, a number or (B,), or None: ``solve`` chooses it.
        operator: K. None is the identity (small values are likely), ``"gradient"`` the forward differences of
            ``operators.Gradient`` (smooth images are likely); any LinearOperator serves.

    Shapes:
        x, v: (B, C, H, W).

    Raises:
        RangeError: ``lam`` is negative or not finite.
        UnknownNameError: ``operator`` is a string other than ``"gradient"``.
        DTypeError: ``operator`` is none of the above.

    Example:
        >>> Tikhonov(3.0).prox(torch.full((1, 1, 1, 2), 8.0))
        tensor([[[[2., 2.]]]])

    Reference:
        Tikhonov (1963). The prox is closed form for None, one cosine transform (an FFT of the evenly extended
        image) for ``"gradient"``, and conjugate gradients for another K, to a relative residual of 1e-6 in
        float32 and 1e-12 in float64.
    """

    lam: PerImage | None = None
    operator: LinearOperator | Literal["gradient"] | None = dataclasses.field(default=None, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.VALUE, Capability.GRAD, Capability.PROX}
    )
    is_convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.operator, str):
            check_choice(self.name, "operator", self.operator, ["gradient"])
        elif self.operator is not None and not isinstance(self.operator, LinearOperator):
            raise DTypeError(
                self.name,
                expected="operator as a LinearOperator, 'gradient' or None",
                found=type(self.operator).__name__,
                remedy="operators.from_scipy wraps matrices.",
            )

    @property
    def _map(self) -> LinearOperator | None:
        return Gradient() if isinstance(self.operator, str) else self.operator

    def _checked(self, method: str, x: Tensor, name: str) -> Tensor:
        where = f"{self.name}.{method}"
        x = check_image(where, x, name)
        check_batch_tensor(where, "lam", self.lam, x.shape[0])
        return x

    def value(self, x: Tensor) -> Tensor:
        """``lam/2 ||K x||^2`` of each image, shape (B,)."""
        x = self._checked("value", x, "x")
        seen = x if self._map is None else self._map(x)
        return self.weight * 0.5 * seen.abs().square().flatten(1).sum(1)

    def grad(self, x: Tensor) -> Tensor:
        """``lam K^H K x``."""
        x = self._checked("grad", x, "x")
        return expand(self.weight, x) * (x if self._map is None else self._map.gram(x))

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """``(I + step lam K^H K)^{-1} v``."""
        v = self._checked("prox", v, "v")
        where = f"{self.name}.prox"
        check_step(where, step)
        check_batch_tensor(where, "step", step, v.shape[0])
        weight = expand(self.weight * step, v)
        K = self._map
        if K is None:
            return v / (1 + weight)
        if isinstance(K, Gradient):
            return _smooth(v, weight)
        return conjugate_gradient(lambda x: x + weight * K.gram(x), v, init=v)


def _smooth(v: Tensor, weight: PerImage) -> Tensor:
    """``(I + weight D^T D)^{-1} v``: the even extension turns Neumann ends into periodic ones."""
    height, width = v.shape[-2:]
    work = v if v.dtype == torch.float64 else v.float()
    even = torch.cat([work, work.flip(-2)], -2)
    even = torch.cat([even, even.flip(-1)], -1)

    def squares(n: int, count: int) -> Tensor:
        return (
            4 * torch.sin(torch.arange(count, dtype=work.dtype, device=v.device) * (math.pi / (2 * n))) ** 2
        )

    laplacian = squares(height, 2 * height)[:, None] + squares(width, width + 1)
    spectrum = torch.fft.rfft2(even) / (1 + weight * laplacian)
    smooth: Tensor = torch.fft.irfft2(spectrum, s=even.shape[-2:])[..., :height, :width]
    return smooth.to(v.dtype)
