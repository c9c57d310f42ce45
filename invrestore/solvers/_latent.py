"""Latent search: the image is G(z), and z is what the solver moves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import ClassVar

import torch

from invrestore._checks import check_count, check_finite, check_tensor
from invrestore._types import Tensor
from invrestore.errors import RangeError, ShapeError
from invrestore.fidelity import L1, L2, Huber, Interval, Weighted
from invrestore.operators import Downsample, Grayscale, Mask, Value
from invrestore.operators._select import depends_on_place, select
from invrestore.priors import Capability, Latent
from invrestore.solvers._base import Solver
from invrestore.solvers._blend import weighs_gray
from invrestore.solvers._descent import LBFGS, Adam, Nesterov, StepRule
from invrestore.solvers._latent_adapt import adaptation_steps
from invrestore.solvers._latent_average import denoised_shares
from invrestore.solvers._latent_descent import descend
from invrestore.solvers._latent_finish import finish
from invrestore.solvers._latent_objective import Group
from invrestore.solvers._latent_spaces import Space, spaces_of
from invrestore.solvers._latent_starts import Table, encoder_space, starts
from invrestore.solvers._latent_state import LatentState, Watch, note
from invrestore.solvers._loop import Callback, Outcome
from invrestore.solvers._problem import Problem
from invrestore.solvers._solution import Status

__all__ = ["LatentSearch"]

_RULES: dict[str, Callable[[float | None], StepRule]] = {
    "adam": lambda rate: Adam() if rate is None else Adam(rate),
    "nesterov": lambda rate: Nesterov() if rate is None else Nesterov(rate),
    "lbfgs": lambda rate: LBFGS() if rate is None else LBFGS(rate),
}


@dataclasses.dataclass(frozen=True)
class LatentSearch(Solver[LatentState]):
    """Problem: min_z f(W A(G(z)); W y) + lam [c (log(1 - D(G(z))) - log D(G(z))) - log p(z)], for each image.

    The settings are those of the prior, ``priors.Latent``. In order:

    1. Starts: latents of the encoder, also of the image with its measurement put into the last reconstruction, and a
       table of random latents, which all images share; the ``restarts`` of least data loss are kept. The mean style
       comes before them where the prior says so.
    2. Descent in z, or in w and then w+, or on to a layer: all restarts of all images side by side. A restart stops
       when its objective fell by less than ``tol`` times the scale of its data within 25 steps, or when it has fallen
       behind. Its best iterate counts.
    3. The best restart, by objective. The spread of the good ones is kept as a map of what the data leave open.
    4. Adaptation: a copy of the generator's weights and the latent are tuned on for each image by itself, until the
       residual is as small as the noise (the discrepancy principle) or the steps are used up.
    5. Data consistency, blending, and the average with a denoiser's answer.

    The answer is a constant for autograd. The discriminator is not asked during adaptation.

    Reference:
        As in ``priors.Latent``.
    """

    name: ClassVar[str] = "latent"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.LATENT})
    default_tol: ClassVar[float] = 1e-3

    def check(self, problem: Problem) -> None:
        """Raise unless the generator makes images of the right shape, with gradients, and the settings fit the data.

        Raises:
            CapabilityError: The weight cannot be found for this fidelity, or the blending does not fit the operator, or
                the generator cuts the gradient.
            ShapeError: The generator makes images of another shape, or a network returns something else than expected.
            RangeError: The generator's values are far outside ``output_range``, or not finite.
            ShapeError, DeviceError: The denoiser does not take images of this shape, or on this device.
        """
        super().check(problem)
        prior = _latent_prior(problem)
        known = isinstance(problem.fidelity, L1 | L2 | Huber | Weighted | Interval)
        if prior.lam is None and not known:
            raise self.refuse(
                "a weight lam for this fidelity",
                f"Latent(lam=None) with {problem.fidelity.name}",
                "Latent(..., lam=...) sets it; for L1, L2, Huber, Weighted and Interval it is found.",
            )
        if prior.blend == "poisson" and not isinstance(problem.operator, Mask):
            raise self.refuse("a Mask for blend='poisson'", problem.operator.name)
        if prior.blend == "chroma" and not weighs_gray(problem.operator):
            raise self.refuse(
                "Grayscale with weights whose sum is not 0 for blend='chroma'", problem.operator.name
            )
        if prior.blend == "detail" and not isinstance(problem.operator, Downsample):
            raise self.refuse("a Downsample for blend='detail'", problem.operator.name)
        if prior.blend == "value" and not isinstance(problem.operator, Value | Grayscale):
            raise self.refuse("Grayscale or Value for blend='value'", problem.operator.name)
        with prior.frozen(), torch.enable_grad():
            self._probe(prior, problem)
        if prior.denoiser is not None and bool(denoised_shares(prior, problem).any()):
            # Asked once before the search, so that wrong channels or a wrong device are not found after it.
            prior.denoiser.denoise(problem.y.new_zeros(1, *problem.input_shape), 0.1)

    def _probe(self, prior: Latent, problem: Problem) -> None:
        z = prior.sample(2, like=problem.y).requires_grad_()
        raw: object = prior.generator(z.view(-1, *prior.latent_shape))
        where = f"priors.{prior.name}"
        wanted = (2, *problem.input_shape)
        if not isinstance(raw, torch.Tensor) or tuple(raw.shape) != wanted:
            raise ShapeError(
                where,
                expected=f"a generator of images {problem.input_shape}, as the measurement has",
                found=str(tuple(raw.shape[1:])) if isinstance(raw, torch.Tensor) else type(raw).__name__,
                remedy="Crop, resize or degrade to the generator's size first.",
            )
        if not raw.requires_grad:
            raise self.refuse("a generator that autograd can differentiate", "images without gradient")
        check_finite(where, "the generator's images", raw.detach())
        low, high = prior.output_range
        bottom, top = float(raw.detach().min()), float(raw.detach().max())
        if bottom < low - 0.5 * (high - low) or top > high + 0.5 * (high - low):
            raise RangeError(
                where,
                expected=f"images in about [{low:g}, {high:g}]",
                found=f"values from {bottom:.3g} to {top:.3g}",
                remedy="Latent(..., output_range=(-1, 1)) suits a generator that ends in tanh.",
            )
        if prior.discriminator is not None:
            verdict: object = prior.discriminator(raw)
            if not isinstance(verdict, torch.Tensor) or verdict.numel() % 2 or verdict.shape[:1] != (2,):
                raise ShapeError(
                    where,
                    expected="a discriminator with a logit, or a map of them, for each image",
                    found=str(tuple(verdict.shape))
                    if isinstance(verdict, torch.Tensor)
                    else type(verdict).__name__,
                )
        if prior.encoder is not None:
            code: object = prior.encode(prior.to_image(raw))
            axes = 3 if encoder_space(prior) == "w+" else 2
            fits = isinstance(code, torch.Tensor) and code.shape[:1] == (2,)
            if not fits or (axes == 3 and code.ndim != 3):  # type: ignore[attr-defined]
                raise ShapeError(
                    where,
                    expected="an encoder from images to one latent for each",
                    found=str(tuple(code.shape)) if isinstance(code, torch.Tensor) else type(code).__name__,
                )
            if encoder_space(prior) == "z" and code[0].numel() != prior.latent_size:  # type: ignore[index]
                raise ShapeError(
                    where,
                    expected=f"an encoder to latents of length {prior.latent_size}",
                    found=str(tuple(code.shape[1:])),  # type: ignore[attr-defined]
                    remedy="An encoder to styles says so: encoder.space = 'w' or 'w+'.",
                )

    def init(self, problem: Problem, x: Tensor) -> LatentState:
        """Nothing is done yet; ``step`` searches from start to end."""
        none = x.new_zeros(x.shape[0], 0)
        return LatentState(x, none, none.sum(1), none, {}, torch.zeros_like(x))

    def is_direct(self, problem: Problem) -> bool:
        """For the common loop, the whole search is one step."""
        return True

    def step(self, problem: Problem, state: LatentState) -> LatentState:
        """The whole search."""
        found = self.search(problem).state
        assert isinstance(found, LatentState)
        return found

    def budget(self, problem: Problem) -> int:
        """Those of the prior."""
        return _latent_prior(problem).steps

    def search(
        self,
        problem: Problem,
        *,
        init: Tensor | None = None,
        restarts: int | None = None,
        rng: torch.Generator | None = None,
        max_steps: int | None = None,
        tol: float | None = None,
        truth: Tensor | None = None,
        callback: Callback | None = None,
        progress: Callable[[int, int], object] | None = None,
        notes: list[str] | None = None,
    ) -> Outcome:
        """Run the pipeline on every image of a problem.

        Args:
            problem: Data, operator, fidelity, and a ``priors.Latent``.
            init: Start: latents (B, d) or (B, R, d), which take the first places among the restarts, or images
                (B, C, H, W) for the encoder.
            restarts: Searches for each image; None takes the prior's number.
            rng: Source of the table of random latents; None is one seeded with 0.
            max_steps: Steps over all spaces; None takes the prior's number.
            tol: Share of its data scale an objective has to fall by within 25 steps to go on; 0 runs all steps.
            truth: True images, for PSNR.
            callback: ``callback(step, x)`` with the best images so far; the images are then searched in one group.
            progress: Called at every check with (step, max_steps).
            notes: Gets a sentence for each thing chosen.
        """
        began = time.perf_counter()
        prior = _latent_prior(problem)
        notes = [] if notes is None else notes
        count = prior.restarts if restarts is None else check_count("solve", "restarts", restarts)
        limit = max_steps or self.budget(problem)
        tolerance = self.default_tol if tol is None else tol
        chunk = prior.chunk or (64 if problem.y.device.type == "cpu" else 512)
        together = callback is not None or depends_on_place(problem.operator)
        each = problem.batch if together else max(1, chunk // count)
        watch = Watch(problem.batch, truth, callback, progress, limit)
        with prior.frozen(), torch.no_grad():
            spaces = spaces_of(prior, problem.operator)
            path, tuning = ", then ".join(s.name for s in spaces), adaptation_steps(prior, problem)
            tuned = f"up to {tuning} steps of adaptation" if tuning else "no adaptation"
            share = float(denoised_shares(prior, problem).amax())
            mixed = f", averaged with a denoiser's answer of share {share:g}" if share else ""
            note(notes, f"search: {path}, {count} restart(s), {tuned}{mixed}.")
            init = _checked_init(init, prior, problem)
            z = prior.sample(max(prior.candidates, count), rng, like=problem.y)
            table = Table.of(spaces[0], z, chunk)
            results = []
            for images in torch.split(torch.arange(problem.batch, device=problem.y.device), each):
                group = Group(_cut(problem, images), prior, images, chunk)
                given = None if init is None else init[images]
                results.append(
                    _search_group(group, spaces, table, given, count, limit, tolerance, watch, notes)
                )
        states = [r.state for r in results]
        state = LatentState(
            x=torch.cat([s.x for s in states]),
            z=torch.cat([s.z for s in states]),
            lam=torch.cat([s.lam for s in states]),
            losses=torch.cat([s.losses for s in states]),
            stages={n: torch.cat([s.stages[n] for s in states]) for n in states[0].stages},
            spread=torch.cat([s.spread for s in states]),
        )
        failed = torch.cat([r.failed for r in results])
        steps = torch.cat([r.steps for r in results])
        converged = torch.cat([r.converged for r in results])
        if bool(failed.any()):
            status = Status.DIVERGED
        elif watch.stopped:
            status = Status.STOPPED
        elif tolerance == 0 or bool(converged.all()):
            status, converged = Status.CONVERGED, torch.ones_like(converged)
        else:
            status = Status.MAX_STEPS
        return Outcome(state, state.x, status, steps, converged, watch.history(), time.perf_counter() - began)


@dataclasses.dataclass(frozen=True, eq=False)
class _Result:
    """Outcome for the images of one group."""

    state: LatentState
    steps: Tensor
    converged: Tensor
    failed: Tensor


def _latent_prior(problem: Problem) -> Latent:
    prior = problem.prior
    assert isinstance(prior, Latent)
    return prior


def _cut(problem: Problem, images: Tensor) -> Problem:
    """The problem of some of the images alone."""
    whole = len(images) == problem.batch
    return dataclasses.replace(
        problem,
        y=problem.y.detach()[images],
        operator=problem.operator if whole else select(problem.operator, images, problem.batch),
        fidelity=select(problem.fidelity, images, problem.batch, problem.y.ndim),
        sigma=problem.sigma.detach()[images],
        prior=_latent_prior(problem).with_lam(problem.prior.lam[images])
        if isinstance(problem.prior.lam, torch.Tensor) and problem.prior.lam.ndim and not whole
        else problem.prior,
    )


def _checked_init(init: Tensor | None, prior: Latent, problem: Problem) -> Tensor | None:
    """Latents as (B, R, d), or images as they are."""
    if init is None:
        return None
    init = check_tensor("solve", "init", init).detach()
    check_finite("solve", "init", init)
    batch, d = problem.batch, prior.latent_size
    shape = tuple(init.shape)
    if shape == (batch, d):
        return init[:, None]
    if len(shape) == 3 and shape[0] == batch and shape[2] == d:
        return init
    if shape == (batch, *problem.input_shape) and prior.encoder is not None:
        return init
    images = f", or images {(batch, *problem.input_shape)}" if prior.encoder is not None else ""
    raise ShapeError(
        "solve",
        expected=f"init as latents {(batch, d)} or ({batch}, R, {d}){images}",
        found=str(shape),
        remedy="" if images else "Images can start a search only where the prior has an encoder.",
    )


def _search_group(
    group: Group,
    spaces: list[Space],
    table: Table,
    init: Tensor | None,
    restarts: int,
    limit: int,
    tol: float,
    watch: Watch,
    notes: list[str],
) -> _Result:
    prior, size = group.prior, group.size
    items = starts(group, spaces[0], table, init, restarts, notes)
    losses = items.data.view(restarts, size).clone()
    seen = items.x.view(restarts, size, *items.x.shape[1:]).clone()
    failed = torch.zeros(restarts, size, dtype=torch.bool, device=items.x.device)
    steps = torch.zeros(restarts, size, dtype=torch.long, device=items.x.device)
    rule = _RULES[prior.optimiser](prior.rate)
    done = 0
    for number, space in enumerate(spaces):
        last = number == len(spaces) - 1
        budget = limit - done if last else limit // len(spaces)
        if number:
            before = spaces[number - 1]
            items.codes = space.enter(before.native(items.codes), before.name)
        survivors = -(-restarts // 4) if prior.prune else restarts
        items = descend(group, space, items, rule, budget, done, tol, 0 if number else survivors, watch)
        place = torch.arange(len(items.restart), device=items.x.device) % size
        losses[items.restart, place] = items.data
        seen[items.restart, place] = items.x
        steps[items.restart, place] += items.steps
        failed[items.restart, place] |= items.failed
        done += budget
        if not last:
            items = items.take(items.best(size, survivors).flatten())
    best = items.take(items.best(size, 1)[0])
    final, place = spaces[-1], torch.arange(size, device=items.x.device)
    part = group.whole
    if prior.is_quick(best.x.device):
        x = prior.to_image(final.raw(best.codes, final.call)).to(best.x.dtype)
        best = dataclasses.replace(best, x=torch.where(torch.isfinite(x), x, best.x))
    state = finish(group, final, best, seen, losses, watch, limit)
    return _Result(
        dataclasses.replace(state, z=final.native(best.codes), lam=group.lam(part, best.data)),
        steps[best.restart, place],
        best.converged & ~best.failed,
        failed.all(0),
    )
