"""The register of priors every law is tested on.

A factory takes the image shape (C, H, W) and a seeded generator and returns a prior with a weight, accurate
enough for float64 laws. Register each prior once in every option that changes its code path;
``tests/priors/test_laws.py`` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from invrestore import operators, priors
from invrestore._types import Shape
from invrestore.priors import Prior

PriorFactory = Callable[[Shape, torch.Generator], Prior]

PRIORS: dict[str, PriorFactory] = {}
ACCURACY: dict[str, float] = {}
"""Absolute error of the objective that the laws allow, for images of unit range."""

SHAPES: tuple[Shape, ...] = ((3, 8, 8), (2, 7, 5), (1, 1, 9), (1, 1, 1))


def prior(name: str, accuracy: float = 1e-6) -> Callable[[PriorFactory], PriorFactory]:
    """Register a factory of priors under a unique name."""

    def register(factory: PriorFactory) -> PriorFactory:
        assert name not in PRIORS, name
        PRIORS[name] = factory
        ACCURACY[name] = accuracy
        return factory

    return register


@prior("tv")
def _tv(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.TV(0.2, tol=1e-11)


@prior("tv-uncoupled")
def _tv_uncoupled(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.TV(0.2, coupled=False, tol=1e-11)


@prior("tv-anisotropic")
def _tv_anisotropic(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.TV(0.2, isotropic=False, tol=1e-11)


@prior("tgv", accuracy=2e-3)
def _tgv(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.TGV(0.2, tol=1e-4)


@prior("tikhonov")
def _tikhonov(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.Tikhonov(0.7)


@prior("tikhonov-gradient")
def _tikhonov_gradient(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.Tikhonov(0.7, operator="gradient")


@prior("tikhonov-operator")
def _tikhonov_operator(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.Tikhonov(0.7, operator=2.0 * operators.Gradient())


@prior("box")
def _box(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.Box(0.2, 0.8)


@prior("box-per-pixel")
def _box_per_pixel(shape: Shape, rng: torch.Generator) -> Prior:
    lower = torch.rand(shape, generator=rng, dtype=torch.float64)
    return priors.Box(lower, lower + 0.3)


@prior("sum-tv-box")
def _sum_tv_box(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.TV(0.2, tol=1e-11) + priors.Box(0.2, 0.8)


@prior("sum-tikhonovs")
def _sum_tikhonovs(shape: Shape, rng: torch.Generator) -> Prior:
    terms = (priors.Tikhonov(0.3), priors.Tikhonov(0.4, operator="gradient"))
    return priors.PriorSum(terms, lam=0.5, tol=1e-12)


@prior("sum-tikhonov-box")
def _sum_tikhonov_box(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.PriorSum((priors.Tikhonov(0.5, operator="gradient"), priors.Box(0.2, 0.8)), tol=1e-12)


@prior("low-rank-nuclear")
def _low_rank_nuclear(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.LowRank(0.2, kind="nuclear")


@prior("low-rank-nuclear-joint")
def _low_rank_nuclear_joint(shape: Shape, rng: torch.Generator) -> Prior:
    return priors.LowRank(0.2, kind="nuclear", joint=True)
