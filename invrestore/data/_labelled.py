"""Images with a class or a map of classes, and random crops of both."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from invrestore.data._pack import PatchPool, read_labels, read_masks, read_pack
from invrestore.errors import TrainingError

__all__ = ["LabelledImages", "LabelledPool", "read_labelled"]


@dataclass(frozen=True)
class LabelledImages:
    """The images of a pack that have labels of one kind, and those that have not.

    Attributes:
        images: Images (H, W, 3), uint8.
        labels: For each the number of its class, or the map (H, W) of the classes of its pixels.
        classes: Names of the classes; numbers for maps, which carry no names.
        others: Images without such a label.
    """

    images: list[np.ndarray]
    labels: list[int | np.ndarray]
    classes: tuple[str, ...]
    others: list[np.ndarray]


def read_labelled(
    path: str | Path, maps: bool, classes: Sequence[str] | None = None, ignore: int | None = None
) -> LabelledImages:
    """Decode a packed file and its labels.

    Args:
        path: File written by :func:`pack`.
        maps: Take the class of every pixel; otherwise the class of the image.
        classes: Names of the classes in the order of their numbers; None takes all that occur, sorted.
        ignore: Number in maps that stands for no class.

    Raises:
        TrainingError: No image has such a label, a label is none of the classes, or a map does not fit its image.
        ImageFileError: The pack is missing or damaged.
    """
    where = "data.read_labelled"
    found: Sequence[Any] = read_masks(path) if maps else read_labels(path)
    images: list[np.ndarray] = []
    labels: list[Any] = []
    others: list[np.ndarray] = []
    for encoded, label in zip(read_pack(path), found, strict=True):
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = np.asarray(image.convert("RGB"))
        if label is None:
            others.append(pixels)
            continue
        if maps and label.shape != pixels.shape[:2]:
            raise TrainingError(
                where, expected=f"a mask of {pixels.shape[:2]} pixels, as its image", found=str(label.shape)
            )
        images.append(pixels)
        labels.append(label)
    kind = "mask" if maps else "class"
    if not images:
        remedy = "See data.layout for the folders whose labels are understood."
        raise TrainingError(where, expected=f"images with a {kind}", found="none", remedy=remedy)
    if maps:
        seen = sorted({int(v) for label in labels for v in np.unique(label)} - {ignore})
        names = tuple(map(str, range(seen[-1] + 1))) if classes is None else tuple(classes)
        foreign = [str(v) for v in seen if v >= len(names)]
    else:
        names = tuple(sorted(set(labels))) if classes is None else tuple(classes)
        foreign = sorted(set(labels) - set(names))
        numbers = {name: number for number, name in enumerate(names)}
        labels = [numbers.get(label, -1) for label in labels]
    if foreign:
        raise TrainingError(
            where,
            expected=f"labels out of {len(names)} classes {', '.join(names[:8])}",
            found=", ".join(foreign[:8]),
            remedy="Name the classes of the data in the network's arguments.",
        )
    return LabelledImages(images, labels, names, others)


class LabelledPool(PatchPool):
    """A pool of images whose crops come with their class, or with the classes of their pixels.

    Every image gives the same number of crops; they are mirrored left to right at random, never turned.

    Args:
        images: uint8 images (H, W, 3).
        labels: Number of the class of each image, or a map (H, W) for each.
        device: Where pixels and labels live.

    Raises:
        TrainingError: There are no images.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[int | np.ndarray],
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(images, device, by_image=True, upright=True)
        self.maps = isinstance(labels[0], np.ndarray)
        flat = np.concatenate([np.ravel(label) for label in labels])
        self.labels = torch.from_numpy(flat.astype(np.uint8 if self.maps else np.int64)).to(device)
        self.longest = int(self.sides.min(dim=1).values.max())

    def draw(
        self, count: int, size: int, rng: torch.Generator, zoom: tuple[float, float] = (1.0, 1.0)
    ) -> tuple[Tensor, Tensor]:
        """Draw random square crops with their labels.

        Args:
            count: Number of crops B.
            size: Side in pixels.
            rng: Random source on the pool's device.
            zoom: Range of the factor by which crops are enlarged, one factor for the whole batch. Crops of the
                longest side that the images allow are the furthest that a factor below 1 reaches.

        Returns:
            Images (B, 3, size, size) in [0, 1], and class numbers (B,) or maps (B, size, size), int64.

        Raises:
            TrainingError: No image is large enough.
        """
        side = size
        if zoom != (1.0, 1.0):
            low, high = zoom
            draw = float(torch.rand((), device=self.pixels.device, generator=rng))
            side = min(max(1, round(size / (low + (high - low) * draw))), self.longest)
        chosen, index = self._places(count, side, rng)
        x = self.pixels[index].permute(0, 3, 1, 2).float() / 255
        labels = self.labels[index] if self.maps else self.labels[chosen]
        if side != size:
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)
            if self.maps:
                labels = F.interpolate(labels[:, None].float(), (size, size), mode="nearest-exact")[:, 0]
        return x, labels.long()
