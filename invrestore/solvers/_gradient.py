"""Gradient descent with a line search, for nonlinear operators and priors with a gradient."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import expand
from invrestore._types import Tensor
from invrestore.operators._linalg import per_image_dot
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State
from invrestore.solvers._problem import Problem

__all__ = ["GradientDescent", "GradientState"]


@dataclasses.dataclass(frozen=True, eq=False)
class GradientState(State):
    """Iterate, its gradient and the step that led to it.

    Attributes:
        grad: Gradient of the objective at x, (B, C, H, W).
        step: Last accepted step of each image, (B,).
    """

    grad: Tensor
    step: Tensor


@dataclasses.dataclass(frozen=True)
class GradientDescent(Solver[GradientState]):
    """Problem: min_x f(A x; y) + lam g(x), all differentiable, or F(x) = 0 for F = A^T f'(A x; y) + grad(x).

    A may be nonlinear. The second problem stands for the first where the prior declares a gradient but no value, as one
    behind a restoration network does.

    Iteration: x <- x - tau grad, with the Barzilai-Borwein step tau = <s, s> / <s, d> (s: last move, d: change
    of the gradient; twice the last step where <s, d> <= 0), halved for each image until the objective falls by
    at least ``decrease`` * tau ||grad||^2. Without an objective the step is halved until the gradient itself is no
    longer than before, ||F(x - tau F(x))|| <= ||F(x)||, so that the iteration cannot diverge. An image for which no
    tried step helps stays where it is. Stops when the relative change of x is below ``tol``.

    Args:
        first_step: First step tried.
        decrease: Constant of the sufficient decrease, in (0, 1).
        halvings: Most halvings within one iteration.

    Reference:
        Barzilai and Borwein (1988); Armijo (1966); La Cruz, Martinez and Raydan (2006) for the search by the size
        of F.
    """

    first_step: float = 1.0
    decrease: float = 1e-4
    halvings: int = 30

    name: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.GRAD})
    default_steps: ClassVar[int] = 500
    default_tol: ClassVar[float] = 1e-6

    def check(self, problem: Problem) -> None:
        """Raise if the data are a constraint."""
        super().check(problem)
        if problem.exact:
            raise self.refuse_exact(problem)

    def _grad(self, problem: Problem, x: Tensor) -> Tensor:
        return problem.data_grad(x) + problem.prior.grad(x)

    def init(self, problem: Problem, x: Tensor) -> GradientState:
        """Gradient at ``x``."""
        step = torch.full((problem.batch,), self.first_step, dtype=x.dtype, device=x.device)
        return GradientState(x, self._grad(problem, x), step)

    def step(self, problem: Problem, state: GradientState) -> GradientState:
        """One line search."""
        x, grad = state.x, state.grad
        by_value = problem.prior.can(Capability.VALUE)
        step, found = self._by_value(problem, state) if by_value else self._by_size(problem, state)
        new = x - expand(step, x) * grad
        new_grad = self._grad(problem, new)
        with torch.no_grad():
            s, d = new - x, new_grad - grad
            curve = per_image_dot(s, d)
            barzilai = per_image_dot(s, s) / curve
            following = torch.where(curve > 0, barzilai, 2 * step.clamp_min(torch.finfo(x.dtype).tiny))
        return GradientState(new, new_grad, torch.where(found, following, state.step))

    @torch.no_grad()
    def _by_value(self, problem: Problem, state: GradientState) -> tuple[Tensor, Tensor]:
        """A step for each image that lowers the objective, 0 where none was found, and where one was."""
        x, grad, step = state.x, state.grad, state.step
        here = problem.objective(x)
        assert here is not None
        slope = per_image_dot(grad, grad)
        slack = 10 * torch.finfo(x.dtype).eps * here.abs()
        found = torch.zeros_like(slope, dtype=torch.bool)
        for _ in range(self.halvings):
            value = problem.objective(x - expand(step, x) * grad)
            assert value is not None
            found = value <= here - self.decrease * step * slope + slack
            if bool(found.all()):
                break
            step = torch.where(found, step, step / 2)
        return torch.where(found, step, 0.0), found

    @torch.no_grad()
    def _by_size(self, problem: Problem, state: GradientState) -> tuple[Tensor, Tensor]:
        """A step for each image that does not lengthen the gradient, 0 where none was found, and where one was."""
        x, grad, step = state.x, state.grad, state.step
        here = per_image_dot(grad, grad)
        found = torch.zeros_like(here, dtype=torch.bool)
        for _ in range(self.halvings):
            ahead = self._grad(problem, x - expand(step, x) * grad)
            found = per_image_dot(ahead, ahead) <= here
            if bool(found.all()):
                break
            step = torch.where(found, step, step / 2)
        return torch.where(found, step, 0.0), found
