"""Alternating direction method of multipliers, for convex priors and for plug-and-play denoisers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import check_nonnegative, expand
from invrestore._types import Tensor
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State, above_zero, relative_change
from invrestore.solvers._problem import Problem

__all__ = ["ADMM", "ADMMState"]


@dataclasses.dataclass(frozen=True, eq=False)
class ADMMState(State):
    """Both copies of the image and the scaled multiplier.

    Attributes:
        v: The copy that fits the prior, (B, C, H, W).
        u: Scaled dual variable, (B, C, H, W).
        rho: Penalty of each image, (B,).
        dual: What the prox of the prior keeps from one step to the next.
        count: Steps taken.
    """

    v: Tensor
    u: Tensor
    rho: Tensor
    dual: Tensor | None
    count: int


@dataclasses.dataclass(frozen=True)
class ADMM(Solver[ADMMState]):
    """Problem: min_x f(A x; y) + lam g(v) subject to x = v.

    Iteration, with scaled dual u and penalty rho:

        x = prox_{f(A .) / rho}(v - u)          the data step
        v = prox_{lam g / rho}(x + u)           for a denoiser prior: strength sqrt(lam / rho)
        u = u + x - v

    With ``adapt`` and a convex prior, every tenth step of the first hundred doubles or halves the penalty of an
    image whose residuals ||x - v|| and ||v - v_old|| differ by more than a factor of 5 (residual balancing);
    afterwards it is fixed, so that convergence is that of fixed rho. Stops when the larger of both residuals,
    relative to ||v||, is below ``tol``.

    Args:
        rho: Penalty > 0; None takes ``scale`` * lam for convex priors (an image in [0, 1] has edges of about
            1 / scale), and for denoisers lam / strength^2 with the noise level, at least 5/255, as strength.
        scale: See ``rho``.
        adapt: Balance the residuals.

    Raises:
        RangeError: ``rho`` or ``scale`` not above 0 and finite.

    Reference:
        Boyd et al. (2011), sections 3.1 and 3.4.1; Venkatakrishnan et al. (2013) for denoisers.
    """

    rho: float | None = None
    scale: float = 10.0
    adapt: bool = True

    name: ClassVar[str] = "admm"
    default_tol: ClassVar[float] = 3e-5

    def __post_init__(self) -> None:
        check_nonnegative("ADMM", "rho", self.rho, positive=True)
        check_nonnegative("ADMM", "scale", self.scale, positive=True)

    def check(self, problem: Problem) -> None:
        """Raise unless the data and the prior both have a prox."""
        super().check(problem)
        if not (problem.prior.can(Capability.PROX) or problem.prior.can(Capability.DENOISE)):
            raise self.refuse("a prior with prox or denoise", f"priors.{problem.prior.name} without")
        if not problem.has_data_prox:
            raise self.refuse(
                "a linear operator with the L2 fidelity (or no operator)",
                f"{problem.operator.name} with {problem.fidelity.name}",
                "method='pdhg' takes other fidelities, 'fista' nonlinear operators.",
            )

    def init(self, problem: Problem, x: Tensor) -> ADMMState:
        """Both copies at ``x``, no multiplier."""
        one = torch.ones(problem.batch, dtype=x.dtype, device=x.device)
        lam = torch.as_tensor(problem.prior.weight if problem.prior.lam is not None else 1.0).to(x)
        if self.rho is not None:
            rho = self.rho * one
        elif problem.prior.can(Capability.DENOISE):
            rho = lam / problem.sigma.clamp_min(5 / 255).square() * one
        else:
            rho = self.scale * torch.where(lam > 0, lam, torch.ones_like(lam)) * one
        return ADMMState(x, x, torch.zeros_like(x), rho.detach(), None, 0)

    def resume(self, problem: Problem, state: ADMMState) -> ADMMState:
        """A fresh start at the image reached, with the dual of the prior's prox."""
        return dataclasses.replace(self.init(problem, state.v), dual=state.dual)

    def step(self, problem: Problem, state: ADMMState) -> ADMMState:
        """Data step, prior step, multiplier step."""
        rho = state.rho
        step = 1 / above_zero(rho)
        x = problem.data_prox(state.v - state.u, step, start=state.x)
        v, dual = problem.prior.prox_from(x + state.u, step, state.dual)
        u = state.u + x - v
        count = state.count + 1
        if self.adapt and problem.prior.is_convex and count <= 100 and count % 10 == 0:
            with torch.no_grad():
                primal, moved = relative_change(x, v), relative_change(state.v, v)
                factor = torch.where(primal > 5 * moved, 2.0, torch.where(moved > 5 * primal, 0.5, 1.0)).to(
                    rho
                )
            rho, u = rho * factor, u / expand(factor, u)
        return ADMMState(x, v, u, rho, dual, count)

    def change(self, old: ADMMState, new: ADMMState) -> Tensor:
        """Larger of the relative primal and dual residuals."""
        return torch.maximum(relative_change(new.x, new.v), relative_change(old.v, new.v))
