"""Feed-forward restorers: no iterations."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch

from invrestore._types import Tensor
from invrestore.operators import JPEG, Quantize
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State
from invrestore.solvers._problem import Problem

__all__ = ["Direct", "DirectState"]

_LIGHTEST, _WEIGHTIEST = 1e-4, 1e6
"""Range of data weights that the search for the nearest consistent image looks at."""

_BISECTIONS = 24


@dataclasses.dataclass(frozen=True, eq=False)
class DirectState(State):
    """The restored image and those on the way to it.

    Attributes:
        stages: Earlier images by name: "first" of a restorer in two stages, "restored" before it was refined.
    """

    stages: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Direct(Solver[DirectState]):
    """x = R(y, A): the restorer's answer is the answer, or the nearest image to it that fits the data.

    With ``refine`` the answer is projected onto the images that can have given the measurement. The set is convex and
    holds the true image, so its projection is never further from the truth than the restorer's image:

        A x = y                       exact data: x = R - A^+ (A R - y), a change in the range of A only
        rms(A x - y) <= sigma         noisy data, A linear: argmin_x t/2 ||A x - y||^2 + 1/2 ||x - R||^2 with the
                                      least t that reaches it (none where R fits already, or where no t does)
        A x quantises to y            Quantize and JPEG: samples or DCT coefficients clipped to their intervals

    For JPEG the projection is orthogonal in luma and chroma, not in RGB; noise that is not white, or a wrong sigma,
    takes the guarantee from the second case.

    Args:
        refine: Project.
    """

    refine: bool = False

    name: ClassVar[str] = "restorer"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.RESTORE})
    default_steps: ClassVar[int] = 1
    default_tol: ClassVar[float] = 0.0

    def check(self, problem: Problem) -> None:
        """Raise if there is nothing to project onto."""
        super().check(problem)
        if self.refine and problem.linear is None and not isinstance(problem.operator, JPEG | Quantize):
            raise self.refuse(
                "a linear operator, Quantize or JPEG for refine=True",
                problem.operator.name,
                "Leave refine out, or use the restorer through priors.Restoration.",
            )

    def is_direct(self, problem: Problem) -> bool:
        """Always."""
        return True

    def init(self, problem: Problem, x: Tensor) -> DirectState:
        """Start at ``x``, which is not looked at."""
        return DirectState(x)

    def step(self, problem: Problem, state: DirectState) -> DirectState:
        """Call the restorer."""
        *earlier, x = problem.prior.stages(problem.y, problem.operator, problem.sigma)
        stages = {"first": earlier[0]} if earlier else {}
        if self.refine:
            stages["restored"] = x
            x = _consistent(problem, x)
        return DirectState(x, stages)


def _consistent(problem: Problem, x: Tensor) -> Tensor:
    """The image nearest to x among those that can have given the measurement."""
    operator, y = problem.operator, problem.y
    if isinstance(operator, JPEG):
        return operator.project(x, y)
    if isinstance(operator, Quantize):
        lower, upper = operator.interval(y)
        return torch.minimum(torch.maximum(x, lower), upper)
    assert problem.linear is not None
    if problem.exact:
        return problem.linear.project(x, y)
    prox = problem.linear.data_step(y)
    low = x.new_full((x.shape[0],), math.log(_LIGHTEST))
    high = x.new_full((x.shape[0],), math.log(_WEIGHTIEST))
    with torch.no_grad():
        fits = problem.misfit(x) <= problem.sigma
        reachable = problem.misfit(prox(x, high.exp())) <= problem.sigma
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            enough = problem.misfit(prox(x, middle.exp())) <= problem.sigma
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        kept = fits | ~reachable
    return torch.where(kept.view(-1, 1, 1, 1), x, prox(x, high.exp()))
