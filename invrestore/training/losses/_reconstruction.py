"""Distances between an image and its reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["feature_distance", "multiscale_l1"]


def multiscale_l1(x: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean over scales of the mean absolute difference of images halved 0 to scales - 1 times.

    Coarse scales count colours and shapes that single pixels average out.

    Args:
        x: Images (N, C, H, W), with sides that 2^(scales - 1) divides.
        target: Images of the same shape.
        scales: Number of scales, at least 1.
    """
    difference = x - target
    total = difference.abs().mean()
    for _ in range(scales - 1):
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.abs().mean()
    return total / scales


def feature_distance(features: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean over layers of mean |f - t| / mean |t|: how far images are apart in a network's eyes.

    Args:
        features: Feature maps of images, one tensor for each layer.
        target: Feature maps of the images they should equal; no gradient flows back through them.

    Shapes:
        features, target: For each layer maps (N, C_i, h_i, w_i), or any other shape that both have.
        returns: (), float32.

    Reference:
        Larsen et al. (2016), Autoencoding beyond pixels using a learned similarity metric. Unlike the paper:
        several layers, absolute instead of squared differences, relative to the size of the features.
    """
    distances = []
    for f, t in zip(features, target, strict=True):
        t = t.detach()
        distances.append((f - t).abs().float().mean() / (t.abs().float().mean() + 1e-8))
    return torch.stack(distances).mean()
