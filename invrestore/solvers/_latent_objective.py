"""The objective of a latent search: data of some images, and what codes cost."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property

import torch

from invrestore._types import Tensor
from invrestore.fidelity import L1, Fidelity, Interval
from invrestore.operators import Downsample, Mask, Operator
from invrestore.operators._select import depends_on_place, select
from invrestore.priors import Latent
from invrestore.solvers._blend import importance_weights
from invrestore.solvers._problem import Problem

__all__ = ["EIGHT_BITS", "Evaluation", "Group", "Part"]

EIGHT_BITS = 1 / (255 * math.sqrt(12))
"""Rounding error of 8-bit data: no measurement is taken to be more exact than that."""

_EVIDENCE = 0.5
_EVIDENCE_OF_MEANS = 2.0
"""Samples that are means of many pixels share fewer errors."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """The data of some items (image and restart), ready for evaluation.

    Attributes:
        operator: A, for exactly these items, or for the whole group if ``lockstep``.
        fidelity: f, likewise.
        y: Measurements, (N, ...).
        weights: Importance of each sample, None for 1.
        count: Effective number of samples, (N,).
        floor: Noise level in units of the misfit, (N,).
        alike: Samples that share one error of the generator, (N,).
        lam: Weight of the bracket if given, (N,).
        lockstep: Number of images the operator has to see at once, 0 where any number will do.
    """

    operator: Operator
    fidelity: Fidelity
    y: Tensor
    weights: Tensor | None
    count: Tensor
    floor: Tensor
    alike: Tensor
    lam: Tensor | None
    lockstep: int


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Objective and data loss of items, both (N,), with their images in [0, 1]."""

    total: Tensor
    data: Tensor
    x: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Images that are searched together, and what the objective needs of them.

    Attributes:
        problem: The problem of these images alone.
        prior: The latent prior.
        images: Their places in the batch, (b,).
        chunk: Most items in one pass.
    """

    problem: Problem
    prior: Latent
    images: Tensor
    chunk: int

    @property
    def size(self) -> int:
        """Number of images."""
        return self.problem.batch

    @cached_property
    def whole(self) -> Part:
        """The data of every image once, in order."""
        return self.part(torch.arange(self.size, device=self.problem.y.device))

    @cached_property
    def lockstep(self) -> bool:
        """Whether the operator has to see all images at once, in order."""
        return self.size > 1 and depends_on_place(self.problem.operator)

    @property
    def power(self) -> int:
        """Degree of the data loss in the residual."""
        return 1 if isinstance(self.problem.fidelity, L1) else 2

    def parts(self, items: Tensor) -> list[tuple[slice, Part]]:
        """Data of ``items`` (places of images within the group, (N,)), cut into chunks."""
        step = self.chunk
        if self.lockstep:
            step = max(1, self.chunk // self.size) * self.size
        cuts = [slice(i, min(i + step, len(items))) for i in range(0, len(items), step)]
        return [(cut, self.part(items[cut])) for cut in cuts]

    def part(self, items: Tensor) -> Part:
        """Data of some items of the group, ready for evaluation."""
        problem, batch = self.problem, self.size
        operator = problem.operator if self.lockstep else select(problem.operator, items, batch)
        weights, count = self._weights()
        sigma = problem.sigma.clamp_min(EIGHT_BITS)
        # For L1 the mean absolute value of a normal error stands for its standard deviation.
        floor = sigma.square() if self.power == 2 else sigma * math.sqrt(2 / math.pi)
        lam = self.prior.lam
        if lam is not None:
            lam = torch.as_tensor(lam, dtype=problem.y.dtype, device=problem.y.device).expand(batch)[items]
        alike = (count / (self._evidence() * self.prior.latent_size)).clamp_min(1.0)
        return Part(
            operator,
            select(problem.fidelity, items, batch, problem.y.ndim),
            problem.y[items],
            weights if weights is None or len(weights) == 1 else weights[items],
            count[items],
            floor[items],
            alike[items],
            lam,
            batch if self.lockstep else 0,
        )

    def _evidence(self) -> float:
        """Independent errors for each latent dimension: given, or by what the samples are."""
        if self.prior.evidence is not None:
            return self.prior.evidence
        return _EVIDENCE_OF_MEANS if isinstance(self.problem.operator, Downsample) else _EVIDENCE

    def _weights(self) -> tuple[Tensor | None, Tensor]:
        """Importance of each sample, None for 1, and the effective number of samples of each image, (b,)."""
        problem = self.problem
        numbers = problem.y.new_full((self.size,), problem.y[0].numel())
        if not isinstance(problem.operator, Mask):
            return None, numbers
        known = (problem.operator.mask != 0).to(problem.y.dtype)
        share = self.prior.importance
        weights = known if share == 0 else known * (1 - share + share * importance_weights(known))
        # A mask without holes has no pixels near them: all count alike.
        empty = (weights > 0).flatten(1).sum(1) == 0
        weights = torch.where(empty.view(-1, 1, 1, 1), known, weights)
        energy = weights.square() if self.power == 2 else weights
        count = energy.expand(len(energy), *problem.y.shape[1:]).flatten(1).sum(1).expand(self.size)
        return (None if share == 0 else weights), count

    def misfit(self, part: Part, x: Tensor) -> Tensor:
        """Root mean square of A x - y over the samples that were measured, (N,)."""
        operator = part.operator
        residual = self._apply(part, x) - part.y
        share = 1.0
        if isinstance(operator, Mask):
            known = (operator.mask != 0).to(x.dtype)
            share = known.expand(len(known), *part.y.shape[1:]).flatten(1).mean(1)  # type: ignore[assignment]
        return (residual.flatten(1).square().mean(1) / share).sqrt()

    @staticmethod
    def _apply(part: Part, x: Tensor) -> Tensor:
        if part.lockstep:
            return torch.cat([part.operator(block) for block in torch.split(x, part.lockstep)])
        return part.operator(x)

    def data(self, part: Part, x: Tensor) -> Tensor:
        """f(W A x; W y) of each item, (N,)."""
        u, y = self._apply(part, x), part.y
        fidelity = part.fidelity
        if isinstance(fidelity, Interval):
            # The indicator of the box has no slope to follow; its distance does.
            outside = u - torch.minimum(torch.maximum(u, fidelity.lower), fidelity.upper)
            pull = fidelity.pull * (u - y)
            return 0.5 * (outside * outside + pull * (u - y)).flatten(1).sum(1)
        if part.weights is not None:
            u, y = part.weights * u, part.weights * y
        return fidelity.value(u, y)

    def lam(self, part: Part, data: Tensor) -> Tensor:
        """Weight of the bracket, (N,): given, or the noise plus ``alike`` times what the misfit exceeds it by."""
        if part.lam is not None:
            return part.lam
        excess = (self.power * data / part.count - part.floor).clamp_min(0)
        return part.floor + part.alike * excess

    def evaluate(self, part: Part, raw: Tensor, energy: Tensor, *, judge: bool = True) -> Evaluation:
        """Objective of items from the generator's images and the energy of their codes.

        With a given weight, data + lam * bracket. Without one, the bracket plus a function of the mean misfit m whose
        gradient is that of data / lam(m) for the weight of ``lam``: with noise s and k samples to an error,
        n/2 (m / s - 1) below m = s, and n / (2 k) log(1 + k (m - s) / s) above. For k = 1 that is the negative
        log-likelihood of white noise whose variance, at least s, is maximised out.
        """
        x = self.prior.to_image(raw).to(part.y.dtype)
        data = self.data(part, x)
        bracket = energy.to(data.dtype)
        if judge and self.prior.discriminator is not None and self.prior.discriminator_weight > 0:
            bracket = bracket + self.prior.discriminator_weight * self.prior.doubt(raw).to(data.dtype)
        if part.lam is not None:
            total = data + part.lam * bracket
        else:
            mean = self.power * data / part.count
            relative = mean / part.floor - 1
            fit = relative.clamp_max(0) + torch.log1p(part.alike * relative.clamp_min(0)) / part.alike
            total = part.count / self.power * fit + bracket
        return Evaluation(total, data, x)

    def scale(self, part: Part, total: Tensor) -> Tensor:
        """What a relative change of 1 of the data changes the objective by, (N,)."""
        return total.abs() if part.lam is not None else part.count / (self.power * part.alike)
