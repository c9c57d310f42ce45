"""Flips and quarter turns of images around a function."""

from __future__ import annotations

from collections.abc import Callable

import torch

from invrestore._types import Tensor

__all__ = ["under_symmetry"]


def under_symmetry(act: Callable[[Tensor], Tensor], x: Tensor, *, flip: bool, turns: int) -> Tensor:
    """Flip and turn x, apply ``act``, turn and flip back: one of the eight views of a square.

    Args:
        act: Function of images that keeps their shape.
        x: (B, C, H, W).
        flip: Whether to flip left to right first.
        turns: Quarter turns after that.

    Returns:
        (B, C, H, W); ``act(x)`` itself where ``act`` treats all directions alike.
    """
    view = torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))
    back = torch.rot90(act(view), -turns, (-2, -1))
    return back.flip(-1) if flip else back
