"""Accelerated proximal gradient descent with backtracking and restart."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import check_count, check_nonnegative, expand
from invrestore._types import Tensor
from invrestore.operators import Identity
from invrestore.operators._linalg import per_image_dot
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State
from invrestore.solvers._problem import Problem

__all__ = ["FISTA", "FISTAState"]


@dataclasses.dataclass(frozen=True, eq=False)
class FISTAState(State):
    """Iterate, extrapolated point, momentum and step.

    Attributes:
        ahead: Extrapolated point the next gradient is taken at, (B, C, H, W).
        momentum: t_k of each image, (B,).
        step: Step of each image, (B,).
        dual: What the prox of the prior keeps from one step to the next.
    """

    ahead: Tensor
    momentum: Tensor
    step: Tensor
    dual: Tensor | None


@dataclasses.dataclass(frozen=True)
class FISTA(Solver[FISTAState]):
    """Problem: min_x f(A x; y) + lam g(x) with a differentiable data term and a prox of g.

    Iteration, with the data term D(x) = f(A x; y):

        x_{k+1} = prox_{tau lam g}(w_k - tau grad D(w_k))
        t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2
        w_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} (x_{k+1} - x_k)

    The momentum of an image is reset to t = 1 whenever <w_k - x_{k+1}, x_{k+1} - x_k> > 0. The step is
    1 / ||A||^2 where a bound is known; for nonlinear operators and unbounded gradients it starts at
    ``first_step`` and is halved for each image until D(x_{k+1}) <= D(w) + <grad D(w), d> + ||d||^2 / (2 tau)
    holds. Stops when the relative change of x is below ``tol``.

    Args:
        first_step: First step tried when no bound on the curvature is known.
        backtracks: Most halvings within one iteration.
        accelerate: False leaves plain proximal gradient descent.

    Raises:
        RangeError: ``first_step`` not above 0 and finite, or ``backtracks`` below 0.

    Reference:
        Beck and Teboulle (2009); O'Donoghue and Candes (2015) for the restart, gradient scheme.
    """

    first_step: float = 1.0
    backtracks: int = 20
    accelerate: bool = True

    name: ClassVar[str] = "fista"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.PROX})
    default_tol: ClassVar[float] = 1e-5

    def __post_init__(self) -> None:
        check_nonnegative("FISTA", "first_step", self.first_step, positive=True)
        check_count("FISTA", "backtracks", self.backtracks, least=0)

    def check(self, problem: Problem) -> None:
        """Raise if the data are a constraint the method cannot hold."""
        super().check(problem)
        if problem.exact:
            raise self.refuse_exact(problem)

    def is_direct(self, problem: Problem) -> bool:
        """Denoising with L2: the prox of the prior is the answer."""
        return isinstance(problem.operator, Identity) and problem.curvature is not None

    def init(self, problem: Problem, x: Tensor) -> FISTAState:
        """Start at ``x`` without momentum."""
        one = torch.ones(problem.batch, dtype=x.dtype, device=x.device)
        if problem.curvature is None:
            step = self.first_step * one
        else:
            step = one / problem.curvature.detach().clamp_min(torch.finfo(x.dtype).tiny)
        return FISTAState(x, x, one, step, None)

    def resume(self, problem: Problem, state: FISTAState) -> FISTAState:
        """A fresh start at the image reached, with the dual of the prior's prox."""
        return dataclasses.replace(self.init(problem, state.x), dual=state.dual)

    def step(self, problem: Problem, state: FISTAState) -> FISTAState:
        """One proximal gradient step from the extrapolated point."""
        w, step = state.ahead, state.step
        if self.is_direct(problem):
            return dataclasses.replace(state, x=problem.prior.prox(problem.y, step))
        grad = problem.data_grad(w)
        x, dual = problem.prior.prox_from(w - expand(step, w) * grad, step, state.dual)
        if problem.curvature is None:
            x, step = self._backtrack(problem, w, grad, x, step)
        if not self.accelerate:
            return FISTAState(x, x, state.momentum, step, dual)
        moved = x - state.x
        with torch.no_grad():
            t = torch.where(per_image_dot(w - x, moved) > 0, 1.0, state.momentum)
            following = (1 + torch.sqrt(1 + 4 * t**2)) / 2
            rate = (t - 1) / following
        return FISTAState(x, x + expand(rate, x) * moved, following, step, dual)

    def _backtrack(
        self, problem: Problem, w: Tensor, grad: Tensor, x: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Halve the step of each image until its quadratic bound holds."""
        with torch.no_grad():
            here = problem.data_value(w)
            # Room for rounding: the two sides agree to all digits near the solution.
            slack = 1e3 * torch.finfo(w.dtype).eps * here.abs()
        for _ in range(self.backtracks):
            with torch.no_grad():
                d = x - w
                bound = here + per_image_dot(grad, d) + per_image_dot(d, d) / (2 * step) + slack
                fails = ~(problem.data_value(x) <= bound)
                if not bool(fails.any()):
                    break
                step = torch.where(fails, step / 2, step)
            x = problem.prior.prox(w - expand(step, w) * grad, step)
        return x, step
