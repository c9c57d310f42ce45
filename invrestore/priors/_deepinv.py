"""deepinv's priors under our contract."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, ClassVar

import torch

from invrestore._types import PerImage, Tensor
from invrestore.errors import CapabilityError, DTypeError
from invrestore.priors._base import Capability, Prior
from invrestore.priors._denoiser import Denoiser

__all__ = ["FromDeepinv", "as_prior_or_none", "from_deepinv"]


@dataclasses.dataclass(frozen=True, eq=False)
class FromDeepinv(Prior):
    """lam * g for an explicit ``deepinv.optim.Prior`` g.

    deepinv's priors keep state between calls and may couple the images of a batch; here every call works on
    a copy, one image at a time, so that the answer depends on the arguments alone.

    Args:
        prior: The deepinv prior.
        lam: Weight, >= 0; None lets ``solve`` choose.
    """

    prior: Any = dataclasses.field(default=None, kw_only=False)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.VALUE, Capability.PROX})

    def value(self, x: Tensor) -> Tensor:
        """``lam * g(x)`` of each image."""
        prior = copy.deepcopy(self.prior)
        values = torch.stack([prior.fn(image[None]).sum() for image in x])
        return self.weight * values

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """The deepinv prox with gamma = step * lam, image by image."""
        gamma = torch.as_tensor(self.weight * step, dtype=v.dtype, device=v.device).expand(v.shape[0])
        return torch.cat(
            [
                copy.deepcopy(self.prior).prox(image[None], gamma=float(g))
                for image, g in zip(v, gamma, strict=True)
            ]
        )


def from_deepinv(prior: Any, lam: PerImage | None = None) -> Prior:
    """A deepinv Denoiser or Prior as one of ours.

    Plug-and-play priors become ``Denoiser``; explicit ones ``FromDeepinv``.

    Raises:
        DTypeError: ``prior`` is neither.
        CapabilityError: An implicit prior without a denoiser.
    """
    found = as_prior_or_none(prior, lam)
    if found is None:
        raise DTypeError(
            "priors.from_deepinv", expected="a deepinv Denoiser or Prior", found=type(prior).__name__
        )
    return found


def as_prior_or_none(prior: Any, lam: PerImage | None = None) -> Prior | None:
    """``from_deepinv``, or None for foreign objects; does not import deepinv unless the object is from there."""
    names = {f"{c.__module__}.{c.__qualname__}" for c in type(prior).__mro__}
    if "deepinv.models.base.Denoiser" in names:
        return Denoiser(prior, lam=lam)
    if "deepinv.optim.prior.Prior" not in names:
        return None
    denoiser = getattr(prior, "denoiser", None)
    if not getattr(prior, "explicit_prior", False):
        if denoiser is None:
            raise CapabilityError(
                "priors.from_deepinv",
                expected="an explicit prior, or one with a denoiser",
                found=type(prior).__name__,
                remedy="Pass its denoiser: priors.Denoiser(network).",
            )
        return Denoiser(denoiser, lam=lam)
    return FromDeepinv(prior, lam=lam)
