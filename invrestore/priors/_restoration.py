"""A restoration network as an implicit prior for other problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch.nn import functional as F

from invrestore._checks import check_count, check_nonnegative, check_sigma, expand
from invrestore._symmetry import under_symmetry
from invrestore._types import PerImage, Tensor
from invrestore.errors import DTypeError
from invrestore.networks import RestorerNetwork
from invrestore.operators import Operator
from invrestore.priors._base import Capability, Prior
from invrestore.priors._feed_forward import FeedForward

__all__ = ["Restoration"]

_SHIFT = 8
"""Shifts are below this number of pixels, the side of JPEG's blocks."""


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

    R errs where H is blind, for JPEG at the borders of its blocks. ``transforms`` averages R(H .) over images that are
    flipped, turned and shifted at random, and turned back (equivariant plug-and-play). And where R was trained for a
    range of degradations, H may be several of them: `solve` with ``method="hqs"`` goes from the first to the last.

    Args:
        network: R: a network of this package, a Restorer, or any callable from H x to an image.
        operator: H, which R was trained for. Its difference from the problem's operator is the point. A sequence is
            spread over the steps of ``hqs``, the harshest first; anything else uses the last.
        strength: Standard deviation of R's error, and of the noise R removes, in units of the image range, > 0. Smaller
            follows R more.
        transforms: Images that R(H .) is averaged over at each step; 0 takes the image as it is. H must take images
            with width and height exchanged, and 8 pixels larger.
        seed: Of the transforms; each step of ``hqs`` draws others.
        lam: Weight, in units of noise variance, as for ``priors.Denoiser``; None: ``solve`` takes 0.23 sigma^2.

    Shapes:
        x: (B, C, H, W).

    Raises:
        DTypeError: ``network`` is not callable, or ``operator`` no operator.
        RangeError: ``strength`` is not positive, ``transforms`` or ``seed`` negative.

    Example:
        >>> from invrestore import operators
        >>> prior = Restoration(lambda y: y.clamp(0.2, 0.8), operators.Identity(), lam=1.0, strength=1.0)
        >>> prior.grad(torch.tensor([[[[0.0, 0.5, 1.0]]]]))
        tensor([[[[-0.2000,  0.0000,  0.2000]]]])

    Reference:
        Hu, Delbracio, Milanfar and Kamilov (2024), A Restoration Network as an Implicit Prior; Romano, Elad and
        Milanfar (2017) for the use without H^T H; Terris et al. (2024), Equivariant plug-and-play image reconstruction,
        for the transforms. Unlike the first: no scaled proximal map.
    """

    network: Any = dataclasses.field(default=None, kw_only=False)
    operator: Operator | Sequence[Operator] = dataclasses.field(default=(), kw_only=False)
    strength: float = dataclasses.field(default=0.015, kw_only=True)
    transforms: int = dataclasses.field(default=0, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.GRAD, Capability.DENOISE, Capability.PROX}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        operators = self.operator if isinstance(self.operator, list | tuple) else (self.operator,)
        if not operators or not all(isinstance(operator, Operator) for operator in operators):
            raise DTypeError(
                self.name,
                expected="operator as the one the network was trained for, or some of them",
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
        check_count(self.name, "transforms", self.transforms, least=0)
        check_count(self.name, "seed", self.seed, least=0)
        if isinstance(self.network, RestorerNetwork):
            object.__setattr__(self, "network", FeedForward(self.network))

    @property
    def operators(self) -> Sequence[Operator]:
        """H, or all of them."""
        return (self.operator,) if isinstance(self.operator, Operator) else self.operator

    def at(self, step: int, steps: int) -> Self:
        """The prior with the operator for this step, and with other transforms than before."""
        last = len(self.operators) - 1
        operator = self.operators[round(last * min(step / max(steps - 1, 1), 1.0))]
        return dataclasses.replace(self, operator=operator, seed=self.seed + step)

    def restored(self, x: Tensor) -> Tensor:
        """R(H x), (B, C, H, W); restorers that know noise levels are told ``strength``."""
        return self._transformed(self._restored, x)

    def _restored(self, x: Tensor) -> Tensor:
        operator = self.operators[-1]
        y = operator(x)
        if isinstance(self.network, Prior):
            # Told its noise level, as the definition of R has it.
            return self.network.restore(y, operator, self.strength)
        restore: Callable[..., Tensor] | None = getattr(self.network, "restore", None)
        return self.network(y) if restore is None else restore(y, operator)

    def grad(self, x: Tensor) -> Tensor:
        """``lam / strength^2 H^T H (x - R(H x))``."""
        return expand(self.weight, x) / self.strength**2 * self._transformed(self._slope, x)

    def _slope(self, x: Tensor) -> Tensor:
        operator = self.operators[-1]
        return operator.vjp(x, operator(x) - operator(self._restored(x)))

    def _transformed(self, act: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Mean of ``act`` over transformed images, each transformed back."""
        if not self.transforms:
            return act(x)
        rng = torch.Generator().manual_seed(self.seed)
        height, width = x.shape[-2:]
        mode = "reflect" if min(height, width) > _SHIFT else "replicate"
        total = torch.zeros_like(x)
        for _ in range(self.transforms):
            flip, turns, down, right = (
                int(torch.randint(count, (), generator=rng)) for count in (2, 4, _SHIFT, _SHIFT)
            )
            view = F.pad(x, (right, _SHIFT - right, down, _SHIFT - down), mode=mode)
            back = under_symmetry(act, view, flip=bool(flip), turns=turns)
            total = total + back[..., down : down + height, right : right + width]
        return total / self.transforms

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
        own = [t for operator in self.operators for t in operator.tensors()]
        return [*super().tensors(), *own, *inner, *trained]
