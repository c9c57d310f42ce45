"""The contract of an iterative method: hyperparameters in a frozen dataclass, everything else in its state."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import torch

from invrestore._checks import check_nonnegative
from invrestore._types import Tensor
from invrestore.errors import CapabilityError, RangeError
from invrestore.operators._linalg import per_image_norm
from invrestore.priors import Capability
from invrestore.solvers._problem import Problem

__all__ = ["Solver", "State", "above_zero", "check_strength", "freeze", "relative_change"]


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Everything an iteration needs of the one before; every tensor has the batch as its first axis.

    Attributes:
        x: Current images, (B, C, H, W).
    """

    x: Tensor


S = TypeVar("S", bound=State)


@dataclasses.dataclass(frozen=True)
class Solver(ABC, Generic[S]):
    """An iterative method: ``init`` and ``step`` are pure, the loop in ``_loop.py`` drives them.

    Attributes:
        name: Value of ``method=`` that picks it.
        needs: Capabilities the prior must have.
        default_steps: See ``budget``.
        default_tol: ``tol`` when the caller gives none; 0 means a fixed number of steps.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Capability]] = frozenset()
    default_steps: ClassVar[int] = 500
    default_tol: ClassVar[float] = 1e-4

    def check(self, problem: Problem) -> None:
        """Raise unless the method can handle the problem.

        Raises:
            CapabilityError: The prior, the fidelity or the operator lacks what the method needs.
        """
        lacking = sorted(c.value for c in self.needs - problem.prior.capabilities)
        if lacking:
            from invrestore.solvers import solvers_for

            fits = ", ".join(repr(n) for n in solvers_for(problem)) or "none"
            raise CapabilityError(
                f"solve(method={self.name!r})",
                expected=f"a prior with {', '.join(lacking)}",
                found=f"priors.{problem.prior.name} without",
                remedy=f"Methods that accept it here: {fits}.",
            )

    def refuse(self, expected: str, found: str, remedy: str = "") -> CapabilityError:
        """Build the error for a problem outside the method's reach."""
        return CapabilityError(f"solve(method={self.name!r})", expected=expected, found=found, remedy=remedy)

    def refuse_exact(self, problem: Problem) -> CapabilityError:
        """Build the error for data that hold exactly, given to a method that weighs them against the prior."""
        remedy = "method='pdhg' or 'admm' holds it, with a prior that has a proximal map."
        if problem.linear is None:
            remedy = (
                "No method holds the data of a nonlinear operator exactly; give a small sigma, such as 0.01."
            )
        return self.refuse("noise (sigma > 0)", "sigma = 0, an exact constraint", remedy)

    @abstractmethod
    def init(self, problem: Problem, x: Tensor) -> S:
        """State at the start point ``x``."""

    def resume(self, problem: Problem, state: S) -> S:
        """State for the same problem under another weight of the prior, from the state reached."""
        return self.init(problem, state.x)

    @abstractmethod
    def step(self, problem: Problem, state: S) -> S:
        """One iteration for all images."""

    def denoiser_lam(self, problem: Problem) -> Tensor:
        """Weight of a denoiser prior for each image, (B,), where the caller gave none."""
        return problem.prior.first_lam(problem.sigma)

    def answer(self, problem: Problem, state: S) -> Tensor:
        """Images to return for the state reached."""
        return state.x

    def budget(self, problem: Problem) -> int:
        """``max_steps`` when the caller gives none."""
        return self.default_steps

    def is_direct(self, problem: Problem) -> bool:
        """Whether a single step gives the answer, so that there is nothing to converge."""
        return False

    def change(self, old: S, new: S) -> Tensor:
        """Relative change of one step for each image, (B,), compared with ``tol``."""
        return relative_change(old.x, new.x)


def relative_change(old: Tensor, new: Tensor) -> Tensor:
    """||new - old|| / ||new|| for each image, (B,)."""
    return per_image_norm(new - old) / per_image_norm(new).clamp_min(torch.finfo(new.dtype).tiny)


def freeze(old: S, new: S, active: Tensor) -> S:
    """``new`` where ``active``, (B,), else ``old``, in every tensor of the state."""

    def pick(a: object, b: object) -> object:
        if isinstance(b, torch.Tensor) and isinstance(a, torch.Tensor):
            return torch.where(active.view(-1, *[1] * (b.ndim - 1)), b, a)
        if isinstance(b, tuple) and isinstance(a, tuple):
            return tuple(pick(i, j) for i, j in zip(a, b, strict=True))
        return b

    fields = {f.name: pick(getattr(old, f.name), getattr(new, f.name)) for f in dataclasses.fields(new)}
    return dataclasses.replace(new, **fields)  # type: ignore[arg-type]


def above_zero(weight: Tensor) -> Tensor:
    """A weight of the prior that can be divided by: at eps^2 the data have long left nothing to the prior."""
    return weight.clamp_min(torch.finfo(weight.dtype).eps ** 2)


def check_strength(where: str, name: str, value: float | None) -> None:
    """Raise RangeError unless ``value`` is None or a noise level in (0, 1]."""
    check_nonnegative(where, name, value, positive=True)
    if value is not None and value > 1:
        raise RangeError(
            where,
            expected=f"{name} in (0, 1], in units of the image range",
            found=f"{value:g}",
            remedy=f"8-bit level {value:g} is {value:g}/255 = {value / 255:.3f}." if value <= 255 else "",
        )
