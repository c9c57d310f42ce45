"""Rows of the benchmark that use trained networks of this package: denoisers, restorers and generators."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import torch

from invrestore import priors
from invrestore._types import Tensor
from invrestore.bench._classical import operator_of, plug_and_play
from invrestore.bench._types import Kind, Problem
from invrestore.networks import Card
from invrestore.operators import Identity
from invrestore.priors import Denoiser, Latent, Prior
from invrestore.solvers import solve

__all__ = ["denoised", "ensembled", "kinds_of", "plain_map", "restored", "searched", "searched_raw"]

_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "noise": ("noise",),
    "blur": ("blur",),
    "jpeg": ("jpeg",),
    "reduced": ("downsample",),
    "sparse": ("mask",),
    "block": ("mask", "clutter"),
    "clutter": ("clutter",),
    "colornoise": ("colornoise",),
}
"""Kinds of problems by the kinds of degradations that cards of restorers name."""


def kinds_of(card: Card) -> frozenset[Kind]:
    """Kinds of problems a restorer was trained for."""
    return frozenset(kind for degradation in card.degradations for kind in _KINDS[degradation["kind"]])


@functools.cache
def _load(name: str) -> Prior:
    return priors.load(name)


def denoised(problem: Problem, *, prior: str, strength: float | None = None) -> Tensor:
    """``solve`` with a denoiser that ships with weights; settings as in ``plug_and_play``."""
    return plug_and_play(problem, _load(prior), strength=strength)


def ensembled(problem: Problem, *, prior: str) -> Tensor:
    """A denoiser in the mean over the eight flips and quarter turns, at eight times the cost."""
    loaded = _load(prior)
    assert isinstance(loaded, Denoiser)
    return plug_and_play(problem, dataclasses.replace(loaded, ensemble=8))


def restored(problem: Problem, *, prior: str, blind: bool = False, refine: bool = False) -> Tensor:
    """One pass of a feed-forward restorer.

    Args:
        problem: What to restore.
        prior: Name of its weights.
        blind: Show it what a person sees, and tell it nothing of what happened. Problems without a forward model
            are blind for everyone.
        refine: Take the nearest image that fits the measurement.
    """
    if blind or problem.operator is None:
        return solve(problem.view, Identity(), _load(prior), sigma=0.0).x
    return solve(problem.y, problem.operator, _load(prior), sigma=problem.sigma, refine=refine).x


# Generators -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Search:
    """The last whole search, by the problem it belongs to."""

    problem: Problem
    prior: str
    raw: Tensor


_last: list[_Search] = []


def _latent(name: str) -> Latent:
    loaded = _load(name)
    assert isinstance(loaded, Latent)
    return loaded


def searched(problem: Problem, *, prior: str) -> Tensor:
    """The whole pipeline of a generator that ships with weights, with the settings of its prior."""
    solution = solve(problem.y, operator_of(problem), _latent(prior), sigma=problem.sigma)
    _last[:] = [_Search(problem, prior, solution.stages["raw"])]
    return solution.x


def searched_raw(problem: Problem, *, prior: str) -> Tensor:
    """G(z) of the same search, without adaptation, data consistency and blending.

    Where :func:`searched` has just solved this very problem its first stage is the answer, at no cost.
    """
    if _last and _last[0].problem is problem and _last[0].prior == prior:
        return _last[0].raw
    search = dataclasses.replace(_latent(prior), adapt=0, consistency=False, blend="none", denoiser=None)
    return solve(problem.y, operator_of(problem), search, sigma=problem.sigma).x


def plain_map(problem: Problem, *, prior: str) -> Tensor:
    """Maximum a posteriori as first proposed: z alone is searched by Adam, from one random start for each image.

    The objective has the discriminator's term where the discriminator can judge an image by itself. No encoder, no
    weights near holes, no fine-tuning, no data consistency, no blending; rounded data are compared by squared
    differences like all others.
    """
    search = dataclasses.replace(
        _latent(prior),
        encoder=None,
        space="z",
        candidates=1,
        restarts=1,
        steps=300,
        importance=0.0,
        adapt=0,
        consistency=False,
        blend="none",
        denoiser=None,
    )
    starts = [search.sample(1, torch.Generator().manual_seed(seed)) for seed in problem.seeds]
    operator = operator_of(problem)
    return solve(
        problem.y, operator, search, sigma=problem.sigma, fidelity="l2", init=torch.cat(starts), restarts=1
    ).x
