"""Where a latent search starts: given latents, the encoder's, and a table of random ones."""

from __future__ import annotations

import dataclasses
import math

import torch

from invrestore._types import Tensor
from invrestore.operators import Identity
from invrestore.priors import Latent
from invrestore.solvers._blend import back_project, has_exact_step
from invrestore.solvers._latent_objective import Group
from invrestore.solvers._latent_spaces import Codes, Space, W, sees_gray
from invrestore.solvers._latent_state import Items, note
from invrestore.solvers._problem import Problem

__all__ = ["Table", "encoder_space", "starts"]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Random codes with their images, shared by all images to restore."""

    codes: Codes
    x: Tensor

    @classmethod
    def of(cls, space: Space, z: Tensor, chunk: int) -> Table:
        """The codes and images of latents (N, d), ``chunk`` at a time."""
        codes = space.enter(z, "z")
        parts = [codes[i : i + chunk] for i in range(0, len(z), chunk)]
        return cls(codes, torch.cat([_imaged(space, part)[1] for part in parts]))


def encoder_space(prior: Latent) -> str:
    """What the encoder of a prior gives: "z", "w" or "w+"."""
    return str(getattr(prior.encoder, "space", "z"))


def starts(
    group: Group, space: Space, table: Table, init: Tensor | None, restarts: int, notes: list[str]
) -> Items:
    """The starts of each image: given ones or the mean style, then those of least data loss of encoder and table."""
    size, part = group.size, group.whole
    pool: list[tuple[Codes, Tensor]] = []
    first = 0
    if init is not None and init.ndim == 3:
        first = min(init.shape[1], restarts)
        z = init[:, :first].to(table.codes.code)
        pool += [_imaged(space, space.enter(z[:, r], "z")) for r in range(first)]
    elif init is None and isinstance(space, W) and _begins_at_mean(space.prior, group.problem):
        first = 1
        pool.append(_imaged(space, space.mean_codes(size)))
    pool += _encoded(group, space, init if init is not None and init.ndim == 4 else None, notes)
    for j in range(len(table.x)):
        code, x = table.codes.code[j], table.x[j]
        pool.append((Codes(code.expand(size, *code.shape)), x.expand(size, *x.shape)))
    data = torch.stack([group.data(part, x.to(group.problem.y.dtype)) for _, x in pool])
    rank = torch.where(torch.isfinite(data), data, math.inf)
    rank[:first] = -1.0
    chosen = rank.argsort(dim=0, stable=True)[:restarts]
    place = torch.arange(size, device=chosen.device)
    codes = torch.stack([c.code for c, _ in pool])[chosen, place].flatten(0, 1)
    x = torch.stack([x for _, x in pool])[chosen, place].flatten(0, 1).to(group.problem.y.dtype)
    total = len(codes)
    return Items(
        Codes(codes),
        torch.arange(restarts, device=x.device).repeat_interleave(size),
        x.new_full((total,), math.inf),
        data[chosen, place].flatten(),
        x,
        torch.zeros(total, dtype=torch.bool, device=x.device),
        torch.zeros(total, dtype=torch.long, device=x.device),
        torch.zeros(total, dtype=torch.bool, device=x.device),
    )


def _begins_at_mean(prior: Latent, problem: Problem) -> bool:
    if prior.mean_start is not None:
        return prior.mean_start
    return prior.encoder is None or sees_gray(problem.operator)


def _imaged(space: Space, codes: Codes) -> tuple[Codes, Tensor]:
    return codes, space.prior.to_image(space.raw(codes, space.call))


def _encoded(
    group: Group, space: Space, image: Tensor | None, notes: list[str]
) -> list[tuple[Codes, Tensor]]:
    """Codes of the encoder: of the start image, then of the last reconstruction with the measurement put in."""
    prior, problem = group.prior, group.problem
    if prior.encoder is None:
        return []
    kind = encoder_space(prior)
    if space.name == "z" and kind != "z":
        note(notes, f"start: random latents only, because the encoder gives {kind} and the search is in z.")
        return []
    x = _start_image(problem) if image is None else image
    if x is None:
        note(notes, "start: random latents only, because the measurement is no picture to encode.")
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


def _start_image(problem: Problem) -> Tensor | None:
    """A picture for the encoder made from the measurement, or None."""
    y, shape = problem.y, problem.input_shape
    if tuple(y.shape[1:]) == (1, *shape[1:]):
        return y.expand(-1, *shape)
    if problem.linear is not None:
        return problem.linear.initial(y, shape)
    return y if tuple(y.shape[1:]) == shape else None
