"""Scores that compare pixel by pixel."""

from __future__ import annotations

import math

import torch

from invrestore._types import Tensor
from invrestore.metrics._pair import check_data_range, check_pair

__all__ = ["mae", "mse", "psnr"]


def mse(x: Tensor, x_true: Tensor) -> Tensor:
    """Mean squared error, mean over C, H, W of (x - x_true)^2.

    Args:
        x: Estimate; any range, never clamped.
        x_true: Truth, of the same shape and on the same device.

    Shapes:
        x, x_true: (B, C, H, W), real floating point; 16-bit types are computed in float32. Returns (B,).

    Raises:
        ShapeError: The shapes differ or are not (B, C, H, W).
        DTypeError: An image is no real floating-point tensor.
        DeviceError: The images live on different devices.

    Example:
        >>> mse(torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4))
        tensor([0.2500])
    """
    x, x_true = check_pair("mse", x, x_true)
    return (x - x_true).square().mean((1, 2, 3))


def mae(x: Tensor, x_true: Tensor) -> Tensor:
    """Mean absolute error, mean over C, H, W of abs(x - x_true).

    Args, Shapes, Raises: as ``mse``.

    Example:
        >>> mae(torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4))
        tensor([0.5000])
    """
    x, x_true = check_pair("mae", x, x_true)
    return (x - x_true).abs().mean((1, 2, 3))


def psnr(x: Tensor, x_true: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / MSE), MSE over C, H, W.

    Equal images give inf. The score of a set is the mean of the images' scores in dB, not the score of the
    pooled error.

    Args:
        x: Estimate; any range, never clamped.
        x_true: Truth, of the same shape and on the same device.
        data_range: Width of the range images live in, > 0: 1.0 for [0, 1]. Never taken from the images.

    Shapes:
        x, x_true: (B, C, H, W), real floating point; 16-bit types are computed in float32. Returns (B,).

    Raises:
        ShapeError: The shapes differ or are not (B, C, H, W).
        DTypeError: An image is no real floating-point tensor, or ``data_range`` no number.
        RangeError: ``data_range`` is not positive and finite.
        DeviceError: The images live on different devices.

    Example:
        >>> psnr(torch.full((1, 3, 4, 4), 0.1), torch.zeros(1, 3, 4, 4))
        tensor([20.])
    """
    peak = check_data_range("psnr", data_range)
    x, x_true = check_pair("psnr", x, x_true)
    return 20 * math.log10(peak) - 10 * torch.log10((x - x_true).square().mean((1, 2, 3)))
