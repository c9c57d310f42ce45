"""The one loop: it counts, times, records, tests finiteness and stops; nothing else does."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch

from invrestore._types import Tensor
from invrestore.metrics import psnr
from invrestore.operators._linalg import per_image_norm
from invrestore.solvers._base import S, Solver, freeze
from invrestore.solvers._problem import Problem
from invrestore.solvers._solution import Status

__all__ = ["CHECK_EVERY", "Callback", "Outcome", "run", "says_stop"]

CHECK_EVERY = 10
"""Steps between convergence checks. A check is the only host synchronisation, and step counts are multiples of it."""

Callback = Callable[[int, Tensor], object]
"""``callback(step, x)``; the answer True stops the loop."""


def says_stop(answer: object) -> bool:
    """Whether a callback answered True, also as a single value of numpy or torch; anything else goes on."""
    return answer is True or (getattr(answer, "shape", None) == () and bool(answer))


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What a run of the loop gives back, before ``solve`` adds what it chose."""

    state: object
    x: Tensor
    status: Status
    steps: Tensor
    converged: Tensor
    history: dict[str, Tensor]
    seconds: float


def run(
    solver: Solver[S],
    problem: Problem,
    state: S,
    *,
    max_steps: int,
    tol: float,
    truth: Tensor | None = None,
    callback: Callback | None = None,
    progress: Callable[[int, int], object] | None = None,
    record: bool = True,
) -> Outcome:
    """Iterate until every image has met ``tol``, each stopping on its own.

    An image that met the tolerance at a check keeps its iterate from there on, so its answer does not depend
    on its neighbours. An image whose iterate or residual is not finite, or too large for its type to square, goes
    back to the last check and stops.

    Args:
        solver: Method.
        problem: What to minimise.
        state: Start.
        max_steps: Step limit.
        tol: Relative change of a step below which an image is done; 0 runs all steps.
        truth: True images, for PSNR at every step.
        callback: Called after every step.
        progress: Called at every check with (step, max_steps).
        record: Keep the history.
    """
    began = time.perf_counter()
    batch, device = problem.batch, problem.y.device
    active = torch.ones(batch, dtype=torch.bool, device=device)
    converged = ~active
    diverged = ~active
    steps = torch.zeros(batch, dtype=torch.long, device=device)
    history = _History(problem, truth)
    all_active, stopped = True, False
    checkpoint = state
    direct = solver.is_direct(problem)
    last = 1 if direct else max_steps

    for step in range(1, last + 1):
        previous = state
        state = solver.step(problem, previous)
        if not all_active:
            state = freeze(previous, state, active)
        check = step % CHECK_EVERY == 0 or step == last
        if truth is not None and not check:
            history.add_psnr(step, state.x)
        if callback is not None and says_stop(callback(step, state.x)):
            stopped = check = True
        if not check:
            continue

        steps = torch.where(active, step, steps)
        change = solver.change(previous, state).detach()
        misfit = history.misfit(state.x) if record else None
        # A norm is finite only where every value is, and its square.
        size = per_image_norm(state.x.detach())
        finite = torch.isfinite(size if misfit is None else size + misfit)
        if not bool(finite.all()):
            diverged |= ~finite
            state = freeze(checkpoint, state, finite)
            misfit = history.misfit(state.x) if record else None
        met = finite & (change <= tol) if tol > 0 else torch.zeros_like(finite)
        if direct:
            met = finite
        converged |= met & active
        active = active & finite & ~met
        if misfit is not None:
            history.add(step, state.x, change, misfit)
        checkpoint = state
        if progress is not None:
            progress(step, max_steps)
        # One transfer answers both questions.
        still = int(active.sum())
        all_active = still == batch
        if still == 0 or stopped:
            break

    if bool(diverged.any()):
        status = Status.DIVERGED
    elif stopped:
        status = Status.STOPPED
    elif bool(converged.all()) or tol == 0:
        status = Status.CONVERGED
    else:
        status = Status.MAX_STEPS
    if tol == 0:
        converged = ~diverged
    return Outcome(
        state,
        solver.answer(problem, state),
        status,
        steps,
        converged,
        history.rows(),
        time.perf_counter() - began,
    )


class _History:
    """Rows of numbers per image, kept on the device until the end."""

    def __init__(self, problem: Problem, truth: Tensor | None) -> None:
        self._problem = problem
        self._truth = truth
        self._rows: dict[str, list[Tensor]] = {"step": []}

    def _put(self, name: str, row: Tensor) -> None:
        self._rows.setdefault(name, []).append(row.detach())

    def add_psnr(self, step: int, x: Tensor) -> None:
        assert self._truth is not None
        self._put("psnr", psnr(x.detach(), self._truth))

    @torch.no_grad()
    def misfit(self, x: Tensor) -> Tensor:
        return self._problem.misfit(x)

    @torch.no_grad()
    def add(self, step: int, x: Tensor, change: Tensor, misfit: Tensor) -> None:
        problem = self._problem
        self._put("step", torch.full_like(change, step))
        self._put("update", change)
        self._put("misfit", misfit)
        if not problem.prior.has_inner_problem:
            objective = problem.objective(x)
            if objective is not None:
                self._put("objective", objective)
        if self._truth is not None:
            self._put("psnr", psnr(x.detach(), self._truth))

    def rows(self) -> dict[str, Tensor]:
        return {name: torch.stack(rows) for name, rows in self._rows.items() if rows}
