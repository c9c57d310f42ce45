"""Feed-forward restorers: no iterations."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from invrestore._types import Tensor
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State
from invrestore.solvers._problem import Problem

__all__ = ["Direct"]


@dataclasses.dataclass(frozen=True)
class Direct(Solver[State]):
    """x = R(y, A): the restorer's answer is the answer."""

    name: ClassVar[str] = "restorer"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.RESTORE})
    default_steps: ClassVar[int] = 1
    default_tol: ClassVar[float] = 0.0

    def is_direct(self, problem: Problem) -> bool:
        """Always."""
        return True

    def init(self, problem: Problem, x: Tensor) -> State:
        """Start at ``x``, which is not looked at."""
        return State(x)

    def step(self, problem: Problem, state: State) -> State:
        """Call the restorer."""
        return State(problem.prior.restore(problem.y, problem.operator))
