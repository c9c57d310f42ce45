"""What follows a latent search: adaptation, data consistency, blending, averaging, the spread of good restarts."""

from __future__ import annotations

import torch

from invrestore._types import Tensor
from invrestore.fidelity import Interval
from invrestore.kernels import gaussian
from invrestore.operators import JPEG, Blur, Downsample, Grayscale, Mask, Quantize, Value
from invrestore.priors import Latent
from invrestore.solvers._blend import (
    back_project,
    has_exact_step,
    poisson_blend,
    smooth_chroma,
    transplant_value,
    weighs_gray,
)
from invrestore.solvers._latent_adapt import adapt, adaptation_steps
from invrestore.solvers._latent_average import denoised_shares, plug_and_play_answer
from invrestore.solvers._latent_objective import Group
from invrestore.solvers._latent_spaces import Methods, Space
from invrestore.solvers._latent_state import Items, LatentState, Watch
from invrestore.solvers._problem import Problem

__all__ = ["finish"]

_GOOD = 1.5
"""Restarts whose data loss is within this factor of the best one, or of the noise, count for the spread."""

_COLOUR_WIDTH = 1 / 32
"""Width of the Gaussian that smooths colours, in shares of the shorter side: 2 pixels of 64."""

_DETAIL_WIDTH = 1 / 4
"""Width of the Gaussian that smooths detail a measurement does not show, in its pixels: 1 pixel at x4."""


def finish(
    group: Group, space: Space, best: Items, seen: Tensor, losses: Tensor, watch: Watch, limit: int
) -> LatentState:
    """Adaptation, data consistency, blending and averaging, with what each of them gave."""
    prior, problem = group.prior, group.problem
    x = best.x
    stages = {"raw": x}
    steps = adaptation_steps(prior, problem)
    if steps and next(Methods(prior.generator).parameters(), None) is not None:
        x = stages["adapted"] = adapt(group, space, best, steps)
    rounded = isinstance(problem.operator, Quantize | JPEG) or isinstance(problem.fidelity, Interval)
    exact = problem.exact or rounded
    projects = prior.consistency and exact and has_exact_step(problem.operator, problem.fidelity)
    generated = x
    if projects:
        x = stages["consistent"] = back_project(x, problem.y, problem.operator, problem.fidelity)
    operator = problem.operator
    blended = _blended(prior, problem, generated, projects)
    if blended is not None:
        x = stages["blended"] = blended
    shares = denoised_shares(prior, problem)
    if bool(shares.any()):
        x = x + shares.view(-1, 1, 1, 1) * (plug_and_play_answer(prior, problem) - x)
        if projects:
            x = back_project(x, problem.y, operator, problem.fidelity)
        stages["averaged"] = x
    if watch.wants_images:
        for image in list(stages.values())[1:]:
            limit += 1
            watch.show(limit, image)
    each = torch.stack(
        [back_project(s, problem.y, operator, problem.fidelity) if projects else s for s in seen]
    )
    noise = group.whole.count / group.power * group.whole.floor
    good = (losses <= _GOOD * torch.maximum(losses.amin(0), noise)).to(each.dtype)
    good = good.view(*losses.shape, 1, 1, 1)
    mean = (good * each).sum(0) / good.sum(0)
    spread = ((good * (each - mean).square()).sum(0) / good.sum(0)).sqrt()
    empty = x.new_zeros(group.size, 0)
    return LatentState(x, empty, empty.sum(1), losses.T.contiguous(), stages, spread)


def _blended(prior: Latent, problem: Problem, x: Tensor, projects: bool) -> Tensor | None:
    """Generated images blended with the data as the prior says, None if not at all.

    "auto" is the way of the operator where the data were exact enough to be put back.
    """
    operator, y = problem.operator, problem.y

    def asked(way: str) -> bool:
        return prior.blend == way or (prior.blend == "auto" and projects)

    if isinstance(operator, Mask) and asked("poisson"):
        return poisson_blend(x, operator.project(x, y), operator.mask)
    if weighs_gray(operator) and asked("chroma"):
        return smooth_chroma(x, y, operator, _COLOUR_WIDTH * min(x.shape[-2:]))
    if isinstance(operator, Downsample) and asked("detail"):
        smooth = Blur(gaussian(_DETAIL_WIDTH * operator.factor).to(x), padding="replicate")
        return operator.project(smooth(x), y)
    if isinstance(operator, Value | Grayscale) and prior.blend == "value":
        return transplant_value(x, y)
    return None
