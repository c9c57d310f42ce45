"""Latent search: the image is G(z), and z is what the solver moves."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import ClassVar

import torch
from torch.func import functional_call

from invrestore._checks import check_count, check_finite, check_tensor
from invrestore._types import Tensor
from invrestore.errors import RangeError, ShapeError
from invrestore.fidelity import L1, L2, Huber, Interval, Weighted
from invrestore.metrics import psnr
from invrestore.operators import JPEG, Grayscale, Identity, Mask, Quantize, Value
from invrestore.operators._select import depends_on_place, select
from invrestore.priors import Capability, Latent
from invrestore.solvers._base import Solver, State
from invrestore.solvers._blend import (
    back_project,
    has_exact_step,
    importance_weights,
    poisson_blend,
    transplant_value,
)
from invrestore.solvers._descent import LBFGS, Adam, Nesterov, StepRule
from invrestore.solvers._latent_objective import EIGHT_BITS, Evaluation, Group, Part
from invrestore.solvers._latent_spaces import Codes, Methods, Space, spaces_of
from invrestore.solvers._loop import Callback, Outcome
from invrestore.solvers._problem import Problem
from invrestore.solvers._solution import Status

__all__ = ["LatentSearch", "LatentState"]

CHECK_EVERY = 25
"""Steps between two looks of the host at the device."""

_ADAPTATION = 100
"""Fine-tuning steps where the prior does not say."""

_GOOD = 1.5
"""Restarts whose data loss is within this factor of the best one, or of the noise, count for the spread."""

_RULES: dict[str, Callable[[float | None], StepRule]] = {
    "adam": lambda rate: Adam() if rate is None else Adam(rate),
    "nesterov": lambda rate: Nesterov() if rate is None else Nesterov(rate),
    "lbfgs": lambda rate: LBFGS() if rate is None else LBFGS(rate),
}


@dataclasses.dataclass(frozen=True, eq=False)
class LatentState(State):
    """What a latent search ends with.

    Attributes:
        z: Latents of the best restart in the last of the spaces z, w and w+: (B, d), (B, dw) or (B, L, dw).
        lam: Weight of the bracket at the end, (B,).
        losses: Data loss of every restart at its best, (B, R).
        stages: The image after each part of the pipeline, name to (B, C, H, W): "raw" is G(z); "adapted",
            "consistent" and "blended" are there where that part ran.
        spread: Standard deviation, (B, C, H, W), over the restarts whose data loss is within 1.5 times that of the
            best, or of noise of the level known.
    """

    z: Tensor
    lam: Tensor
    losses: Tensor
    stages: dict[str, Tensor]
    spread: Tensor


@dataclasses.dataclass(eq=False)
class _Items:
    """Every item of a stage at its best, restart-major: item n is restart n // b of image n % b."""

    codes: Codes
    restart: Tensor
    value: Tensor
    data: Tensor
    x: Tensor
    failed: Tensor
    steps: Tensor
    converged: Tensor

    def take(self, index: Tensor) -> _Items:
        """Some of the items."""
        return _Items(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))


class _Watch:
    """What a caller sees of a search: history rows, callback and progress."""

    def __init__(
        self,
        batch: int,
        truth: Tensor | None,
        callback: Callback | None,
        progress: Callable[[int, int], object] | None,
        limit: int,
    ) -> None:
        self._batch, self._truth, self._callback = batch, truth, callback
        self._progress, self._limit = progress, limit
        self._rows: dict[int, list[tuple[Tensor, dict[str, Tensor]]]] = {}
        self.stopped = False

    def record(self, step: int, group: Group, x: Tensor) -> None:
        """A row of the history for the images of a group."""
        row = {"misfit": group.misfit(group.whole, x)}
        if self._truth is not None:
            row["psnr"] = psnr(x, self._truth[group.images])
        self._rows.setdefault(step, []).append((group.images, row))
        if self._progress is not None:
            self._progress(step, self._limit)

    @property
    def wants_images(self) -> bool:
        """Whether there is a callback to show images to."""
        return self._callback is not None

    def show(self, step: int, x: Tensor) -> None:
        """Call the callback; a true answer stops the search."""
        if self._callback is not None and not self.stopped:
            self.stopped = bool(self._callback(step, x))

    def history(self) -> dict[str, Tensor]:
        """Rows over all images; one that was done before keeps its last number."""
        found: dict[str, list[Tensor]] = {}
        for step, entries in sorted(self._rows.items()):
            for name in entries[0][1]:
                last = found.setdefault(name, [])
                like = entries[0][1][name]
                row = last[-1].clone() if last else like.new_full((self._batch,), math.nan)
                for images, values in entries:
                    row[images] = values[name]
                last.append(row)
            found.setdefault("step", []).append(torch.full_like(row, step))
        return {name: torch.stack(rows) for name, rows in found.items()}


@dataclasses.dataclass(frozen=True)
class LatentSearch(Solver[LatentState]):
    """Problem: min_z f(W A(G(z)); W y) + lam [c (log(1 - D(G(z))) - log D(G(z))) - log p(z)], for each image.

    The settings are those of the prior, ``priors.Latent``. In order:

    1. Starts: latents of the encoder, also of the image with its measurement put into the last reconstruction, and a
       table of random latents; the ``restarts`` of least data loss are kept. All images share the table.
    2. Descent in z, or in w and then w+, or on to a layer: all restarts of all images side by side. A restart stops
       when its objective fell by less than ``tol`` times the scale of its data within 25 steps, or when it has fallen
       behind. Its best iterate counts.
    3. The best restart, by objective. The spread of the good ones is kept as a map of what the data leave open.
    4. Adaptation: a copy of the generator's weights and the latent are tuned on for each image by itself, until the
       residual is as small as the noise (the discrepancy principle) or the steps are used up.
    5. Data consistency and blending.

    The answer is a constant for autograd. The discriminator is not asked during adaptation.

    Reference:
        As in ``priors.Latent``.
    """

    name: ClassVar[str] = "latent"
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.LATENT})
    default_steps: ClassVar[int] = 300
    default_tol: ClassVar[float] = 1e-3

    def check(self, problem: Problem) -> None:
        """Raise unless the generator makes images of the right shape, with gradients, and the settings fit the data.

        Raises:
            CapabilityError: The weight cannot be found for this fidelity, or the blending does not fit the operator, or
                the generator cuts the gradient.
            ShapeError: The generator makes images of another shape, or a network returns something else than expected.
            RangeError: The generator's values are far outside ``output_range``, or not finite.
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
        if prior.blend == "value" and not isinstance(problem.operator, Value | Grayscale):
            raise self.refuse("Grayscale or Value for blend='value'", problem.operator.name)
        with prior.frozen(), torch.enable_grad():
            self._probe(prior, problem)

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
            axes = 3 if _encoder_space(prior) == "w+" else 2
            fits = isinstance(code, torch.Tensor) and code.shape[:1] == (2,)
            if not fits or (axes == 3 and code.ndim != 3):  # type: ignore[attr-defined]
                raise ShapeError(
                    where,
                    expected="an encoder from images to one latent for each",
                    found=str(tuple(code.shape)) if isinstance(code, torch.Tensor) else type(code).__name__,
                )
            if _encoder_space(prior) == "z" and code[0].numel() != prior.latent_size:  # type: ignore[index]
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
            max_steps: Steps over all spaces.
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
        limit = max_steps or self.default_steps
        tolerance = self.default_tol if tol is None else tol
        chunk = prior.chunk or (64 if problem.y.device.type == "cpu" else 512)
        together = callback is not None or depends_on_place(problem.operator)
        each = problem.batch if together else max(1, chunk // count)
        watch = _Watch(problem.batch, truth, callback, progress, limit)
        with prior.frozen(), torch.no_grad():
            spaces = spaces_of(prior)
            path, tuning = ", then ".join(s.name for s in spaces), _adaptation_steps(prior, problem)
            _note(notes, f"search: {path}, {count} restart(s), up to {tuning} steps of adaptation.")
            init = _checked_init(init, prior, problem)
            z = prior.sample(max(prior.candidates, count), rng, like=problem.y)
            table = _Table.of(spaces[0], z, chunk)
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


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """Random codes with their images, shared by all images to restore."""

    codes: Codes
    x: Tensor

    @classmethod
    def of(cls, space: Space, z: Tensor, chunk: int) -> _Table:
        codes = space.enter(z, "z")
        parts = [codes[i : i + chunk] for i in range(0, len(z), chunk)]
        return cls(codes, torch.cat([_imaged(space, part)[1] for part in parts]))


def _latent_prior(problem: Problem) -> Latent:
    prior = problem.prior
    assert isinstance(prior, Latent)
    return prior


def _encoder_space(prior: Latent) -> str:
    return str(getattr(prior.encoder, "space", "z"))


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


def _start_image(problem: Problem) -> Tensor | None:
    """A picture for the encoder made from the measurement, or None."""
    y, shape = problem.y, problem.input_shape
    if tuple(y.shape[1:]) == (1, *shape[1:]):
        return y.expand(-1, *shape)
    if problem.linear is not None:
        return problem.linear.initial(y, shape)
    return y if tuple(y.shape[1:]) == shape else None


def _search_group(
    group: Group,
    spaces: list[Space],
    table: _Table,
    init: Tensor | None,
    restarts: int,
    limit: int,
    tol: float,
    watch: _Watch,
    notes: list[str],
) -> _Result:
    prior, size = group.prior, group.size
    items = _starts(group, spaces[0], table, init, restarts, notes)
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
        items = _descend(group, space, items, rule, budget, done, tol, 0 if number else survivors, watch)
        place = torch.arange(len(items.restart), device=items.x.device) % size
        losses[items.restart, place] = items.data
        seen[items.restart, place] = items.x
        steps[items.restart, place] += items.steps
        failed[items.restart, place] |= items.failed
        done += budget
        if not last:
            items = items.take(_best(items, size, survivors).flatten())
    best = items.take(_best(items, size, 1)[0])
    final, place = spaces[-1], torch.arange(size, device=items.x.device)
    part = group.whole
    state = _finish_images(group, final, best, seen, losses, watch, limit)
    return _Result(
        dataclasses.replace(state, z=final.native(best.codes), lam=group.lam(part, best.data)),
        steps[best.restart, place],
        best.converged & ~best.failed,
        failed.all(0),
    )


def _best(items: _Items, size: int, keep: int) -> Tensor:
    """Places (keep, b) of the best items of each image."""
    value = torch.where(items.failed, math.inf, items.value).view(-1, size)
    # A stable order: of equal values the earlier restart comes first.
    order = value.argsort(dim=0, stable=True)[:keep]
    return order * size + torch.arange(size, device=order.device)


def _starts(
    group: Group, space: Space, table: _Table, init: Tensor | None, restarts: int, notes: list[str]
) -> _Items:
    """The starts of each image: given ones, then those of least data loss among encoder and table."""
    size, part = group.size, group.whole
    pool: list[tuple[Codes, Tensor]] = []
    given = 0
    if init is not None and init.ndim == 3:
        given = min(init.shape[1], restarts)
        z = init[:, :given].to(table.codes.code)
        pool += [_imaged(space, space.enter(z[:, r], "z")) for r in range(given)]
    pool += _encoded(group, space, init if init is not None and init.ndim == 4 else None, notes)
    for j in range(len(table.x)):
        code, x = table.codes.code[j], table.x[j]
        pool.append((Codes(code.expand(size, *code.shape)), x.expand(size, *x.shape)))
    data = torch.stack([group.data(part, x.to(group.problem.y.dtype)) for _, x in pool])
    rank = torch.where(torch.isfinite(data), data, math.inf)
    rank[:given] = -1.0
    chosen = rank.argsort(dim=0, stable=True)[:restarts]
    place = torch.arange(size, device=chosen.device)
    codes = torch.stack([c.code for c, _ in pool])[chosen, place].flatten(0, 1)
    x = torch.stack([x for _, x in pool])[chosen, place].flatten(0, 1).to(group.problem.y.dtype)
    total = len(codes)
    return _Items(
        Codes(codes),
        torch.arange(restarts, device=x.device).repeat_interleave(size),
        x.new_full((total,), math.inf),
        data[chosen, place].flatten(),
        x,
        torch.zeros(total, dtype=torch.bool, device=x.device),
        torch.zeros(total, dtype=torch.long, device=x.device),
        torch.zeros(total, dtype=torch.bool, device=x.device),
    )


def _imaged(space: Space, codes: Codes) -> tuple[Codes, Tensor]:
    return codes, space.prior.to_image(space.raw(codes, space.call))


def _encoded(
    group: Group, space: Space, image: Tensor | None, notes: list[str]
) -> list[tuple[Codes, Tensor]]:
    """Codes of the encoder: of the start image, then of the last reconstruction with the measurement put in."""
    prior, problem = group.prior, group.problem
    if prior.encoder is None:
        return []
    kind = _encoder_space(prior)
    if space.name == "z" and kind != "z":
        _note(notes, f"start: random latents only, because the encoder gives {kind} and the search is in z.")
        return []
    x = _start_image(problem) if image is None else image
    if x is None:
        _note(notes, "start: random latents only, because the measurement is no picture to encode.")
        return []
    like = next((t for t in prior.tensors() if t.is_floating_point()), x)
    projects = has_exact_step(problem.operator, problem.fidelity) and not isinstance(
        problem.operator, Identity
    )
    found = []
    for _ in range(prior.encoder_rounds if projects else 1):
        native = prior.encode(x.to(like.dtype))
        codes = space.enter(native.flatten(1) if kind == "z" else native, kind)
        found.append(_imaged(space, codes))
        if projects:
            x = back_project(found[-1][1].to(problem.y.dtype), problem.y, problem.operator, problem.fidelity)
    return found


def _note(notes: list[str], sentence: str) -> None:
    if sentence not in notes:
        notes.append(sentence)


def _descend(
    group: Group,
    space: Space,
    start: _Items,
    rule: StepRule,
    budget: int,
    done: int,
    tol: float,
    survivors: int,
    watch: _Watch,
) -> _Items:
    """Search one space from the codes of ``start``, every item on its own.

    Args:
        group: Images and data.
        space: Where to move.
        start: Items with their codes in this space, all restarts of an image at the same stage.
        rule: Step rule.
        budget: Steps.
        done: Steps taken in earlier spaces.
        tol: As in ``search``.
        survivors: Restarts of each image to go on with after a quarter of the steps; 0 keeps all.
        watch: Gets history rows and images.
    """
    total, size = len(start.restart), group.size
    place = torch.arange(total, device=start.x.device)
    best = dataclasses.replace(
        start,
        value=torch.full_like(start.value, math.inf),
        data=start.data.clone(),
        x=start.x.clone(),
        codes=Codes(start.codes.code.clone(), start.codes.fixed),
        failed=start.failed.clone(),
        steps=torch.zeros_like(start.steps),
        converged=torch.zeros_like(start.converged),
    )
    alive, codes = place, start.codes
    running = ~start.failed
    memory = rule.init(codes.code)
    parts = group.parts(place % size)
    scale = torch.empty_like(start.value)
    reference = torch.full_like(start.value, math.inf)
    prune = survivors if survivors * size < total else 0
    last_check = 0
    for step in range(1, budget + 1):
        value, grad = _gradient(group, space, codes, parts)
        finite = torch.isfinite(value.total) & torch.isfinite(grad.flatten(1)).all(1)
        better = running & finite & (value.total < best.value[alive])
        _keep(best, alive, better, value, codes)
        best.failed[alive] |= running & ~finite
        running = running & finite
        moved, memory = rule.step(
            codes.code, value.total, torch.where(_rows(finite, grad), grad, 0.0), memory, step, step / budget
        )
        moved = space.confine(Codes(moved, codes.fixed)).code
        codes = Codes(torch.where(_rows(running, moved), moved, codes.code), codes.fixed)
        if watch.wants_images:
            watch.show(done + step, best.x[_best(best, size, 1)[0]])
        if step % CHECK_EVERY and step < budget and not watch.stopped:
            continue

        watch.record(done + step, group, best.x[_best(best, size, 1)[0]])
        best.steps[alive] += torch.where(running, step - last_check, 0)
        for cut, part in parts:
            scale[alive[cut]] = group.scale(part, best.value[alive[cut]])
        # Of an infinite reference, the difference is infinite or, after a failure, NaN: neither is a small fall.
        fell = (reference - best.value)[alive]
        met = (fell <= tol * scale[alive]) if tol > 0 else torch.zeros_like(running)
        reference = best.value.clone()
        best.converged[alive] |= met & running
        running = running & ~met
        if prune and step >= budget / 4:
            stays = torch.zeros_like(best.failed)
            stays[_best(best, size, prune).flatten()] = True
            running, prune = running & stays[alive], 0
        last_check = step
        left = running.nonzero()[:, 0]
        if len(left) == 0 or watch.stopped:
            break
        if len(left) < len(alive) and not group.lockstep:
            alive, codes, running = alive[left], codes[left], running[left]
            memory = {name: kept[left] for name, kept in memory.items()}
            parts = group.parts(alive % size)
    return best


def _rows(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.ndim - 1))


def _keep(best: _Items, alive: Tensor, better: Tensor, value: Evaluation, codes: Codes) -> None:
    """Write the items that are better than before into ``best``."""
    for kept, new in (
        (best.value, value.total),
        (best.data, value.data),
        (best.x, value.x),
        (best.codes.code, codes.code),
    ):
        kept[alive] = torch.where(_rows(better, new), new, kept[alive])


def _gradient(
    group: Group, space: Space, codes: Codes, parts: list[tuple[slice, Part]]
) -> tuple[Evaluation, Tensor]:
    """Objective of all items and its gradient in their codes, chunk by chunk."""
    values, grads = [], []
    for cut, part in parts:
        with torch.enable_grad():
            here = codes[cut]
            leaf = Codes(here.code.detach().requires_grad_(), here.fixed)
            value = group.evaluate(part, space.raw(leaf, space.call), space.energy(leaf))
            (grad,) = torch.autograd.grad(value.total.sum(), leaf.code)
        values.append(Evaluation(value.total.detach(), value.data.detach(), value.x.detach()))
        grads.append(grad)
    joined = Evaluation(*(torch.cat([getattr(v, n) for v in values]) for n in ("total", "data", "x")))
    return joined, torch.cat(grads)


def _adaptation_steps(prior: Latent, problem: Problem) -> int:
    """As the prior says; by default none for large holes."""
    if prior.adapt is not None:
        return prior.adapt
    if isinstance(problem.operator, Mask):
        known = (problem.operator.mask != 0).to(problem.y.dtype)
        # For a missing pixel, the weight of the inverse mask is the share of known pixels around it.
        near = importance_weights(1 - known) > 0
        missing = known.numel() - float(known.sum())
        if float(near.sum()) < 0.5 * missing:
            return 0
    return _ADAPTATION


def _adapt(group: Group, space: Space, best: _Items, steps: int) -> Tensor:
    """Images after tuning a copy of the weights on each, one image after the other, (b, C, H, W)."""
    prior = group.prior
    rate = prior.adapt_rate or (1e-4 if group.problem.exact else 3e-4)
    methods = Methods(prior.generator)
    own = {n: p for n, p in methods.named_parameters() if p.is_floating_point()}
    out = best.x.clone()
    for i in range(group.size):
        here = torch.tensor([i], device=out.device)
        part = group.whole if group.lockstep else group.part(here)
        weights = {n: p.detach().clone().requires_grad_() for n, p in own.items()}
        code = best.codes.code[i : i + 1].detach().clone().requires_grad_()
        fixed = best.codes[i : i + 1].fixed
        adam = torch.optim.Adam(
            [
                {"params": list(weights.values()), "lr": rate},
                {"params": [code], "lr": 10 * rate},
            ],
            # One pass over the weights instead of a dozen; this step costs more than the small generator itself.
            fused=True,
        )

        def call(name: str, *arguments: object, weights: dict[str, Tensor] = weights) -> Tensor:
            found: Tensor = functional_call(methods, weights, (name, *arguments))
            return found

        goal = group.problem.sigma[i].clamp_min(EIGHT_BITS)
        over = torch.zeros((), dtype=torch.bool, device=out.device)
        kept = out[i : i + 1]
        for step in range(1, steps + 1):
            with torch.enable_grad():
                codes = Codes(code, fixed)
                raw, energy = space.raw(codes, call), space.energy(codes)
                if group.lockstep:
                    # The operator has to see the whole batch; only this image moves.
                    low = prior.from_image(out.to(raw.dtype))
                    raw = torch.cat([low[:i], raw, low[i + 1 :]])
                    energy = torch.cat([energy.new_zeros(i), energy, energy.new_zeros(group.size - i - 1)])
                value = group.evaluate(part, raw, energy, judge=False)
                spot = i if group.lockstep else 0
                total = value.total[spot]
                grads = torch.autograd.grad(total, [*weights.values(), code], allow_unused=True)
            x = value.x[spot : spot + 1].detach()
            over = over | ~torch.isfinite(total)
            kept = torch.where(over, kept, x)
            over = over | (group.misfit(part, value.x.detach())[spot] <= goal)
            if step % 10 == 0 and bool(over):
                break
            for tensor, grad in zip([*weights.values(), code], grads, strict=True):
                # The fused step reads memory in order, so gradients need the layout of their weights.
                same = grad is None or grad.stride() == tensor.stride()
                tensor.grad = grad if same else torch.empty_like(tensor).copy_(grad)
            adam.step()
        out[i : i + 1] = kept
    return out


def _finish_images(
    group: Group, space: Space, best: _Items, seen: Tensor, losses: Tensor, watch: _Watch, limit: int
) -> LatentState:
    """Adaptation, data consistency and blending, with what each of them gave."""
    prior, problem = group.prior, group.problem
    x = best.x
    stages = {"raw": x}
    adapt = _adaptation_steps(prior, problem)
    if adapt and next(Methods(prior.generator).parameters(), None) is not None:
        x = stages["adapted"] = _adapt(group, space, best, adapt)
    rounded = isinstance(problem.operator, Quantize | JPEG) or isinstance(problem.fidelity, Interval)
    exact = problem.exact or rounded
    projects = prior.consistency and exact and has_exact_step(problem.operator, problem.fidelity)
    generated = x
    if projects:
        x = stages["consistent"] = back_project(x, problem.y, problem.operator, problem.fidelity)
    operator = problem.operator
    if isinstance(operator, Mask) and (prior.blend == "poisson" or (prior.blend == "auto" and projects)):
        known = operator.project(generated, problem.y)
        x = stages["blended"] = poisson_blend(generated, known, operator.mask)
    elif isinstance(operator, Value | Grayscale) and prior.blend == "value":
        x = stages["blended"] = transplant_value(generated, problem.y)
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
