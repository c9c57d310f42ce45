"""A restoration network as an implicit prior for other problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from invrestore._checks import check_nonnegative, check_sigma, expand
from invrestore._types import PerImage, Tensor
from invrestore.errors import DTypeError
from invrestore.networks import RestorerNetwork
from invrestore.operators import Operator
from invrestore.priors._base import Capability, Prior
from invrestore.priors._feed_forward import FeedForward

__all__ = ["Restoration"]


@dataclasses.dataclass(frozen=True, eq=False)
class Restoration(Prior):
    """The prior behind a restorer R trained to undo an operator H: clean images are those with x = R(H x).

    If R(s) = E[x | s = H x + n], with n white noise of standard deviation ``strength``, then

        grad(x) = lam / strength^2 H^T (H x - H R(H x))

    is the gradient of lam g with g(x) = -log p(H x), p the density of degraded images s: the prior prefers images whose
    degraded version looks like degraded images do. H may be nonlinear (JPEG); H^T is then the transposed Jacobian.

    Two uses that act on the whole image, also where H is blind, take x - R(H x) without H^T H, as regularisation by
    denoising does:

        denoise(x, s) = x - k (x - R(H x)),  k = s^2 / (s^2 + strength^2)
        prox(v, step) = denoise(v, sqrt(lam step))

    which is the average of two estimates of the image, v with error s and R(H v) with error ``strength``, weighted by
    their variances. The averaged step keeps iterations from diverging where R expands distances a little. Gradient
    descent searches its step by the size of the gradient, for there is no objective: the prior declares no value.

    Args:
        network: R: a network of this package, a Restorer, or any callable from H x to an image.
        operator: H, which R was trained for. Its difference from the problem's operator is the point.
        strength: Standard deviation of R's error, and of the noise R removes, in units of the image range, > 0. Smaller
            follows R more.
        lam: Weight, in units of noise variance, as for ``priors.Denoiser``; None: ``solve`` takes 0.23 sigma^2.

    Shapes:
        x: (B, C, H, W).

    Raises:
        DTypeError: ``network`` is not callable, or ``operator`` no operator.
        RangeError: ``strength`` is not positive.

    Example:
        >>> from invrestore import operators
        >>> prior = Restoration(lambda y: y.clamp(0.2, 0.8), operators.Identity(), lam=1.0, strength=1.0)
        >>> prior.grad(torch.tensor([[[[0.0, 0.5, 1.0]]]]))
        tensor([[[[-0.2000,  0.0000,  0.2000]]]])

    Reference:
        Hu, Delbracio, Milanfar and Kamilov (2024), A Restoration Network as an Implicit Prior; Romano, Elad and
        Milanfar (2017) for the use without H^T H. Unlike the first: no scaled proximal map.
    """

    network: Any = dataclasses.field(default=None, kw_only=False)
    operator: Operator = dataclasses.field(default=None, kw_only=False)  # type: ignore[assignment]
    strength: float = dataclasses.field(default=0.05, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.GRAD, Capability.DENOISE, Capability.PROX}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.operator, Operator):
            raise DTypeError(
                self.name,
                expected="operator as the one the network was trained for",
                found=type(self.operator).__name__,
                remedy="For example priors.Restoration(network, operators.Downsample(4)).",
            )
        if not (callable(self.network) or callable(getattr(self.network, "restore", None))):
            raise DTypeError(
                self.name,
                expected="network as a Restorer, a network or a callable y -> image",
                found=type(self.network).__name__,
                remedy="priors.load(name) loads a shipped restorer.",
            )
        check_nonnegative(self.name, "strength", self.strength, positive=True)
        if isinstance(self.network, RestorerNetwork):
            object.__setattr__(self, "network", FeedForward(self.network))

    def restored(self, x: Tensor) -> Tensor:
        """R(H x), (B, C, H, W); restorers that know noise levels are told ``strength``."""
        y = self.operator(x)
        if isinstance(self.network, Prior):
            # Told its noise level, as the definition of R has it.
            return self.network.restore(y, self.operator, self.strength)
        restore: Callable[..., Tensor] | None = getattr(self.network, "restore", None)
        return self.network(y) if restore is None else restore(y, self.operator)

    def grad(self, x: Tensor) -> Tensor:
        """``lam / strength^2 H^T H (x - R(H x))``."""
        difference = self.operator(x) - self.operator(self.restored(x))
        return expand(self.weight, x) / self.strength**2 * self.operator.vjp(x, difference)

    def denoise(self, x: Tensor, sigma: PerImage) -> Tensor:
        """``x - k (x - R(H x))`` with k = sigma^2 / (sigma^2 + strength^2)."""
        check_sigma(f"{self.name}.denoise", sigma)
        return self._averaged(x, sigma**2)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """``denoise(v, sqrt(lam * step))``."""
        return self._averaged(v, self.weight * step)

    def _averaged(self, x: Tensor, variance: PerImage) -> Tensor:
        share = expand(variance / (variance + self.strength**2), x)
        return x - share * (x - self.restored(x))

    def first_lam(self, sigma: Tensor) -> Tensor:
        """0.23 sigma^2, as for a denoiser."""
        return 0.23 * sigma.square()

    def tensors(self) -> list[Tensor]:
        """Tensors of the operator, and of the network in training mode."""
        inner = self.network.tensors() if isinstance(self.network, Prior) else []
        trained = (
            list(self.network.parameters())
            if isinstance(self.network, torch.nn.Module) and self.network.training
            else []
        )
        return [*super().tensors(), *self.operator.tensors(), *inner, *trained]
