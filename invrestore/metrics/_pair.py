"""The checks every metric makes on its two images."""

from __future__ import annotations

import math

import torch

from invrestore._checks import check_device, check_image
from invrestore._types import Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError


def check_pair(where: str, x: object, x_true: object) -> tuple[Tensor, Tensor]:
    """Return both images in one real type of at least 32 bits."""
    images = check_image(where, x), check_image(where, x_true, "x_true")
    for name, image in zip(("x", "x_true"), images, strict=True):
        if image.is_complex():
            raise DTypeError(
                where, expected=f"real {name}", found=str(image.dtype), remedy="Score its modulus: x.abs()."
            )
    if images[0].shape != images[1].shape:
        # No broadcasting: a batch scored against one picture by accident looks like a plausible number.
        raise ShapeError(
            where,
            expected=f"x_true of the shape of x, {tuple(images[0].shape)}",
            found=str(tuple(images[1].shape)),
            remedy="x_true.expand_as(x) scores several results against one picture.",
        )
    check_device(where, x=images[0], x_true=images[1])
    dtype = torch.promote_types(torch.promote_types(images[0].dtype, images[1].dtype), torch.float32)
    return images[0].to(dtype), images[1].to(dtype)


def check_data_range(where: str, data_range: object) -> float:
    """Return ``data_range`` if it is a finite number > 0."""
    if isinstance(data_range, bool) or not isinstance(data_range, int | float):
        raise DTypeError(
            where,
            expected="data_range as a number",
            found=type(data_range).__name__,
            remedy="1.0 for images in [0, 1], 255 for images in [0, 255].",
        )
    if not (math.isfinite(data_range) and data_range > 0):
        raise RangeError(
            where,
            expected="data_range > 0 and finite",
            found=str(data_range),
            remedy="1.0 for images in [0, 1], 255 for images in [0, 255].",
        )
    return float(data_range)
