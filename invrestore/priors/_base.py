"""The contract of a prior: what it can do is declared, never guessed."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, ClassVar, Self

import torch

from invrestore._checks import check_nonnegative
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import CapabilityError
from invrestore.operators import LinearOperator, Operator

__all__ = ["Capability", "Prior"]


class Capability(enum.Enum):
    """What a prior can do; a solver names what it needs and ``solve`` compares before iteration 1."""

    VALUE = "value"
    """``value(x)``: lam * g(x) for each image."""
    GRAD = "grad"
    """``grad(x)``: gradient of lam * g at x."""
    PROX = "prox"
    """``prox(v, step)``: argmin_x step * lam * g(x) + 1/2 ||x - v||^2."""
    ANALYSIS = "analysis"
    """g(x) = h(K x), or min_w h(K (x, w)), with ``analysis(shape)`` = K and ``dual_prox`` the prox of h's conjugate."""
    DENOISE = "denoise"
    """``denoise(x, sigma)``: an image with white noise of standard deviation sigma removed."""
    LATENT = "latent"
    """``generate(z)``: an image from a latent vector."""
    RESTORE = "restore"
    """``restore(y, operator, sigma)``: a restored image from a measurement, without iterations."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
    """What images look like: ``lam * g(x)``, or the denoiser, generator or restorer that stands for it.

    A subclass is a frozen dataclass. It lists in ``capabilities`` which of the methods below it implements;
    the others raise CapabilityError.

    Args:
        lam: Weight >= 0, a number or a tensor (B,), or None: ``solve`` chooses it for each image.
    """

    lam: PerImage | None = dataclasses.field(default=None, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    is_convex: ClassVar[bool] = False
    has_inner_problem: ClassVar[bool] = False
    """g is itself a minimum over another variable: solvers iterate on ``analysis`` and leave ``value`` alone."""

    def __post_init__(self) -> None:
        check_nonnegative(self.name, "lam", self.lam)

    @property
    def name(self) -> str:
        """Class name, used in messages."""
        return type(self).__name__

    def can(self, *needs: Capability) -> bool:
        """Whether the prior has all of the given capabilities."""
        return set(needs) <= self.capabilities

    def with_lam(self, lam: PerImage) -> Self:
        """Copy with another weight."""
        return dataclasses.replace(self, lam=lam)

    @property
    def weight(self) -> PerImage:
        """``lam``; raises CapabilityError while it is None.

        Raises:
            CapabilityError: ``lam`` was not given, and only ``solve`` can choose it.
        """
        if self.lam is None:
            raise CapabilityError(
                self.name,
                expected="a weight lam",
                found="lam=None",
                remedy=f"priors.{self.name}(lam=...) sets it; solve(...) chooses it from the data.",
            )
        return self.lam

    def _lacks(self, what: str) -> CapabilityError:
        has = ", ".join(sorted(c.value for c in self.capabilities)) or "nothing"
        return CapabilityError(
            f"{self.name}.{what}", expected=f"a prior with {what}", found=f"one with {has}"
        )

    def value(self, x: Tensor) -> Tensor:
        """``lam * g(x)`` of each image, shape (B,)."""
        raise self._lacks("value")

    def grad(self, x: Tensor) -> Tensor:
        """Gradient of ``lam * g`` at ``x``, shape of x."""
        raise self._lacks("grad")

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """argmin_x step * lam * g(x) + 1/2 ||x - v||^2, shape of v."""
        raise self._lacks("prox")

    def prox_from(self, v: Tensor, step: PerImage, dual: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``prox``, begun where an earlier call for a nearby ``v`` ended, and what to pass to the next call.

        Solvers keep ``dual`` in their state, so that the prior itself stays without one. Priors in closed form have
        nothing to keep.
        """
        return self.prox(v, step), None

    def analysis(self, shape: Shape) -> LinearOperator:
        """K of g(x) = h(K x), for images of shape (C, H, W); acts on x and auxiliary channels stacked."""
        raise self._lacks("analysis")

    def auxiliary_channels(self, channels: int) -> int:
        """Channels of the variable w in g(x) = min_w h(K (x, w)) for images of ``channels``; 0 where there is none."""
        return 0

    def dual_prox(self, q: Tensor) -> Tensor:
        """Prox of the conjugate of ``lam * h`` at ``q``; for a norm, projection onto the dual ball of radius lam."""
        raise self._lacks("analysis")

    def denoise(self, x: Tensor, sigma: PerImage) -> Tensor:
        """``x`` with white Gaussian noise of standard deviation ``sigma`` removed, shape of x."""
        raise self._lacks("denoise")

    def generate(self, z: Tensor) -> Tensor:
        """Images from latent vectors ``z``, (B, C, H, W)."""
        raise self._lacks("generate")

    def restore(self, y: Tensor, operator: Operator, sigma: PerImage | None = None) -> Tensor:
        """Restored images, (B, C, H, W), from a measurement of noise level ``sigma``, without iterations."""
        raise self._lacks("restore")

    def stages(self, y: Tensor, operator: Operator, sigma: PerImage | None = None) -> tuple[Tensor, ...]:
        """Every image that ``restore`` makes on the way to its answer, which is the last."""
        return (self.restore(y, operator, sigma),)

    def objection(self, operator: Operator, sigma: Tensor) -> str:
        """Why the prior may not suit the operator at noise levels ``sigma``, (B,); empty where it does."""
        return ""

    def at(self, step: int, steps: int) -> Prior:
        """The prior as step ``step`` of a schedule of ``steps`` uses it, counted from 0; most stay as they are."""
        return self

    def first_lam(self, sigma: Tensor) -> Tensor:
        """Weight a search begins with, (B,), for denoising at noise level ``sigma``, (B,); a guess, not a choice."""
        return sigma

    def __add__(self, other: Prior) -> Prior:
        """``lam g + lam' g'``; sums of sums are flattened."""
        from invrestore.priors._sum import add

        return add(self, other) if isinstance(other, Prior) else NotImplemented

    def tensors(self) -> list[Tensor]:
        """The tensors the prior is made of, which gradients may flow to; those of a network in training mode only."""
        values: list[Any] = [getattr(self, f.name) for f in dataclasses.fields(self)]
        found = [v for v in values if isinstance(v, torch.Tensor)]
        for v in values:
            if isinstance(v, torch.nn.Module) and v.training:
                found.extend(v.parameters())
            elif isinstance(v, tuple):
                found.extend(t for p in v if isinstance(p, Prior) for t in p.tensors())
        return found
