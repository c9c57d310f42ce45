"""The descent of a latent search: every item on its own, all of them side by side."""

from __future__ import annotations

import dataclasses
import math

import torch

from invrestore._types import Tensor
from invrestore.solvers._descent import StepRule
from invrestore.solvers._latent_objective import Evaluation, Group, Part
from invrestore.solvers._latent_spaces import Codes, Space
from invrestore.solvers._latent_state import Items, Watch

__all__ = ["descend"]

CHECK_EVERY = 25
"""Steps between two looks of the host at the device."""


def descend(
    group: Group,
    space: Space,
    start: Items,
    rule: StepRule,
    budget: int,
    done: int,
    tol: float,
    survivors: int,
    watch: Watch,
) -> Items:
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
            watch.show(done + step, best.x[best.best(size, 1)[0]])
        if step % CHECK_EVERY and step < budget and not watch.stopped:
            continue

        watch.record(done + step, group, best.x[best.best(size, 1)[0]])
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
            stays[best.best(size, prune).flatten()] = True
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


def _keep(best: Items, alive: Tensor, better: Tensor, value: Evaluation, codes: Codes) -> None:
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

    def call(name: str, *arguments: object) -> Tensor:
        with space.prior.quickly(codes.code.device):
            found: Tensor = space.call(name, *arguments)
        return found

    values, grads = [], []
    for cut, part in parts:
        with torch.enable_grad():
            here = codes[cut]
            leaf = Codes(here.code.detach().requires_grad_(), here.fixed)
            value = group.evaluate(part, space.raw(leaf, call), space.energy(leaf))
            (grad,) = torch.autograd.grad(value.total.sum(), leaf.code)
        values.append(Evaluation(value.total.detach(), value.data.detach(), value.x.detach()))
        grads.append(grad)
    joined = Evaluation(*(torch.cat([getattr(v, n) for v in values]) for n in ("total", "data", "x")))
    return joined, torch.cat(grads)
