"""Quadratic problems in one linear solve."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import expand
from invrestore._types import Tensor
from invrestore.fidelity import L2
from invrestore.operators._linalg import conjugate_gradient
from invrestore.priors import Tikhonov
from invrestore.solvers._base import Solver, State
from invrestore.solvers._problem import Problem

__all__ = ["CG"]


@dataclasses.dataclass(frozen=True)
class CG(Solver[State]):
    """Problem: min_x 1/2 ||A x - y||^2 + lam/2 ||K x||^2, solved as (A^H A + lam K^H K) x = A^H y.

    Conjugate gradients, every image on its own; the derivative of the solution is exact (implicit), whatever
    the number of inner steps. For ``lam = 0`` the answer is A^+ y.

    Args:
        rtol: Relative residual to stop at; None takes what the floating type allows.

    Reference:
        Hestenes and Stiefel (1952).
    """

    rtol: float | None = None

    name: ClassVar[str] = "cg"
    default_steps: ClassVar[int] = 1
    default_tol: ClassVar[float] = 0.0

    def check(self, problem: Problem) -> None:
        """Raise unless the problem is quadratic."""
        super().check(problem)
        if not isinstance(problem.prior, Tikhonov):
            raise self.refuse(
                "priors.Tikhonov, so that the problem is quadratic", f"priors.{problem.prior.name}"
            )
        if problem.linear is None or problem.exact or not isinstance(problem.fidelity, L2):
            raise self.refuse("a linear operator with the L2 fidelity and sigma > 0", "another problem")

    def is_direct(self, problem: Problem) -> bool:
        """Always: one linear solve."""
        return True

    def init(self, problem: Problem, x: Tensor) -> State:
        """Start the inner iterations at ``x``."""
        return State(x)

    def step(self, problem: Problem, state: State) -> State:
        """The whole solve."""
        A, prior = problem.linear, problem.prior
        assert A is not None
        assert isinstance(prior, Tikhonov)
        lam = torch.as_tensor(prior.weight)
        if not lam.requires_grad and not bool((lam > 0).any()):
            return State(A.pinv(problem.y))
        return State(
            conjugate_gradient(
                lambda x: A.gram(x) + expand(prior.weight, x) * prior.with_lam(1.0).grad(x),
                A.adjoint(problem.y),
                init=state.x,
                rtol=self.rtol,
            )
        )
