"""Choosing the weight of the prior from the data: unbiased risk, or the discrepancy principle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

from invrestore._checks import expand
from invrestore._types import Tensor
from invrestore.fidelity import L1, L2, Huber, Interval
from invrestore.operators import LinearOperator, Operator
from invrestore.operators._linalg import per_image_dot
from invrestore.operators._pieces import Pieces, pieces_of
from invrestore.priors import Prior
from invrestore.solvers._base import Solver, freeze
from invrestore.solvers._loop import run
from invrestore.solvers._problem import Problem

__all__ = ["Choice", "choose_lam"]

_PROBE_SEED = 20061
"""Any fixed number: one probe for all images, so that a batch equals its images alone."""

_DAMPING = 0.03
"""delta of the weighted risk, over ||A||^2."""

_SPREAD = 0.1
"""eps of the divergence probe, over sigma: small against the noise, large against the solver's tolerance."""

_WHOLE_PIXELS = 2**20
"""Measurements of more pixels are weighed by pieces of them, which tell the risk precisely enough."""

_PIECES = 3
"""Pieces along each axis."""

_SIDE = 192
"""Side of a piece."""

_STEPS_OF_PIECES = 20
"""Step limit of their solves: what converges last is their unknown surroundings, which hardly move the risk."""

_BOX_SHARE = 0.7
"""Root mean square that intervals are fitted to, over sigma."""


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A chosen weight.

    Attributes:
        lam: (B,).
        rule: Name of the rule, for the report.
        state: Solver state reached for ``lam`` or one near it, to go on from; None where only pieces were solved.
    """

    lam: Tensor
    rule: str
    state: Any


def choose_lam(
    solver: Solver[Any], problem: Problem, x: Tensor, *, search_steps: int, search_tol: float
) -> Choice:
    """Weight of the prior for each image.

    For Gaussian noise on a linear operator: the minimum over lam of Stein's unbiased estimate of

        E ||W^(1/2) (A x_lam(y) - A x)||^2,  W = (A A^H + delta)^(-1),

    up to a constant: <r, W r> + 2 sigma^2 div_y(W A x_lam), r = A x_lam - y, the divergence by one random probe
    b: <W b, A (x_lam(y + eps b) - x_lam(y))> / eps. W undoes most of A, so that the error is measured nearly in
    the image instead of behind the blur; delta is 0.03 ||A||^2. For other fidelities and for nonlinear operators:
    the lam for which the root mean square of A x - y is sigma (discrepancy principle; for L1 and Huber by the
    median, which outliers do not move; for intervals 0.7 sigma, because a bounded error leaves the box no slack:
    0.6 to 0.8 was best for 5 and 9 levels on training photos and faces).

    The search brackets the minimum (or the root) in log lam with factors of 2, every image on its own, warm
    starting each solve, halves the last factor, and ends with a parabola (or secant) through the nearest points.

    The risk of a measurement of more than 2^20 pixels, if it was only blurred or masked, is that of nine pieces of
    192 x 192 pixels, evenly spread; each is solved by itself, with one lam for all pieces of an image.

    Args:
        solver: Method that minimises for a given weight.
        problem: Data; the weight of its prior is replaced.
        x: Start images.
        search_steps: Step limit of each inner solve.
        search_tol: Tolerance of each inner solve.

    Reference:
        Stein (1981); Ramani, Blu and Unser (2008) for the probe; Eldar (2009) for projected and weighted risks;
        Morozov (1966).
    """
    with torch.no_grad():
        if problem.linear is None or not isinstance(problem.fidelity, L2):
            return _Search(solver, problem, x, search_steps, search_tol).match_discrepancy()
        pieces = _pieces(problem, problem.linear)
        if pieces is None:
            return _Search(solver, problem, x, search_steps, search_tol).minimise_risk()
        parts = dataclasses.replace(
            problem,
            y=pieces.y,
            operator=pieces.operator,
            sigma=problem.sigma.repeat_interleave(pieces.count),
            input_shape=pieces.input_shape,
        )
        x = pieces.operator.initial(pieces.y, pieces.input_shape)
        steps = min(search_steps, _STEPS_OF_PIECES)
        choice = _Search(solver, parts, x, steps, search_tol, pieces.count).minimise_risk()
        side = f"{_SIDE} x {_SIDE} pixels"
        return Choice(choice.lam, f"{choice.rule}, on {pieces.count} pieces of {side}", None)


def _pieces(problem: Problem, operator: LinearOperator) -> Pieces | None:
    """Pieces of a large measurement that can be weighed in its place."""
    if math.prod(problem.y.shape[-2:]) <= _WHOLE_PIXELS or not _fits_any_size(problem.prior):
        return None
    return pieces_of(operator, problem.y, side=_SIDE, per_axis=_PIECES)


def _fits_any_size(prior: Prior) -> bool:
    """Whether nothing in a prior belongs to images of one size or to single images."""
    for field in dataclasses.fields(prior):
        value = getattr(prior, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Prior) and not _fits_any_size(part):
                return False
            if isinstance(part, Operator) or (isinstance(part, torch.Tensor) and part.numel() > 1):
                return False
    return True


class _Search:
    """Solves for one weight after the other.

    ``count`` successive images of the problem are pieces of one, share its weight, and add up to its risk.
    """

    def __init__(
        self, solver: Solver[Any], problem: Problem, x: Tensor, steps: int, tol: float, count: int = 1
    ) -> None:
        self.solver, self.problem, self.steps, self.tol, self.count = solver, problem, steps, tol, count
        self.x = x
        self.sigma = problem.sigma
        self.state: Any = None
        self.probe_state: Any = None

    def solve(self, problem: Problem, lam: Tensor, state: Any, active: Tensor) -> Any:
        """State for ``lam``, going on from ``state``; images that are not active keep theirs."""
        lam, active = (t.repeat_interleave(self.count) for t in (lam, active))
        weighted = problem.with_prior(problem.prior.with_lam(lam))
        start = self.solver.init(weighted, self.x) if state is None else self.solver.resume(weighted, state)
        reached = run(self.solver, weighted, start, max_steps=self.steps, tol=self.tol, record=False).state
        return reached if state is None else freeze(state, reached, active)

    # Stein's unbiased risk -----------------------------------------------------------------------------------

    def minimise_risk(self) -> Choice:
        problem = self.problem
        A = problem.linear
        assert A is not None
        one = problem.y[:1]
        rng = torch.Generator(device="cpu").manual_seed(_PROBE_SEED)
        probe = torch.randn(one.shape, generator=rng, dtype=torch.float32).to(one)
        eps = _SPREAD * self.sigma
        shifted = dataclasses.replace(problem, y=problem.y + expand(eps, problem.y) * probe)
        weigh = self._weighting()
        weighed_probe = weigh(probe.expand_as(problem.y))

        def risk(log_lam: Tensor, active: Tensor) -> Tensor:
            lam = log_lam.exp()
            self.state = self.solve(problem, lam, self.state, active)
            self.probe_state = self.solve(shifted, lam, self.probe_state, active)
            fitted = A(self.state.x)
            residual = fitted - problem.y
            gain = (A(self.probe_state.x) - fitted) / expand(eps, fitted)
            misfit, divergence = per_image_dot(residual, weigh(residual)), per_image_dot(weighed_probe, gain)
            total = misfit + 2 * self.sigma**2 * divergence
            return total.view(-1, self.count).sum(1)

        lam = _bracketed_minimum(risk, self._first()).exp()
        return Choice(lam, "Stein's unbiased risk estimate", self.state)

    def _weighting(self) -> Callable[[Tensor], Tensor]:
        """R -> (A A^H + delta)^(-1) r, through (A^H A + delta)^(-1) by Woodbury's identity."""
        problem = self.problem
        A = problem.linear
        assert A is not None
        delta = _DAMPING * A.norm(problem.input_shape).to(problem.y).square()
        if delta.ndim == 0:
            delta = delta.expand(problem.batch)

        def weigh(r: Tensor) -> Tensor:
            inner = A.data_step(r)(torch.zeros_like(self.x), 1 / delta)
            return (r - A(inner)) / expand(delta, r)

        return weigh

    def _first(self) -> Tensor:
        return self.problem.prior.first_lam(self.sigma[:: self.count]).clamp_min(1e-12).log()

    # Discrepancy ---------------------------------------------------------------------------------------------

    def match_discrepancy(self) -> Choice:
        problem = self.problem

        def excess(log_lam: Tensor, active: Tensor) -> Tensor:
            self.state = self.solve(problem, log_lam.exp(), self.state, active)
            r = (problem.operator(self.state.x) - problem.y).flatten(1)
            if isinstance(problem.fidelity, L1 | Huber):
                size = r.abs().median(1).values / 0.6745
            else:
                size = r.square().mean(1).sqrt()
            goal = _BOX_SHARE * self.sigma if isinstance(problem.fidelity, Interval) else self.sigma
            return (size / goal.clamp_min(1e-12)).log()

        lam = _bracketed_root(excess, self._first()).exp()
        return Choice(lam, "discrepancy principle", self.state)


Objective = Callable[[Tensor, Tensor], Tensor]
"""``f(log_lam, active)``, (B,); images that are not active need no work."""


def _bracketed_minimum(f: Objective, start: Tensor, *, factor: float = 2.0, rounds: int = 10) -> Tensor:
    """Minimum of f near ``start``, elementwise: walk downhill in steps of log(factor), halve, fit a parabola."""
    h = math.log(factor)
    left, middle, right = start - h, start, start + h
    everyone = torch.ones_like(start, dtype=torch.bool)
    f_middle = f(middle, everyone)
    f_left, f_right = f(left, everyone), f(right, everyone)
    for _ in range(rounds):
        go_left = (f_left < f_middle) & (f_left <= f_right)
        go_right = (f_right < f_middle) & ~go_left
        moving = go_left | go_right
        if not bool(moving.any()):
            break
        probe = torch.where(go_left, left - h, torch.where(go_right, right + h, middle))
        value = torch.where(moving, f(probe, moving), f_middle)
        left, middle, right = (
            torch.where(go_left, probe, torch.where(go_right, middle, left)),
            torch.where(go_left, left, torch.where(go_right, right, middle)),
            torch.where(go_left, middle, torch.where(go_right, probe, right)),
        )
        f_left, f_middle, f_right = (
            torch.where(go_left, value, torch.where(go_right, f_middle, f_left)),
            torch.where(go_left, f_left, torch.where(go_right, f_right, f_middle)),
            torch.where(go_left, f_middle, torch.where(go_right, value, f_right)),
        )
    # Halve the spacing around the lowest point: a parabola through factors of 2 can miss by a third.
    half = h / 2
    near_left, near_right = f(middle - half, everyone), f(middle + half, everyone)
    points = torch.stack([f_left, near_left, f_middle, near_right, f_right])
    lowest = points[1:4].argmin(0) + 1
    below, lowest_value, above = (points.gather(0, (lowest + k)[None])[0] for k in (-1, 0, 1))
    centre = middle + (lowest - 2) * half
    bend = below - 2 * lowest_value + above
    shift = 0.5 * half * (below - above) / bend
    return centre + torch.where(bend > 0, shift.clamp(-half, half), torch.zeros_like(shift))


def _bracketed_root(f: Objective, start: Tensor, *, factor: float = 3.0, rounds: int = 12) -> Tensor:
    """Root of the increasing f, elementwise: walk until the sign changes, then halve, then one secant."""
    h = math.log(factor)
    low, high = torch.full_like(start, -math.inf), torch.full_like(start, math.inf)
    f_low, f_high = torch.full_like(start, -1.0), torch.full_like(start, 1.0)
    point = start
    searching = torch.ones_like(start, dtype=torch.bool)
    for _ in range(rounds):
        value = f(point, searching)
        above, below = searching & (value > 0), searching & (value <= 0)
        high, f_high = torch.where(above, point, high), torch.where(above, value, f_high)
        low, f_low = torch.where(below, point, low), torch.where(below, value, f_low)
        bracketed = torch.isfinite(low) & torch.isfinite(high)
        searching = searching & ~(bracketed & (high - low < 0.2))
        if not bool(searching.any()):
            break
        middle = 0.5 * (low + high)
        point = torch.where(bracketed, middle, torch.where(above, point - h, point + h))
    secant = low + (high - low) * (-f_low) / (f_high - f_low).clamp_min(1e-12)
    bracketed = torch.isfinite(low) & torch.isfinite(high)
    root = torch.where(bracketed, secant, torch.where(torch.isfinite(low), low, high))
    # Where f is never a number the solve will say so; the start is as good as any weight.
    return torch.where(torch.isfinite(root), root, start)
