"""The average of a latent search's answer with the plug-and-play answer of a denoiser."""

from __future__ import annotations

import dataclasses

from invrestore._types import Tensor
from invrestore.fidelity import Interval
from invrestore.operators import JPEG, Blur, Downsample, Identity, Quantize
from invrestore.priors import Latent
from invrestore.solvers._problem import Problem

__all__ = ["denoised_share", "plug_and_play_answer"]

_SHARES = {"noisy": 0.85, "rounded": 0.7, "reduced": 0.5}
"""Share of the plug-and-play answer by kind of data, chosen by hand on training faces, and rounded up because the
generator has seen those. ``benchmarks/quality/latent_ablation.py`` has rows for others."""


def denoised_share(prior: Latent, problem: Problem) -> float:
    """Share of the plug-and-play answer, as the prior says; by default none where only the generator knows."""
    if prior.denoiser is None:
        return 0.0
    if prior.denoised is not None:
        return prior.denoised
    if isinstance(problem.fidelity, Interval) or isinstance(problem.operator, Quantize | JPEG):
        return _SHARES["rounded"]
    if isinstance(problem.operator, Downsample):
        return _SHARES["reduced"]
    return 0.0 if problem.exact or not isinstance(problem.operator, Identity | Blur) else _SHARES["noisy"]


def plug_and_play_answer(prior: Latent, problem: Problem) -> Tensor:
    """What ``solve`` makes of the same data with the denoiser, (B, C, H, W)."""
    from invrestore.solvers._solve import solve

    assert prior.denoiser is not None
    operator, fidelity, sigma = problem.operator, problem.fidelity, problem.sigma
    if isinstance(operator, JPEG):
        return solve(problem.y, operator, prior.denoiser, throw=False).x
    if isinstance(fidelity, Interval):
        # A denoiser keeps off the edges of the box by itself.
        fidelity = dataclasses.replace(fidelity, pull=0.0)
    return solve(problem.y, operator, prior.denoiser, sigma=sigma, fidelity=fidelity, throw=False).x
