"""Regularisation by denoising."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import expand
from invrestore._types import Tensor
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State, above_zero, check_strength
from invrestore.solvers._problem import Problem

__all__ = ["RED"]


@dataclasses.dataclass(frozen=True)
class RED(Solver[State]):
    """Fixed point of grad f(A x; y) + lam (x - D(x)) = 0 for a denoiser D of fixed strength.

    Iteration, the accelerated proximal form with the data step in closed form or by conjugate gradients, or a
    gradient step where the data have no prox:

        x <- prox_{f(A .) / lam'}(D(x)),  lam' = lam / strength^2
        x <- x - tau (grad f(A x; y) + lam' (x - D(x))),  tau = 1 / (L + lam')

    The first is the fixed-point strategy with one inner step. Stops when the relative change is below ``tol``.

    Args:
        strength: What D is asked to remove, in units of the image range; None takes the noise level, at
            least 5/255.

    Raises:
        RangeError: ``strength`` outside (0, 1].

    Reference:
        Romano, Elad and Milanfar (2017); the condition under which it is a gradient: Reehorst and Schniter (2019).
    """

    strength: float | None = None

    name: ClassVar[str] = "red"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.DENOISE})
    default_steps: ClassVar[int] = 100
    default_tol: ClassVar[float] = 1e-4

    def __post_init__(self) -> None:
        check_strength("RED", "strength", self.strength)

    def init(self, problem: Problem, x: Tensor) -> State:
        """Start at ``x``."""
        return State(x)

    def step(self, problem: Problem, state: State) -> State:
        """One fixed-point or gradient step."""
        x = state.x
        s = (
            problem.sigma.clamp_min(5 / 255)
            if self.strength is None
            else torch.full_like(problem.sigma, self.strength)
        )
        weight = torch.as_tensor(problem.prior.weight).to(s) / s**2
        smooth = problem.prior.denoise(x, s)
        if problem.has_data_prox:
            return State(problem.data_prox(smooth, 1 / above_zero(weight), start=x))
        bound = problem.curvature if problem.curvature is not None else torch.ones_like(s)
        grad = problem.data_grad(x) + expand(weight, x) * (x - smooth)
        return State(x - grad / expand(bound + weight, x))
