"""Rows of the benchmark that restore with this package's own priors, and the simplest ones without any."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from invrestore import fidelity, priors
from invrestore._types import Tensor
from invrestore.bench._types import Problem
from invrestore.errors import CapabilityError
from invrestore.operators import Identity, Mask, Operator
from invrestore.priors import Capability, Dictionary, LowRank, LowRankCompletion, Prior
from invrestore.restorers import CoupledDictionary
from invrestore.solvers import solve

__all__ = [
    "bicubic",
    "consensus_tv",
    "coupled_dictionary",
    "dictionary",
    "explicit",
    "k_svd",
    "low_rank",
    "measured",
    "median",
    "operator_of",
    "plug_and_play",
    "tv_l1",
]


def operator_of(problem: Problem) -> Operator:
    """The forward model.

    Raises:
        CapabilityError: The problem has none.
    """
    if problem.operator is None:
        raise CapabilityError(
            "bench",
            expected="a problem with a forward model",
            found=f"kind {problem.kind!r}",
            remedy="Choose a method for it.",
        )
    return problem.operator


# No restoration ---------------------------------------------------------------------------------------------


def measured(problem: Problem) -> Tensor:
    """The measurement as a person sees it."""
    return problem.view


def bicubic(problem: Problem) -> Tensor:
    """Bicubic enlargement, a = -0.5, as Pillow and MATLAB have it."""
    size = problem.view.shape[-2:]
    # Only with antialias=True does torch interpolate with this kernel.
    return F.interpolate(problem.y, size, mode="bicubic", align_corners=False, antialias=True)


# Priors through solve ---------------------------------------------------------------------------------------


def explicit(problem: Problem, *, prior: str, strength: float | None = None) -> Tensor:
    """``solve`` with a classical prior.

    Args:
        problem: What to restore.
        prior: One of ``priors.available()``.
        strength: Weight in units of the prior's own first guess at this noise level. None: chosen for each
            image by ``solve``. Exact data are met exactly and have no weight.
    """
    return _solve(problem, priors.load(prior), strength)


def plug_and_play(
    problem: Problem, prior: Prior, *, strength: float | None = None, steps: int | None = None
) -> Tensor:
    """``solve`` with a denoiser.

    Args:
        problem: What to restore.
        prior: The denoiser.
        strength: As in :func:`explicit`; for rounded data the noise level in units of the rounding error. Pure
            noise is removed at its own level.
        steps: Steps of half-quadratic splitting; None takes the method's default.
    """
    if problem.kind == "noise":
        return _solve(problem, prior, None)
    return _solve(problem, prior, strength, steps)


def _solve(problem: Problem, prior: Prior, strength: float | None, steps: int | None = None) -> Tensor:
    operator = operator_of(problem)
    sigma: float | Tensor = problem.sigma
    rounded = problem.kind in ("quantize", "jpeg")
    if strength is not None and rounded and prior.can(Capability.DENOISE):
        sigma = strength * operator.estimate_sigma(problem.y)
    elif strength is not None and (rounded or problem.sigma > 0):
        level = torch.full((problem.y.shape[0],), problem.sigma)
        level = operator.estimate_sigma(problem.y) if rounded else level
        prior = prior.with_lam(strength * prior.first_lam(level))
    return solve(problem.y, operator, prior, sigma=sigma, max_steps=steps).x


# Sparse and low rank ----------------------------------------------------------------------------------------


def dictionary(problem: Problem, *, strength: float | None = None, steps: int | None = None) -> Tensor:
    """The shipped learned atoms, plug-and-play; settings as in :func:`plug_and_play`."""
    return plug_and_play(problem, Dictionary(), strength=strength, steps=steps)


def k_svd(problem: Problem, *, gain: float | None = None, adapt: int = 10) -> Tensor:
    """Atoms learned by K-SVD on the noisy image itself, from the cosine dictionary or shipped colour atoms.

    Args:
        problem: What to restore.
        gain: Error that a code may leave, relative to the noise; None takes the prior's own.
        adapt: Rounds of K-SVD.
    """
    gray = problem.view.shape[1] == 1
    prior = Dictionary.dct() if gray else Dictionary()
    atoms = Dictionary(prior.atoms, gain=gain, adapt=adapt)
    return atoms.denoise(problem.y, problem.sigma)


def low_rank(
    problem: Problem,
    *,
    strength: float | None = None,
    steps: int | None = None,
    effort: str = "fast",
    rank: int = 0,
) -> Tensor:
    """Weighted nuclear norm of groups of patches; for masks the truncated nuclear norm of the whole image.

    Args:
        problem: What to restore.
        strength: As in :func:`plug_and_play`.
        steps: As in :func:`plug_and_play`.
        effort: Of the groups, "fast" or "paper".
        rank: For masks: singular values of each channel that go free.
    """
    if problem.kind in ("mask", "clutter"):
        return solve(problem.y, operator_of(problem), LowRankCompletion(rank), sigma=problem.sigma).x
    groups = LowRank(effort=effort)  # type: ignore[arg-type]
    return plug_and_play(problem, groups, strength=strength, steps=steps)


def coupled_dictionary(problem: Problem, *, sparsity: int = 3) -> Tensor:
    """Bicubic enlargement plus the detail that coupled dictionaries predict."""
    return CoupledDictionary(sparsity=sparsity).restore(problem.y, operator_of(problem))


# Random colours at unknown places ---------------------------------------------------------------------------


def median(problem: Problem, *, size: int = 5) -> Tensor:
    """Median of every channel in a square window; borders are mirrored."""
    from scipy.ndimage import median_filter

    found = median_filter(problem.view.numpy(), size=(1, 1, size, size), mode="mirror")
    return torch.from_numpy(found)


def tv_l1(problem: Problem, *, lam: float = 0.5) -> Tensor:
    """Total variation with the sum of absolute differences as fidelity."""
    misfit = fidelity.L1()
    return solve(problem.y, Identity(), priors.TV(lam), sigma=0.1, fidelity=misfit).x


def consensus_tv(
    problem: Problem, *, radius: int = 7, tolerance: float = 0.08, votes: float = 3.0, strength: float = 0.2
) -> Tensor:
    """Keep the pixels whose colour recurs nearby, fill the others by total variation, look again.

    A pixel that was hit has a random colour, which few of its neighbours share; a pixel that was not agrees
    with others that were not. After the first filling, a pixel is kept if it agrees with the filled image.

    Args:
        problem: What to restore.
        radius: Of the square neighbourhood, pixels.
        tolerance: Largest difference in any channel between colours that agree.
        votes: Neighbours that must agree with a kept pixel.
        strength: Weight of total variation relative to the tolerance.

    Reference:
        Garnett, Huegerich, Chui and He (2005) for impulses found by the differences from their neighbours.
    """
    y = problem.y
    count = torch.zeros_like(y[:, :1])
    grown = F.pad(y, (radius,) * 4, value=-1.0)
    height, width = y.shape[-2:]
    for i in range(2 * radius + 1):
        for j in range(2 * radius + 1):
            if (i, j) != (radius, radius):
                other = grown[..., i : i + height, j : j + width]
                count += ((other - y).abs().amax(1, keepdim=True) < tolerance).to(y.dtype)
    kept = count >= votes
    x = y
    for _ in range(3):
        # An image in which nothing agrees has nothing to lose.
        kept = kept | ~kept.flatten(1).any(1).view(-1, 1, 1, 1)
        prior = priors.TV(strength * tolerance)
        x = solve(kept * y, Mask(kept), prior, sigma=tolerance).x
        kept = (x - y).abs().amax(1, keepdim=True) < 2 * tolerance
    return x
