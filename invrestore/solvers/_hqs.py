"""Half-quadratic splitting: the plug-and-play default, and penalty continuation for explicit priors."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import check_count, check_nonnegative
from invrestore._types import Tensor
from invrestore.errors import RangeError
from invrestore.fidelity import L2, Interval
from invrestore.operators import Identity, Mask
from invrestore.priors import Capability, Denoiser
from invrestore.solvers._base import Solver, State, above_zero, check_strength
from invrestore.solvers._problem import Problem

__all__ = ["HQS", "HQSState"]


@dataclasses.dataclass(frozen=True, eq=False)
class HQSState(State):
    """The restored image and the schedule.

    Attributes:
        before: Image one step ago, (B, C, H, W).
        fitted: Image after the last data step, (B, C, H, W).
        count: Steps taken.
    """

    before: Tensor
    fitted: Tensor
    count: int


@dataclasses.dataclass(frozen=True)
class HQS(Solver[HQSState]):
    """Problem: min_{x,z} f(A x; y) + lam g(z) + rho/2 ||x - z||^2 while rho grows.

    Iteration k of K, from the start image z_0:

        x_k = prox_{f(A .) / rho_k}(z_{k-1} + momentum (z_{k-1} - z_{k-2}))     the data step
        z_k = prox_{lam g / rho_k}(x_k)          for a denoiser prior: strength s_k = sqrt(lam / rho_k)

    The strengths s_k fall geometrically from ``first`` to ``last``, and rho_k = lam / s_k^2. The answer is z_K,
    put back onto the data when they are exact, and into the interval when f is one. The step count is fixed:
    there is no objective that all steps minimise, and none is reported as if there were.

    Where pixels are missing, the data step leaves the known ones far surer than the others. A denoiser trained on
    noise that differs from pixel to pixel is told so: s_k where nothing is known, and where m x + noise is,

        (a^2 s_k^2 + (1 - a)^2 sigma^2 / m^2)^(1/2),    a = 1 / (1 + m^2 s_k^2 / lam),    0 for exact data.

    Args:
        first: First strength, in units of the image range.
        floor: Smallest last strength, where ``last`` is None.
        last: Last strength; None takes ``scale`` times the noise level sigma of each image.
        scale: See ``last``.
        weight: lam / sigma^2 for a denoiser prior without a weight; larger smooths more.
        steps: K, the number of steps the schedule is spread over.
        relative: ``first`` and ``last`` count in units of each image's sigma.
        momentum: Share of the last change that is added before the data step, in [0, 1). What spreads slowly, as
            into large holes, gets there in fewer steps; near 1 it overshoots.

    Raises:
        RangeError: A strength outside (0, 1], a momentum outside [0, 1), or another number below its least.

    Reference:
        Geman and Yang (1995); Polyak (1964) for the momentum; Zhang et al. (2021) (DPIR) for the schedule from 49/255
        to sigma in 8 steps.
    """

    first: float = 49 / 255
    floor: float = 1 / 255
    last: float | None = None
    scale: float = 1.0
    weight: float = 0.23
    relative: bool = False
    momentum: float = 0.0

    name: ClassVar[str] = "hqs"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.PROX})
    default_tol: ClassVar[float] = 0.0

    steps: int = 8

    def __post_init__(self) -> None:
        check_strength("HQS", "first", self.first)
        check_nonnegative("HQS", "floor", self.floor)
        check_strength("HQS", "last", self.last)
        check_nonnegative("HQS", "scale", self.scale)
        check_nonnegative("HQS", "weight", self.weight)
        check_count("HQS", "steps", self.steps)
        check_nonnegative("HQS", "momentum", self.momentum)
        if self.momentum >= 1:
            raise RangeError("HQS", expected="momentum in [0, 1)", found=f"{self.momentum:g}")

    def check(self, problem: Problem) -> None:
        """Raise unless the data have a prox."""
        super().check(problem)
        if not problem.has_data_prox:
            raise self.refuse(
                "a linear operator with the L2 fidelity (or no operator)",
                f"{problem.operator.name} with {problem.fidelity.name}",
                "method='fista' takes nonlinear operators.",
            )

    def budget(self, problem: Problem) -> int:
        """The steps of the schedule."""
        return self.steps

    def is_direct(self, problem: Problem) -> bool:
        """Denoising with a denoiser: one call at the noise level."""
        return (
            isinstance(problem.operator, Identity)
            and isinstance(problem.fidelity, L2)
            and not problem.exact
            and problem.prior.can(Capability.DENOISE)
        )

    def denoiser_lam(self, problem: Problem) -> Tensor:
        """``weight`` sigma^2."""
        return self.weight * problem.sigma.square()

    def init(self, problem: Problem, x: Tensor) -> HQSState:
        """Start at ``x``."""
        return HQSState(x, x, x, 0)

    def strength(self, problem: Problem, count: int) -> Tensor:
        """s_k of each image for step ``count`` of ``steps``, counted from 0, (B,)."""
        unit = problem.sigma if self.relative else torch.ones_like(problem.sigma)
        first = (self.first * unit).clamp_max(1.0)
        if self.last is None:
            last = (self.scale * problem.sigma).clamp_min(self.floor).minimum(first.clamp_min(self.floor))
        else:
            last = (self.last * unit).clamp_max(1.0)
        t = min(count / max(self.steps - 1, 1), 1.0)
        strength: Tensor = first ** (1 - t) * last**t
        return strength

    def step(self, problem: Problem, state: HQSState) -> HQSState:
        """Data step, then prior step."""
        if self.is_direct(problem):
            return HQSState(problem.prior.denoise(problem.y, problem.sigma), problem.y, problem.y, 1)
        s = self.strength(problem, state.count)
        lam = torch.as_tensor(problem.prior.weight if problem.prior.lam is not None else 1.0).to(s)
        weight = s**2 / above_zero(lam)
        near = state.x.lerp(state.before, -self.momentum) if self.momentum else state.x
        fitted = problem.data_prox(near, weight, start=state.fitted)
        prior = problem.prior.at(state.count, self.steps)
        level = _level_map(problem, s, weight)
        if level is None:
            x = prior.prox(fitted, weight)
        else:
            x = prior.denoise(fitted, level)
        count = state.count + 1
        if count == self.steps and (problem.exact or isinstance(problem.fidelity, Interval)):
            x = problem.data_prox(x, weight)
        return HQSState(x, state.x, fitted, count)


def tells_levels(problem: Problem) -> bool:
    """Whether the prior step is told the level of each pixel: scattered pixels, and a denoiser trained for it."""
    return (
        isinstance(problem.operator, Mask)
        and isinstance(problem.fidelity, L2)
        and problem.operator.mask.shape[1] == 1
        and isinstance(problem.prior, Denoiser)
        and problem.prior.takes_maps
    )


def _level_map(problem: Problem, s: Tensor, weight: Tensor) -> Tensor | None:
    """What the data step of strength ``s`` (B,) and ``weight`` (B,) leaves in each pixel, (B, 1, H, W)."""
    if not tells_levels(problem):
        return None
    assert isinstance(problem.operator, Mask)
    s, weight = s.view(-1, 1, 1, 1), weight.view(-1, 1, 1, 1)
    gain = problem.operator.mask.to(s)
    if problem.exact:
        return s * (gain == 0)
    share = 1 / (1 + weight * gain.square())
    noise = problem.sigma.view(-1, 1, 1, 1) * weight * gain * share
    return ((share * s).square() + noise.square()).sqrt()
