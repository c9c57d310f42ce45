"""The average of a latent search's answer with the plug-and-play answer of a denoiser."""

from __future__ import annotations

import dataclasses

import torch

from invrestore._types import Tensor
from invrestore.fidelity import Interval
from invrestore.operators import JPEG, Blur, Downsample, Identity, Mask, Quantize
from invrestore.priors import Latent
from invrestore.solvers._blend import importance_weights
from invrestore.solvers._problem import Problem

__all__ = ["denoised_shares", "near_known", "plug_and_play_answer"]

_SHARES = {"noisy": 0.85, "rounded": 0.7, "reduced": 0.5, "scattered": 0.7}
"""Share of the plug-and-play answer by kind of data, chosen by hand on training faces, and rounded up because the
generator has seen those. ``benchmarks/quality/latent_ablation.py`` has rows for others, but not for scattered
pixels, which are no task of its suite."""

_SCATTERED = 0.9
"""Pixels are scattered if this share of the missing ones has a known one near."""


def denoised_shares(prior: Latent, problem: Problem) -> Tensor:
    """Share of the plug-and-play answer for each image, (B,): as the prior says, or 0 where none would help."""
    if prior.denoiser is not None and prior.denoised is None and isinstance(problem.operator, Mask):
        scattered = near_known(problem.operator) >= _SCATTERED
        shares = torch.where(scattered, _SHARES["scattered"], 0.0).to(problem.y)
    else:
        shares = problem.y.new_full((1,), _share(prior, problem))
    return shares.expand(problem.batch)


def near_known(operator: Mask) -> Tensor:
    """Share of the missing samples that have a known one in the 7x7 around, for each mask; 1 where none is missing."""
    known = (operator.mask != 0).to(torch.float32)
    # For a missing pixel, the weight of the inverse mask is the share of known pixels around it.
    near = (importance_weights(1 - known) > 0).flatten(1).sum(1)
    missing = (1 - known).flatten(1).sum(1)
    return torch.where(missing > 0, near / missing.clamp_min(1), 1.0)


def _share(prior: Latent, problem: Problem) -> float:
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
