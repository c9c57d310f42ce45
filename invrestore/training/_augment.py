"""Differentiable augmentation of what a discriminator sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Augment", "Augmentation"]

Kind = Literal["color", "translation", "cutout"]


@dataclass(frozen=True)
class Augmentation:
    """One random alteration for each image of a batch; None leaves that part out.

    Calling it alters images (N, C, H, W) differentiably. The same object applied to two batches alters the
    images of equal number equally.

    Attributes:
        brightness: Number added to all values (N, 1, 1, 1).
        saturation: Factor of the distance from the channel mean (N, 1, 1, 1).
        contrast: Factor of the distance from the image mean (N, 1, 1, 1).
        shift: Whole pixels that the image moves down and right (N, 2); zeros come in.
        hole: Centre of a square of half the side that is set to zero (N, 2).
    """

    brightness: Tensor | None = None
    saturation: Tensor | None = None
    contrast: Tensor | None = None
    shift: Tensor | None = None
    hole: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Alter images (N, C, H, W)."""
        if self.brightness is not None and self.saturation is not None and self.contrast is not None:
            x = x + self.brightness
            gray = x.mean(dim=1, keepdim=True)
            x = gray + self.saturation * (x - gray)
            level = x.mean(dim=(1, 2, 3), keepdim=True)
            x = level + self.contrast * (x - level)
        if self.shift is not None:
            x = _shifted(x, self.shift)
        if self.hole is not None:
            x = x * _outside(self.hole, x)
        return x

    def __getitem__(self, part: slice) -> Augmentation:
        """Return the alterations of some images of the batch."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return Augmentation(
            **{name: None if value is None else value[part] for name, value in chosen.items()}
        )


@dataclass(frozen=True)
class Augment:
    """Draws the same kinds of random alteration for real and generated images (DiffAugment).

    A discriminator that sees a few thousand images learns them by heart; one that sees each altered does so
    far later. The generator's images pass the same alterations, differentiably, so what it learns to make is
    unaltered.

    Args:
        kinds: Any of "color" (brightness within +-0.25, saturation factor 0 to 2, contrast factor 0.5 to
            1.5), "translation" (up to an eighth of the side) and "cutout" (a square of half the side).

    Reference:
        Zhao et al. (2020), Differentiable Augmentation for Data-Efficient GAN Training. Brightness is halved
        because images here span [0, 1], not [-1, 1].
    """

    kinds: Sequence[Kind] = ("color", "translation", "cutout")

    def draw(self, like: Tensor, rng: torch.Generator) -> Augmentation:
        """Draw one alteration for each image of a batch.

        Args:
            like: Images (N, C, H, W) whose shape and device count.
            rng: Random source on the same device.
        """
        count, _, height, width = like.shape

        def uniform(low: float, high: float) -> Tensor:
            draw = torch.rand((count, 1, 1, 1), device=like.device, generator=rng)
            return low + (high - low) * draw

        def places(low: tuple[int, int], high: tuple[int, int]) -> Tensor:
            ranges = zip(low, high, strict=True)
            draws = [torch.randint(a, b + 1, (count,), device=like.device, generator=rng) for a, b in ranges]
            return torch.stack(draws, dim=1)

        brightness = saturation = contrast = shift = hole = None
        if "color" in self.kinds:
            brightness, saturation, contrast = uniform(-0.25, 0.25), uniform(0, 2), uniform(0.5, 1.5)
        if "translation" in self.kinds:
            reach = (height // 8, width // 8)
            shift = places((-reach[0], -reach[1]), reach)
        if "cutout" in self.kinds:
            hole = places((0, 0), (height - 1, width - 1))
        return Augmentation(brightness, saturation, contrast, shift, hole)


def _shifted(x: Tensor, shift: Tensor) -> Tensor:
    """Move each image by whole pixels; zeros come in at the edges."""
    count, _, height, width = x.shape
    rows = torch.arange(height, device=x.device) - shift[:, :1]
    columns = torch.arange(width, device=x.device) - shift[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[
        :, None, None, :
    ]
    images = torch.arange(count, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[
        images, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    return moved.permute(0, 3, 1, 2) * inside.to(x.dtype)


def _outside(centre: Tensor, x: Tensor) -> Tensor:
    """Masks (N, 1, H, W) that are 0 in a square of half the side around a centre, 1 elsewhere."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device) - (centre[:, :1] - height // 4)
    columns = torch.arange(width, device=x.device) - (centre[:, 1:] - width // 4)
    within = ((rows >= 0) & (rows < height // 2))[:, None, :, None] & (
        (columns >= 0) & (columns < width // 2)
    )[:, None, None, :]
    return (~within).to(x.dtype)
