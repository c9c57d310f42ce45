"""Sums of priors."""

from __future__ import annotations

import dataclasses
import warnings
from typing import ClassVar

import torch

from invrestore._checks import check_batch_tensor, check_image, check_nonnegative, check_step, expand
from invrestore._types import PerImage, Tensor
from invrestore.errors import DTypeError, RangeError
from invrestore.operators._linalg import per_image_norm
from invrestore.priors._base import Capability, Prior
from invrestore.priors._box import Box
from invrestore.priors._tv import TV

__all__ = ["PriorSum", "add"]

_LIMIT = 2000
"""Rounds of Dykstra's iteration before ``prox`` gives up with a warning."""

_SUMMABLE = (Capability.VALUE, Capability.GRAD, Capability.PROX)


@dataclasses.dataclass(frozen=True, eq=False)
class PriorSum(Prior):
    """``lam * sum_k lam_k g_k(x)``; what ``prior + prior`` makes.

    The sum can do what all of its terms can do out of value, grad and prox, and prox only if all are convex.
    ``prox`` of TV + Box is solved as one problem, to the duality gap of the TV. Other sums run Dykstra's
    iteration, one prox of each term in turn with its own correction, until no correction moves by more than
    ``tol`` times the norm of the image; each image stops on its own.

    Args:
        priors: The terms; sums inside are flattened by ``+``.
        lam: If terms have no weight (lam=None), the weight they share, or None: ``solve`` chooses it. If all
            have one, a common factor, 1 by default.
        tol: Relative move at which the ``prox`` of general sums stops; terms with an iterative prox of their
            own should be as accurate. TV + Box does not use it: it is solved to the gap of its TV.

    Raises:
        RangeError: Fewer than one term, or a bad ``tol`` or ``lam``.
        DTypeError: A term is no Prior.

    Example:
        >>> (Box(0, 1) + Box(0.5, 2)).prox(torch.tensor([[[[0.2, 3.0]]]]))
        tensor([[[[0.5000, 1.0000]]]])

    Reference:
        Dykstra's method for proximal maps: Bauschke and Combettes (2008), theorem 3.3, here in cyclic form.
    """

    priors: tuple[Prior, ...]
    lam: PerImage | None = dataclasses.field(default=None, kw_only=True)
    tol: float = dataclasses.field(default=1e-6, kw_only=True)

    is_convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "priors", tuple(self.priors))
        if not self.priors:
            raise RangeError(self.name, expected="at least one prior", found="none")
        for prior in self.priors:
            if not isinstance(prior, Prior):
                raise DTypeError(self.name, expected="priors as Prior objects", found=type(prior).__name__)
        if self.lam is None and not self._open:
            object.__setattr__(self, "lam", 1.0)
        super().__post_init__()
        check_nonnegative(self.name, "tol", self.tol, positive=True)
        shared = [c for c in _SUMMABLE if all(p.can(c) for p in self.priors)]
        convex = all(p.is_convex for p in self.priors)
        able = frozenset(c for c in shared if convex or c is not Capability.PROX)
        # Here a property of the instance: the terms decide.
        object.__setattr__(self, "capabilities", able)
        object.__setattr__(self, "is_convex", convex)

    @property
    def _open(self) -> bool:
        """Whether a term waits for a weight."""
        return any(p.lam is None for p in self.priors)

    def _terms(self) -> tuple[PerImage, list[Prior]]:
        """The common factor, and the terms with their weights."""
        if not self._open:
            return self.weight, list(self.priors)
        return 1.0, [p.with_lam(self.weight) if p.lam is None else p for p in self.priors]

    def _check(self, method: str, capability: Capability, x: Tensor, name: str) -> Tensor:
        if not self.can(capability):
            raise self._lacks(method)
        where = f"{self.name}.{method}"
        x = check_image(where, x, name)
        check_batch_tensor(where, "lam", self.lam, x.shape[0])
        return x

    def value(self, x: Tensor) -> Tensor:
        """Sum of the values of the terms, shape (B,)."""
        x = self._check("value", Capability.VALUE, x, "x")
        factor, terms = self._terms()
        return factor * torch.stack([t.value(x) for t in terms]).sum(0)

    def grad(self, x: Tensor) -> Tensor:
        """Sum of the gradients of the terms."""
        x = self._check("grad", Capability.GRAD, x, "x")
        factor, terms = self._terms()
        return expand(factor, x) * torch.stack([t.grad(x) for t in terms]).sum(0)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """argmin_x step * value(x) + 1/2 ||x - v||^2, to the gap of the TV in TV + Box, else to ``tol``."""
        v = self._check("prox", Capability.PROX, v, "v")
        where = f"{self.name}.prox"
        check_step(where, step)
        check_batch_tensor(where, "step", step, v.shape[0])
        factor, terms = self._terms()
        step = factor * step
        if len(terms) == 1:
            return terms[0].prox(v, step)
        if len(terms) == 2:
            for tv, box in (terms, reversed(terms)):
                if isinstance(tv, TV) and isinstance(box, Box):
                    return tv.prox_in_box(v, step, box)
        work = v if v.dtype == torch.float64 else v.float()
        x, corrections = work, [torch.zeros_like(work) for _ in terms]
        tol = max(self.tol, 32 * torch.finfo(work.dtype).eps)
        size = per_image_norm(work.detach())
        going = torch.ones_like(size, dtype=torch.bool)
        for _ in range(_LIMIT):
            before, change = x, torch.zeros_like(size)
            for k, term in enumerate(terms):
                point = x + corrections[k]
                new = term.prox(point, step)
                # The move of each single prox counts: the sum of two opposed moves would look like rest.
                moved = point - new - corrections[k]
                change = torch.maximum(change, per_image_norm(moved.detach()))
                corrections[k], x = point - new, new
            # An image that has stopped keeps its value, whatever its neighbours still do.
            x = torch.where(going.view(-1, 1, 1, 1), x, before)
            size = torch.maximum(size, per_image_norm(x.detach()))
            going = going & (change > tol * size)
            if not bool(going.any()):
                return x.to(v.dtype)
        warnings.warn(
            f"{where}: relative change {tol:g} not reached in {_LIMIT} rounds",
            RuntimeWarning,
            stacklevel=2,
        )
        return x.to(v.dtype)


def add(left: Prior, right: Prior) -> PriorSum:
    """``left + right``; a sum without a factor of its own gives its terms, so that a + b + c has three."""

    def terms(prior: Prior) -> tuple[Prior, ...]:
        if not isinstance(prior, PriorSum):
            return (prior,)
        plain = prior.lam is None or (not prior._open and isinstance(prior.lam, float) and prior.lam == 1.0)
        return prior.priors if plain else (prior,)

    return PriorSum(terms(left) + terms(right))
