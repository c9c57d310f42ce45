"""Structural similarity."""

from __future__ import annotations

import math

import torch

from invrestore._types import Tensor
from invrestore.errors import ShapeError
from invrestore.metrics._pair import check_data_range, check_pair

__all__ = ["ssim"]

_SIDE = 11
_STD = 1.5
_K1, _K2 = 0.01, 0.03


def _local_mean(x: Tensor, axis: int) -> Tensor:
    """Gaussian mean along one axis where the window fits: the axis gets shorter by 10."""
    half = _SIDE // 2
    bell = [math.exp(-0.5 * (i / _STD) ** 2) for i in range(half + 1)]
    total = bell[0] + 2 * sum(bell[1:])
    length = x.shape[axis] - 2 * half
    mean = x.narrow(axis, half, length) * (bell[0] / total)
    for i in range(1, half + 1):
        pair = x.narrow(axis, half - i, length) + x.narrow(axis, half + i, length)
        mean = torch.add(mean, pair, alpha=bell[i] / total)
    return mean


def ssim(x: Tensor, x_true: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity, mean of (2 m m' + c1)(2 s + c2) / ((m^2 + m'^2 + c1)(v + v' + c2)), at most 1.

    m and m', v and v', s are the means, variances and covariance of the two images in a Gaussian window of
    11 x 11 pixels and standard deviation 1.5 (population form: the weights sum to one);
    c1 = (0.01 data_range)^2, c2 = (0.03 data_range)^2. The mean runs over the pixels whose window lies inside
    the image, then over the channels. scikit-image computes the same with
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``.

    Args:
        x: Estimate; any range, never clamped.
        x_true: Truth, of the same shape and on the same device.
        data_range: Width of the range images live in, > 0: 1.0 for [0, 1]. Never taken from the images.

    Shapes:
        x, x_true: (B, C, H, W), real floating point, H and W >= 11. Returns (B,). Computed in float64 where
            there is such a type, because variances are differences of nearly equal numbers.

    Raises:
        ShapeError: The shapes differ, are not (B, C, H, W), or a side is shorter than the window.
        DTypeError: An image is no real floating-point tensor, or ``data_range`` no number.
        RangeError: ``data_range`` is not positive and finite.
        DeviceError: The images live on different devices.

    Example:
        >>> x = torch.rand(2, 3, 16, 16)
        >>> ssim(x, x)
        tensor([1., 1.])

    Reference:
        Wang, Bovik, Sheikh and Simoncelli (2004), Image quality assessment: from error visibility to
        structural similarity.
    """
    peak = check_data_range("ssim", data_range)
    x, x_true = check_pair("ssim", x, x_true)
    if min(x.shape[-2:]) < _SIDE:
        raise ShapeError(
            "ssim",
            expected=f"images of at least {_SIDE} x {_SIDE} pixels, the size of the window",
            found=f"{x.shape[-2]} x {x.shape[-1]}",
            remedy="Score smaller images with psnr.",
        )
    dtype = x.dtype
    if x.device.type != "mps":
        x, x_true = x.double(), x_true.double()
    maps = torch.stack([x, x_true, x.square() + x_true.square(), x * x_true])
    m, m_true, power, product = _local_mean(_local_mean(maps, -1), -2)
    means = m * m_true
    powers = m.square() + m_true.square()
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    score: Tensor = (2 * means + c1) * (2 * (product - means) + c2) / ((powers + c1) * (power - powers + c2))
    return score.mean((1, 2, 3)).to(dtype)
