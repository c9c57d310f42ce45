"""How the measurement may differ from ``A x``: value, gradient and proximal map in measurement space.

Every fidelity acts on ``u = A(x)`` and ``y``, both (B, *output_shape), and is summed per image. None carries
the factor 1/sigma^2: that belongs to the weight of the prior.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from invrestore._checks import check_nonnegative, expand
from invrestore._types import PerImage, Tensor
from invrestore.errors import RangeError, ShapeError

__all__ = ["L1", "L2", "Fidelity", "Huber", "Interval", "Poisson", "Weighted"]


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


@dataclasses.dataclass(frozen=True, eq=False)
class Fidelity(ABC):
    """f(u; y), convex in u.

    Attributes:
        curvature: Lipschitz constant of the gradient, or None where the gradient is not Lipschitz.
    """

    curvature: ClassVar[float | None] = None

    @property
    def name(self) -> str:
        """Class name, used in messages."""
        return type(self).__name__

    @abstractmethod
    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """f(u; y) of each image, shape (B,)."""

    @abstractmethod
    def grad(self, u: Tensor, y: Tensor) -> Tensor:
        """Gradient (or a subgradient) in u, shape of u."""

    @abstractmethod
    def prox(self, v: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """argmin_u step * f(u; y) + 1/2 ||u - v||^2, shape of v."""


@dataclasses.dataclass(frozen=True, eq=False)
class L2(Fidelity):
    """Half the squared norm, 1/2 ||u - y||^2: white Gaussian noise.

    Example:
        >>> L2().value(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
        tensor([2.])
    """

    curvature: ClassVar[float | None] = 1.0

    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """Half the squared norm of u - y."""
        return 0.5 * _sum((u - y) ** 2)

    def grad(self, u: Tensor, y: Tensor) -> Tensor:
        """``u - y``."""
        return u - y

    def prox(self, v: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """``(v + step y) / (1 + step)``."""
        s = expand(step, v)
        return (v + s * y) / (1 + s)


@dataclasses.dataclass(frozen=True, eq=False)
class L1(Fidelity):
    """||u - y||_1: impulse noise and outliers."""

    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """Sum of absolute differences."""
        return _sum((u - y).abs())

    def grad(self, u: Tensor, y: Tensor) -> Tensor:
        """Sign of the difference, 0 where they agree."""
        return (u - y).sign()

    def prox(self, v: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """Soft threshold of ``v`` towards ``y``."""
        d, s = v - y, expand(step, v)
        return y + d.sign() * (d.abs() - s).clamp_min(0)


@dataclasses.dataclass(frozen=True, eq=False)
class Huber(Fidelity):
    """Quadratic up to ``delta``, linear beyond: Gaussian noise with some outliers.

    Args:
        delta: Residual at which the penalty turns linear, > 0, in units of the image range.

    Reference:
        Huber (1964). The quadratic part is r^2 / 2, so that small residuals weigh as in L2.
    """

    delta: float = 0.05
    curvature: ClassVar[float | None] = 1.0

    def __post_init__(self) -> None:
        check_nonnegative(self.name, "delta", self.delta, positive=True)

    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """Sum of r^2/2 where |r| <= delta, else delta (|r| - delta/2)."""
        r = (u - y).abs()
        return _sum(torch.where(r <= self.delta, 0.5 * r**2, self.delta * (r - 0.5 * self.delta)))

    def grad(self, u: Tensor, y: Tensor) -> Tensor:
        """The residual clipped to [-delta, delta]."""
        return (u - y).clamp(-self.delta, self.delta)

    def prox(self, v: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """Closed form: shrink quadratically near y, subtract step * delta far from it."""
        d, s = v - y, expand(step, v)
        return y + torch.where(d.abs() <= self.delta * (1 + s), d / (1 + s), d - s * self.delta * d.sign())


@dataclasses.dataclass(frozen=True, eq=False)
class Poisson(Fidelity):
    """Negative log-likelihood of photon counts, scaled back to image units.

    With ``gain`` counts per unit, counts k = gain * y follow Poisson(gain * (u + background)), and

        f(u; y) = sum (u + background) - y log(u + background),

    which is the negative log-likelihood divided by gain, less terms without u.

    Args:
        background: Constant added to u before counting, >= 0, in image units.
    """

    background: float = 0.0

    def __post_init__(self) -> None:
        check_nonnegative(self.name, "background", self.background)

    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """Sum of v - y log v with v = u + background; infinite where v < 0, or v = 0 < y."""
        v = u + self.background
        cost = v - torch.xlogy(y, v.clamp_min(0))
        return _sum(torch.where(v < 0, torch.inf, cost))

    def grad(self, u: Tensor, y: Tensor) -> Tensor:
        """``1 - y / (u + background)``; u is held above a tiny positive number."""
        return 1 - y / (u + self.background).clamp_min(torch.finfo(u.dtype).eps)

    def prox(self, v: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """Positive root of w^2 - (v + background - step) w - step y = 0, less the background."""
        s = expand(step, v)
        b = v + self.background - s
        root = torch.sqrt(b**2 + 4 * s * y.clamp_min(0))
        # For b < 0 the usual formula cancels; the conjugate form does not.
        w = torch.where(b >= 0, 0.5 * (b + root), 2 * s * y.clamp_min(0) / (root - b).clamp_min(1e-30))
        return w - self.background


@dataclasses.dataclass(frozen=True, eq=False)
class Interval(Fidelity):
    """The box lower <= u <= upper as a hard constraint, with an optional quadratic pull to y inside it.

    f(u; y) = pull/2 ||u - y||^2 inside, infinite outside. For quantised data the bounds are the values that round
    to ``y``: ``operator.interval(y)``. Without the pull, a prior such as TV runs to the edges of the box, which is
    worse than the quantised picture itself.

    Args:
        lower: Smallest admissible values, shape of y.
        upper: Largest admissible values, shape of y.
        pull: Weight of the quadratic term, >= 0.

    Raises:
        ShapeError: The bounds differ in shape.
        RangeError: A lower bound exceeds its upper bound, or ``pull`` is negative.
    """

    lower: Tensor
    upper: Tensor
    pull: float = 0.0

    def __post_init__(self) -> None:
        check_nonnegative(self.name, "pull", self.pull)
        if self.lower.shape != self.upper.shape:
            raise ShapeError(
                self.name,
                expected=f"bounds of one shape, lower {tuple(self.lower.shape)}",
                found=f"upper {tuple(self.upper.shape)}",
            )
        if bool((self.lower > self.upper).any()):
            raise RangeError(
                self.name, expected="lower <= upper", found="a lower bound above its upper bound"
            )

    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """pull/2 ||u - y||^2 where every sample lies in its interval (up to rounding), else infinity."""
        slack = 16 * torch.finfo(u.dtype).eps
        outside = ((u < self.lower - slack) | (u > self.upper + slack)).flatten(1).any(1)
        return torch.where(outside, torch.inf, 0.5 * self.pull * _sum((u - y) ** 2))

    def grad(self, u: Tensor, y: Tensor) -> Tensor:
        """``u`` less its nearest admissible value (half the squared distance to the box), + pull (u - y)."""
        return u - torch.minimum(torch.maximum(u, self.lower), self.upper) + self.pull * (u - y)

    def prox(self, v: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """The quadratic prox, then projection onto the box; exact, because both act sample by sample."""
        if self.pull > 0:
            s = expand(step, v) * self.pull
            v = (v + s * y) / (1 + s)
        return torch.minimum(torch.maximum(v, self.lower), self.upper)


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted(Fidelity):
    """1/2 sum w (u - y)^2: noise whose variance differs from sample to sample (w = 1/variance, scaled).

    Args:
        weights: >= 0, broadcastable to y; 0 leaves a sample out.

    Raises:
        RangeError: A weight is negative or not finite, or all are 0.
    """

    weights: Tensor

    def __post_init__(self) -> None:
        w = self.weights.detach()
        if not bool(torch.isfinite(w).all()) or bool((w < 0).any()) or not bool((w > 0).any()):
            raise RangeError(self.name, expected="finite weights >= 0, some above 0", found="others")

    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """Half the weighted squared norm."""
        return 0.5 * _sum(self.weights * (u - y) ** 2)

    def grad(self, u: Tensor, y: Tensor) -> Tensor:
        """``w (u - y)``; its Lipschitz constant is the largest weight."""
        return self.weights * (u - y)

    def prox(self, v: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """``(v + step w y) / (1 + step w)``, sample by sample."""
        s = expand(step, v) * self.weights
        return (v + s * y) / (1 + s)
