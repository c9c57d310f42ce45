"""Primal-dual hybrid gradient: convex problems whose prior is a norm of a linear map."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import check_nonnegative, expand
from invrestore._types import Tensor
from invrestore.errors import RangeError
from invrestore.fidelity import Interval
from invrestore.operators._linalg import per_image_norm
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State
from invrestore.solvers._problem import Problem

__all__ = ["PDHG", "PDHGState"]


@dataclasses.dataclass(frozen=True, eq=False)
class PDHGState(State):
    """Primal iterate with its dual variables.

    Attributes:
        auxiliary: The prior's own variable w, (B, C_w, H, W), with no channels where it has none.
        dual: Dual of the prior's map K, or None where the prior enters by its prox.
        data_dual: Dual of A, or None where the data enter by their prox or gradient.
        step: Primal step of each image, (B,).
        dual_step: Dual step of each image, (B,).
    """

    auxiliary: Tensor
    dual: Tensor | None
    data_dual: Tensor | None
    step: Tensor
    dual_step: Tensor


@dataclasses.dataclass(frozen=True)
class PDHG(Solver[PDHGState]):
    """Over-relaxed Chambolle-Pock iterations, without inner iterations on the prior.

    Problem: min_x F(x) + h(K x) + d(A x), where K is the prior's linear map (TV: the gradient) and the data
    enter in the first of two ways that applies:

    - F is the data term, by its proximal map (closed form, exact constraint, or conjugate gradients with L2);
    - d is the data term, by the proximal map of the fidelity (any convex fidelity, linear A).

    A prior that minimises over a variable of its own, g(x) = min_w h(K (x, w)), has w iterated beside x.

    Iteration, with steps tau and s, relaxation r and x_bar = 2 x_{k+1} - x_k taken inside the dual step:

        x~ = prox_{tau F}(x - tau (K^H q + A^H p))
        q~ = prox_{s h*}(q + s K (2 x~ - x)),   p~ = prox_{s d*}(p + s A (2 x~ - x))
        (x, q, p) <- (x, q, p) + r ((x~, q~, p~) - (x, q, p))

    converging for tau s ||[K; A]||^2 <= 1 and r in (0, 2). A prior with a prox but no K takes the place of F,
    and the data become d. Stops when the relative change of x and of the duals is below ``tol``.

    Args:
        balance: tau = balance / (lam ||K||): the size of the primal moves against the dual ones, which live in
            a ball of radius lam. Decides speed only; 0.1 was fastest over deblurring and filling.
        relaxation: r.
        inner_rtol: Relative residual of the conjugate gradients inside the data prox; None takes 1e-6 in float32 and
            1e-12 in float64.
        inner_reduction: Share of the residual at the iterate before to which they bring it down, if that comes
            first. The steps become exact as the iterates settle, without solving to the end at each of them.

    Raises:
        RangeError: ``balance`` or ``inner_rtol`` not above 0 and finite, ``relaxation`` outside (0, 2), or
            ``inner_reduction`` outside [0, 1).

    Reference:
        Chambolle and Pock (2011), algorithm 1; Condat (2013), algorithm 3.2 for the relaxed form.
    """

    balance: float = 0.1
    relaxation: float = 1.8
    inner_rtol: float | None = None
    inner_reduction: float = 0.03

    name: ClassVar[str] = "pdhg"
    default_tol: ClassVar[float] = 3e-4

    def __post_init__(self) -> None:
        check_nonnegative("PDHG", "balance", self.balance, positive=True)
        check_nonnegative("PDHG", "inner_rtol", self.inner_rtol, positive=True)
        if not 0 < self.relaxation < 2:
            raise RangeError("PDHG", expected="relaxation in (0, 2)", found=f"{self.relaxation:g}")
        if not 0 <= self.inner_reduction < 1:
            # At 1 no inner step is taken, and the image would never move.
            raise RangeError("PDHG", expected="inner_reduction in [0, 1)", found=f"{self.inner_reduction:g}")

    def check(self, problem: Problem) -> None:
        """Raise unless the operator is linear and the prior has a prox or an analysis map."""
        super().check(problem)
        if problem.linear is None:
            raise self.refuse(
                "a linear operator", problem.operator.name, "method='fista' takes nonlinear ones."
            )
        if not (problem.prior.can(Capability.ANALYSIS) or problem.prior.can(Capability.PROX)):
            raise self.refuse("a prior with prox or analysis", f"priors.{problem.prior.name} without")

    def _primal_data(self, problem: Problem) -> bool:
        """Whether the data term is F."""
        return problem.has_data_prox and problem.prior.can(Capability.ANALYSIS)

    def init(self, problem: Problem, x: Tensor) -> PDHGState:
        """Duals at zero, steps from the norm bounds."""
        assert problem.linear is not None
        dual = data_dual = None
        auxiliary = x.new_zeros(x.shape[0], problem.prior.auxiliary_channels(x.shape[1]), *x.shape[2:])
        square = torch.zeros(problem.batch, dtype=x.dtype, device=x.device)
        if problem.prior.can(Capability.ANALYSIS):
            K = problem.prior.analysis(problem.input_shape)
            lifted = torch.cat([x, auxiliary], 1)
            dual = torch.zeros_like(K(lifted))
            square = square + K.norm(tuple(lifted.shape[1:])).to(x).square()
        if not self._primal_data(problem):
            data_dual = torch.zeros_like(problem.y)
            square = square + problem.linear.norm(problem.input_shape).to(x).square()
        # A single pixel has no differences, and any step will do for the map that is 0.
        norm = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
        lam = torch.as_tensor(problem.prior.weight if problem.prior.lam is not None else 1.0).to(x)
        # lam = 0 leaves least squares, where any step converges.
        scale = torch.where(lam > 0, lam, torch.ones_like(lam))
        step = self.balance / (scale * norm)
        if not self._primal_data(problem):
            # With the data as a dual their prox is not scaled by lam; equal steps are the safe choice.
            step = 1.0 / norm
        return PDHGState(x, auxiliary, dual, data_dual, step.detach(), (1.0 / (step * norm**2)).detach())

    def resume(self, problem: Problem, state: PDHGState) -> PDHGState:
        """Keep the duals; the one of the prior scales with its weight, as steps scale with its inverse."""
        fresh = self.init(problem, state.x)
        dual = state.dual
        if dual is not None:
            dual = dual * expand(state.step / fresh.step, dual)
        return dataclasses.replace(fresh, auxiliary=state.auxiliary, dual=dual, data_dual=state.data_dual)

    def step(self, problem: Problem, state: PDHGState) -> PDHGState:
        """One relaxed primal-dual step."""
        A, prior, x, w = problem.linear, problem.prior, state.x, state.auxiliary
        assert A is not None
        tau, s, r = expand(state.step, x), state.dual_step, self.relaxation
        point, moved_w = x, w
        if state.dual is not None:
            K = prior.analysis(problem.input_shape)
            pull = K.adjoint(state.dual)
            point, moved_w = point - tau * pull[:, : x.shape[1]], w - tau * pull[:, x.shape[1] :]
        if state.data_dual is not None:
            point = point - tau * A.adjoint(state.data_dual)
        if self._primal_data(problem):
            moved = problem.data_prox(
                point, state.step, start=x, rtol=self.inner_rtol, reduction=self.inner_reduction
            )
        elif state.dual is None:
            moved = prior.prox(point, state.step)
        else:
            moved = point
        ahead = 2 * moved - x
        dual, data_dual = state.dual, state.data_dual
        if dual is not None:
            lifted = torch.cat([ahead, 2 * moved_w - w], 1) if w.shape[1] else ahead
            dual = torch.lerp(dual, prior.dual_prox(dual + expand(s, dual) * K(lifted)), r)
        if data_dual is not None:
            point = data_dual + expand(s, data_dual) * A(ahead)
            data_dual = torch.lerp(data_dual, self._data_dual_prox(problem, point, s), r)
        return PDHGState(torch.lerp(x, moved, r), torch.lerp(w, moved_w, r), dual, data_dual, state.step, s)

    @staticmethod
    def _data_dual_prox(problem: Problem, v: Tensor, step: Tensor) -> Tensor:
        """Prox of the conjugate of the fidelity, by Moreau's identity."""
        s = expand(step, v)
        if problem.exact:
            return v - s * problem.y
        return v - s * problem.fidelity.prox(v / s, problem.y, 1 / step)

    def answer(self, problem: Problem, state: PDHGState) -> Tensor:
        """The image; put back onto a constraint of the data, which the relaxation may step beyond."""
        hard = problem.exact or isinstance(problem.fidelity, Interval)
        if hard and self._primal_data(problem):
            return problem.data_prox(state.x, 0.0)
        return state.x

    def change(self, old: PDHGState, new: PDHGState) -> Tensor:
        """Largest relative change among the image and its duals."""
        change = super().change(old, new)
        for a, b in ((old.dual, new.dual), (old.data_dual, new.data_dual)):
            if a is not None and b is not None:
                # A dual of zero means an inactive prior, not an endless relative change.
                change = torch.maximum(
                    change, 0.1 * per_image_norm(b - a) / per_image_norm(b).clamp_min(1e-6)
                )
        return change
