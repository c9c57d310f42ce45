"""Shared type names.

Shape letters used in docstrings throughout: B batch, C channels, H and W height and width, M any
measurement shape without its batch axis.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Shape: TypeAlias = tuple[int, ...]
"""Shape of one image or measurement, without the batch axis."""

PerImage: TypeAlias = float | torch.Tensor
"""One number for all images, or a tensor of shape (B,) with one number for each."""

__all__ = ["PerImage", "Shape", "Tensor"]
