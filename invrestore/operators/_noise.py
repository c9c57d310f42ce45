"""The noise level of a measurement, from the measurement alone."""

from __future__ import annotations

import torch

from invrestore._checks import check_tensor
from invrestore._types import Tensor
from invrestore.errors import ShapeError

__all__ = ["estimate_sigma"]

_NORMAL_QUARTILE = 0.6744897501960817
"""Third quartile of the standard normal distribution: the median of |noise| is this times sigma."""


def estimate_sigma(y: Tensor) -> Tensor:
    """Standard deviation of white noise in ``y``: median |d| / 0.6745, d the finest Haar diagonals.

    All channels are pooled. Unlike the paper the coefficients are taken at every pixel, not at every second
    one: four times the samples, which matters for small images. An axis of size 1 is left out of the
    difference. Texture finer than two pixels counts as noise, so the estimate errs upwards on busy pictures.

    Args:
        y: Measurements (B, ..., H, W), or (B, M) vectors; noise in units of y.

    Shapes:
        Returns: (B,), dtype of y.

    Raises:
        ShapeError: There is no axis to take differences along.

    Example:
        >>> noise = 0.1 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> bool((estimate_sigma(0.5 + noise) - 0.1).abs() < 0.005)
        True

    Reference:
        Donoho and Johnstone (1994), Ideal spatial adaptation by wavelet shrinkage.
    """
    y = check_tensor("estimate_sigma", "y", y)
    axes = [a for a in (-2, -1) if y.ndim + a >= 1 and y.shape[a] > 1]
    if not axes or y.shape[0] == 0:
        raise ShapeError(
            "estimate_sigma",
            expected="y of shape (B, ..., H, W) with at least two neighbouring samples",
            found=str(tuple(y.shape)),
            remedy="Give sigma= explicitly.",
        )
    d = y.detach()
    d = torch.view_as_real(d).movedim(-1, 1).flatten(0, 1) if d.is_complex() else d
    d = d if d.dtype == torch.float64 else d.float()
    for axis in axes:
        n = d.shape[axis]
        d = (d.narrow(axis, 1, n - 1) - d.narrow(axis, 0, n - 1)) * 0.5**0.5
    magnitudes = d.abs().reshape(y.shape[0], -1)
    n = magnitudes.shape[1]
    # torch.median takes the lower of the two middle values, which is biased for few samples.
    median = magnitudes.kthvalue(n // 2 + 1, 1).values
    if n % 2 == 0 and n < 4096:
        median = 0.5 * (median + magnitudes.kthvalue(n // 2, 1).values)
    return (median / _NORMAL_QUARTILE).to(y.real.dtype)
