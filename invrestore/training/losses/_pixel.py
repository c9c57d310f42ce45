"""Distances between a restored image and the true one, pixel by pixel."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from invrestore.errors import UnknownNameError

__all__ = ["corresponding_points", "l1", "mse"]


def l1(x: Tensor, target: Tensor) -> Tensor:
    """Mean |x - t| over all samples.

    Args:
        x: Restored images.
        target: The true ones; a gradient flows to both.

    Shapes:
        x, target: (N, C, H, W), or any other shape that both have.
        returns: (), of the type of the images.
    """
    return (x - target).abs().mean()


def mse(x: Tensor, target: Tensor) -> Tensor:
    """Mean (x - t)^2 over all samples.

    Args:
        x: Restored images.
        target: The true ones; a gradient flows to both.

    Shapes:
        x, target: (N, C, H, W), or any other shape that both have.
        returns: (), of the type of the images.
    """
    return (x - target).square().mean()


def corresponding_points(
    x: Tensor, measured: Tensor, known: Tensor, distance: Literal["l2", "l1"] = "l2"
) -> Tensor:
    """Sum known (x - s)^2 / sum known: how far the restored image is from the samples that were given.

    The mean over known samples makes one weight fit 1 % and 20 % of them.

    Args:
        x: Restored images.
        measured: Images s with the samples; other pixels do not count.
        known: 1 at samples and 0 elsewhere.
        distance: "l2" as above, or "l1" with |x - s|.

    Shapes:
        x, measured: (N, C, H, W).
        known: (N, 1, H, W) or (N, C, H, W).
        returns: (), 0 where nothing is known.

    Raises:
        UnknownNameError: There is no such distance.

    Reference:
        The corresponding-point loss of X-GANs, ||s - Mask(G(s), s)||_2^2.
    """
    if distance not in ("l2", "l1"):
        raise UnknownNameError.suggest("corresponding_points", "distance", distance, ("l2", "l1"))
    difference = (x - measured) * known
    total = difference.square().sum() if distance == "l2" else difference.abs().sum()
    return total / known.expand_as(x).sum().clamp_min(1)
