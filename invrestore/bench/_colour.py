"""Colour from luma by linear regression on training images."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from invrestore._types import Tensor
from invrestore.bench._classical import operator_of
from invrestore.bench._examples import examples_of_size
from invrestore.bench._types import Problem
from invrestore.operators import Grayscale

__all__ = ["colour_regression"]

_EXAMPLES = 2000
"""Training images, enough for a regression of seven coefficients at each pixel."""

_BATCH = 500
"""Images whose features are in memory together."""


def colour_regression(problem: Problem, *, examples: str, ridge: float = 1e-4, skip: int = 32) -> Tensor:
    """Colour minus luma of each pixel, a linear function with coefficients of its own, fitted to training images.

    The features are the luma l of the pixel, its means over 5 x 5 and 15 x 15 pixels, the latter m, and l^2,
    l m and m^2. It suits pictures that are aligned with those of training, such as faces.

    Args:
        problem: What to restore.
        examples: Folder of training images.
        ridge: Weight of the squared coefficients, for one training image.
        skip: First training images to leave out, those that settings are searched on.
    """
    weights = _fit(examples, *problem.view.shape[-2:], ridge, skip)
    difference = (_features(problem.y) @ weights).permute(1, 2, 0)
    found = problem.y + difference.reshape(problem.view.shape)
    return operator_of(problem).project(found, problem.y)  # type: ignore[attr-defined,no-any-return]


def _features(luma: Tensor) -> Tensor:
    """(H W, N, features) of luma pictures (N, 1, H, W)."""
    small = F.avg_pool2d(luma, 5, 1, 2, count_include_pad=False)
    large = F.avg_pool2d(luma, 15, 1, 7, count_include_pad=False)
    found = torch.cat([torch.ones_like(luma), luma, luma**2, small, large, large**2, luma * large], 1)
    return found.flatten(2).permute(2, 0, 1)


@functools.lru_cache(maxsize=2)
def _fit(folder: str, height: int, width: int, ridge: float, skip: int) -> Tensor:
    """Coefficients, (H W, features, 3)."""
    colour = examples_of_size(folder, 3, height, width, skip, _EXAMPLES).float() / 255
    luma = Grayscale()(colour)
    gram, right = torch.zeros(()), torch.zeros(())
    for part, gray in zip(torch.split(colour, _BATCH), torch.split(luma, _BATCH), strict=True):
        f = _features(gray)
        target = (part - gray).flatten(2).permute(2, 0, 1)
        gram, right = gram + f.mT @ f, right + f.mT @ target
    damping = ridge * len(colour) * torch.eye(gram.shape[-1])
    weights: Tensor = torch.linalg.solve(gram + damping, right)
    return weights
