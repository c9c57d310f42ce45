"""Steps by which published tables differ, as functions to call before scoring."""

from __future__ import annotations

import torch

from invrestore._checks import check_count, check_image
from invrestore._types import Tensor
from invrestore.errors import DTypeError, ShapeError

__all__ = ["crop", "quantize", "rgb_to_y"]


def rgb_to_y(x: Tensor, *, full_range: bool = False) -> Tensor:
    """Luma of BT.601: y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255 for R, G, B in [0, 1].

    Super-resolution and JPEG papers score this channel (MATLAB's ``rgb2ycbcr``). It spans [16/255, 235/255],
    and their PSNR takes ``data_range=1.0`` all the same: 20 log10(255 / 219) = 1.32 dB above the full range.

    Args:
        x: RGB images; values outside [0, 1] are mapped by the same formula.
        full_range: Use y = 0.299 R + 0.587 G + 0.114 B with range [0, 1] instead, as JPEG files do.

    Shapes:
        x: (B, 3, H, W), floating point. Returns (B, 1, H, W).

    Raises:
        ShapeError: ``x`` has not three channels.

    Example:
        >>> (255 * rgb_to_y(torch.ones(1, 3, 1, 1))).round().item()
        235.0
    """
    x = check_image("rgb_to_y", x)
    if x.shape[1] != 3:
        raise ShapeError(
            "rgb_to_y",
            expected="x of shape (B, 3, H, W)",
            found=str(tuple(x.shape)),
            remedy="Gray images are luma already." if x.shape[1] == 1 else "",
        )
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    if full_range:
        return 0.299 * r + 0.587 * g + 0.114 * b
    return (16 + 65.481 * r + 128.553 * g + 24.966 * b) / 255


def crop(x: Tensor, border: int) -> Tensor:
    """Images without ``border`` pixels on every side (a view).

    Args:
        x: Images.
        border: Pixels to leave out, >= 0. Super-resolution papers leave out the factor.

    Shapes:
        x: (B, C, H, W), floating point. Returns (B, C, H - 2 border, W - 2 border).

    Raises:
        ShapeError: Nothing would be left.
        RangeError: ``border`` is negative.

    Example:
        >>> crop(torch.zeros(1, 3, 10, 12), 4).shape
        torch.Size([1, 3, 2, 4])
    """
    x = check_image("crop", x)
    check_count("crop", "border", border, least=0)
    height, width = x.shape[-2:]
    if min(height, width) <= 2 * border:
        raise ShapeError(
            "crop", expected=f"sides longer than 2 * border = {2 * border}", found=f"{height} x {width}"
        )
    return x[..., border : height - border, border : width - border]


def quantize(x: Tensor, levels: int = 256) -> Tensor:
    """The image as a file holds it: clamped to [0, 1], rounded to multiples of 1 / (levels - 1).

    Its gradient is zero; ``operators.Quantize`` differentiates.

    Args:
        x: Images.
        levels: Number of levels, >= 2: 256 for 8 bits.

    Shapes:
        x: (B, C, H, W), float32 or float64 (bfloat16 has no 256 levels). Returns the same shape.

    Raises:
        DTypeError: ``x`` has fewer than 32 bits.
        RangeError: ``levels`` is less than 2.

    Example:
        >>> quantize(torch.tensor([[[[-0.2, 0.5, 1.2]]]])) * 255
        tensor([[[[  0., 128., 255.]]]])
    """
    x = check_image("quantize", x)
    check_count("quantize", "levels", levels, least=2)
    if x.dtype not in (torch.float32, torch.float64):
        raise DTypeError(
            "quantize", expected="float32 or float64", found=str(x.dtype), remedy="Convert with x.float()."
        )
    return (x.clamp(0, 1) * (levels - 1)).round() / (levels - 1)
