"""Whole images of one size on a device."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invrestore.data._pack import read_pack
from invrestore.errors import ShapeError, TrainingError

__all__ = ["ImagePool", "read_squares"]

_MODES = {1: "L", 3: "RGB"}


def read_squares(path: str | Path, size: int, channels: int = 3) -> Tensor:
    """Decode a packed file to square images of one size.

    The centre of each image, as large a square as fits, is reduced to `size` (Lanczos). Images with a side
    shorter than that are left out, since enlarging them would teach a network blur.

    Args:
        path: File written by :func:`pack`.
        size: Side of the squares.
        channels: 3 for colour, 1 for gray.

    Returns:
        uint8 tensor (N, channels, size, size).

    Raises:
        TrainingError: No image is large enough.
        ImageFileError: The pack is missing or damaged.
    """
    squares = []
    for encoded in read_pack(path):
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = image.convert(_MODES[channels])
        side = min(pixels.size)
        if side < size:
            continue
        if pixels.size != (size, size):
            left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
            pixels = pixels.resize(
                (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
            )
        squares.append(np.asarray(pixels).reshape(size, size, channels))
    if not squares:
        raise TrainingError(
            "data.read_squares",
            expected=f"an image of at least {size}x{size} pixels",
            found="smaller ones",
            remedy="Train a smaller size, or on larger images.",
        )
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


class ImagePool:
    """Images of one size on a device as one uint8 tensor, and random batches of them.

    Args:
        images: uint8 tensor (N, C, H, W).
        mirror: Whether drawn images are mirrored left to right with probability 1/2.

    Raises:
        ShapeError: images has another shape, or is empty.
    """

    def __init__(self, images: Tensor, mirror: bool = True) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8 or not len(images):
            found = f"{images.dtype} {tuple(images.shape)}"
            raise ShapeError("data.ImagePool", expected="uint8 images (N, C, H, W), N >= 1", found=found)
        self.images = images
        self.mirror = mirror

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw images with replacement.

        Args:
            count: Number of images B.
            rng: Random source on the pool's device.

        Returns:
            Floating-point tensor (B, C, H, W) in [0, 1].
        """
        device = self.images.device
        chosen = torch.randint(len(self.images), (count,), device=device, generator=rng)
        x = self.images[chosen].float() / 255
        if self.mirror:
            turned = torch.rand((count, 1, 1, 1), device=device, generator=rng) < 0.5
            x = torch.where(turned, x.flip(3), x)
        return x
