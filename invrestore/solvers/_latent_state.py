"""What a latent search keeps while it runs, shows to its caller and ends with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

from invrestore._types import Tensor
from invrestore.metrics import psnr
from invrestore.solvers._base import State
from invrestore.solvers._latent_objective import Group
from invrestore.solvers._latent_spaces import Codes
from invrestore.solvers._loop import Callback, says_stop

__all__ = ["Items", "LatentState", "Watch", "note"]


@dataclasses.dataclass(frozen=True, eq=False)
class LatentState(State):
    """What a latent search ends with.

    Attributes:
        z: Latents of the best restart in the last of the spaces z, w and w+: (B, d), (B, dw) or (B, L, dw).
        lam: Weight of the bracket at the end, (B,).
        losses: Data loss of every restart at its best, (B, R).
        stages: The image after each part of the pipeline, name to (B, C, H, W): "raw" is G(z); "adapted",
            "consistent", "blended" and "averaged" are there where that part ran.
        spread: Standard deviation, (B, C, H, W), over the restarts whose data loss is within 1.5 times that of the
            best, or of noise of the level known.
    """

    z: Tensor
    lam: Tensor
    losses: Tensor
    stages: dict[str, Tensor]
    spread: Tensor


@dataclasses.dataclass(eq=False)
class Items:
    """Every item of a stage at its best, restart-major: item n is restart n // b of image n % b.

    Attributes:
        codes: Points of the space, (N, ...).
        restart: Number of the restart, (N,).
        value: Objective, (N,).
        data: Data loss, (N,).
        x: Images, (N, C, H, W).
        failed: Whether an objective or gradient was not finite, (N,).
        steps: Steps taken, (N,).
        converged: Whether the tolerance was met, (N,).
    """

    codes: Codes
    restart: Tensor
    value: Tensor
    data: Tensor
    x: Tensor
    failed: Tensor
    steps: Tensor
    converged: Tensor

    def take(self, index: Tensor) -> Items:
        """Some of the items."""
        return Items(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))

    def best(self, size: int, keep: int) -> Tensor:
        """Places (keep, size) of the best items of each of ``size`` images."""
        value = torch.where(self.failed, math.inf, self.value).view(-1, size)
        # A stable order: of equal values the earlier restart comes first.
        order = value.argsort(dim=0, stable=True)[:keep]
        return order * size + torch.arange(size, device=order.device)


class Watch:
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
            self.stopped = says_stop(self._callback(step, x))

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


def note(notes: list[str], sentence: str) -> None:
    """Add a sentence that is not there yet: every group of images would say it again."""
    if sentence not in notes:
        notes.append(sentence)
