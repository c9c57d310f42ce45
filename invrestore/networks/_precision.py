"""Where networks may multiply in bfloat16."""

from __future__ import annotations

import functools

import torch

__all__ = ["PRECISIONS", "has_matrix_units"]

PRECISIONS = ("auto", "full", "bfloat16")


@functools.cache
def has_matrix_units(device: torch.device) -> bool:
    """Whether bfloat16 products are several times faster than float32 ones there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # A processor without them converts back and forth, and is slower than in float32.
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()
