"""Posterior samples with a denoiser as the prior: diffusion that is pulled onto the data at every step."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from invrestore._checks import check_count, check_nonnegative
from invrestore._types import Tensor
from invrestore.errors import RangeError
from invrestore.fidelity import L2
from invrestore.operators import Identity
from invrestore.priors import Capability
from invrestore.solvers._base import Solver, State, above_zero
from invrestore.solvers._problem import Problem

__all__ = ["PIXELS_AT_ONCE", "DiffPIR", "DiffPIRState"]

PIXELS_AT_ONCE = 2**20
"""Most pixels in one call of the network, unless a single image has more: a bound on memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class DiffPIRState(State):
    """Mean of the samples, and the samples.

    Attributes:
        samples: Clean images, (B, S, C, H, W); ``x`` is their mean.
        noisy: The same at the noise level of the next step, (B, S, C, H, W).
        problems: The problem each sample is fitted to, S of them.
        count: Steps taken.
    """

    samples: Tensor
    noisy: Tensor
    problems: tuple[Problem, ...]
    count: int


@dataclasses.dataclass(frozen=True)
class DiffPIR(Solver[DiffPIRState]):
    """Samples of the posterior p(x | y) with p(x) behind a denoiser D.

    Each sample starts at x_0 + s_0 n, x_0 the start image and n white noise. Step k of K, at noise level s_k:

        d = D(x_k, s_k)                                     what the prior expects behind x_k
        c = prox_{f(A .; y_s) s_k^2 / lam}(d)               the data step
        e = (x_k - c) / s_k                                 the noise then in x_k
        x_{k+1} = c + s_{k+1} (sqrt(1 - zeta) e + sqrt(zeta) n)

    Data of Gaussian noise are perturbed once for each sample, y_s = y + sigma n: otherwise all samples would share
    what the noise of y does to them, and seem surer than they are. The levels s_k fall geometrically from ``first``
    to ``last``, and the samples are the last c. For denoising (A the identity, L2) the measurement itself is a
    diffused image of level sigma: the chain starts there, without a data step, and samples the posterior that the
    denoiser implies up to the length of the steps.

    The answer ``x`` is the mean of the samples. All samples of all images go through the network together, at most
    ``PIXELS_AT_ONCE`` pixels in one call.

    The noise is the same for all images of a batch, so that a batch gives what its images give alone: the samples
    of one image are independent of each other, those of equal number in different images are not.

    Args:
        samples: S, number of samples of each image, at least 2.
        steps: K, number of calls of the denoiser.
        first: Noise level of the first step, in units of the image range.
        last: Noise level of the last step; what is finer than it does not vary between samples.
        weight: lam / sigma^2 for a prior without a weight; smaller follows the data, and their noise, more closely.
        zeta: Share of fresh noise in each step, in [0, 1]: 0 keeps the noise of the start, 1 replaces it.
        seed: Seed of the noise; ``solve`` draws it from ``rng``.

    Raises:
        RangeError: ``samples`` or ``steps`` too small, ``zeta`` outside [0, 1], or levels that do not fall.

    Reference:
        Zhu et al. (2023), Denoising Diffusion Models for Plug-and-Play Image Restoration, algorithm 1. Unlike the
        paper: written for noise that is added without scaling the image (variance exploding), as plug-and-play
        denoisers take it; the start comes from the data, because these denoisers end at 75/255; denoising
        starts at the measurement; and the data are perturbed, as Papandreou and Yuille (2010) sample Gaussians.
    """

    samples: int = 16
    steps: int = 24
    first: float = 75 / 255
    last: float = 2 / 255
    weight: float = 0.7
    zeta: float = 0.3
    seed: int = 0

    name: ClassVar[str] = "diffpir"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.DENOISE})
    default_tol: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_count("DiffPIR", "samples", self.samples, least=2)
        check_count("DiffPIR", "steps", self.steps)
        check_nonnegative("DiffPIR", "weight", self.weight)
        check_nonnegative("DiffPIR", "zeta", self.zeta)
        if self.zeta > 1:
            raise RangeError("DiffPIR", expected="zeta in [0, 1]", found=f"{self.zeta:g}")
        if not 0 < self.last <= self.first <= 1:
            raise RangeError(
                "DiffPIR",
                expected="0 < last <= first <= 1",
                found=f"first={self.first:g}, last={self.last:g}",
            )

    def check(self, problem: Problem) -> None:
        """Raise unless the data have a prox."""
        super().check(problem)
        if not problem.has_data_prox:
            raise self.refuse(
                "a linear operator with the L2 fidelity (or no operator)",
                f"{problem.operator.name} with {problem.fidelity.name}",
            )

    def is_denoising(self, problem: Problem) -> bool:
        """Whether the measurement is the image plus Gaussian noise, and so a state of the chain."""
        return (
            isinstance(problem.operator, Identity) and isinstance(problem.fidelity, L2) and not problem.exact
        )

    def strength(self, problem: Problem, count: int) -> Tensor:
        """s_k of each image for step ``count`` of ``steps``, counted from 0, (B,)."""
        top = problem.sigma if self.is_denoising(problem) else torch.full_like(problem.sigma, self.first)
        t = min(count / max(self.steps - 1, 1), 1.0)
        strength: Tensor = top ** (1 - t) * top.clamp_max(self.last) ** t
        return strength

    def noise(self, like: Tensor, stream: int) -> Tensor:
        """White noise (S, ...) for the samples of every image of ``like``, (B, ...), one for each ``stream``."""
        rng = torch.Generator(like.device).manual_seed((self.seed + stream) % 2**32)
        shape = (self.samples, *like.shape[1:])
        return torch.randn(shape, generator=rng, device=like.device, dtype=torch.float32).to(like)

    def budget(self, problem: Problem) -> int:
        """The steps of the schedule."""
        return self.steps

    def denoiser_lam(self, problem: Problem) -> Tensor:
        """``weight`` sigma^2."""
        return self.weight * problem.sigma.square()

    def init(self, problem: Problem, x: Tensor) -> DiffPIRState:
        """Samples around ``x``; at the measurement for denoising."""
        samples = x[:, None].expand(-1, self.samples, *x.shape[1:])
        if self.is_denoising(problem):
            noisy = problem.y[:, None].expand_as(samples)
        else:
            noisy = samples + self.first * self.noise(x, 0)
        return DiffPIRState(x, samples, noisy, self._perturbed(problem), 0)

    def _perturbed(self, problem: Problem) -> tuple[Problem, ...]:
        """The problem with the measurement of each sample."""
        if problem.exact or self.is_denoising(problem) or not isinstance(problem.fidelity, L2):
            return (problem,) * self.samples
        y, sigma = problem.y, problem.sigma.view(-1, *[1] * (problem.y.ndim - 1))
        noise = self.noise(y, self.steps + 1)  # streams 0 to steps belong to the chain
        return tuple(dataclasses.replace(problem, y=y + sigma * one) for one in noise)

    def step(self, problem: Problem, state: DiffPIRState) -> DiffPIRState:
        """Denoise, fit, and go to the next noise level."""
        count = state.count + 1
        s, later = self.strength(problem, state.count), self.strength(problem, count)
        clean = self._denoise(problem, state.noisy, s)
        if not self.is_denoising(problem):
            lam = torch.as_tensor(problem.prior.weight).to(s)
            step = s**2 / above_zero(lam)
            # One sample after the other: to the operator each is a batch like the one it was measured from.
            pairs = zip(state.problems, clean.unbind(1), strict=True)
            clean = torch.stack([own.data_prox(one, step, start=one) for own, one in pairs], 1)
        level, following = s.view(-1, 1, 1, 1, 1), later.view(-1, 1, 1, 1, 1)
        kept = (1 - self.zeta) ** 0.5 * (state.noisy - clean) / level
        noisy = clean + following * (kept + self.zeta**0.5 * self.noise(state.x, count))
        return DiffPIRState(clean.mean(1), clean, noisy, state.problems, count)

    def _denoise(self, problem: Problem, x: Tensor, sigma: Tensor) -> Tensor:
        """D of all samples, a bounded number at once."""
        flat = x.flatten(0, 1)
        levels = sigma.repeat_interleave(self.samples)
        at_once = max(1, PIXELS_AT_ONCE // (x.shape[-2] * x.shape[-1]))
        prior = problem.prior.with_lam(1.0)  # so that the prox of step s^2 denoises by s
        parts = [
            prior.prox(part, level**2)
            for part, level in zip(torch.split(flat, at_once), torch.split(levels, at_once), strict=True)
        ]
        return torch.cat(parts).view_as(x)
