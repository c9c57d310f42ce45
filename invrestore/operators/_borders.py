"""Samples outside the edges of an image, and the adjoint of adding them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from invrestore._types import Tensor

__all__ = ["extend", "extend_both", "fold"]


def _sources(start: int, stop: int, size: int, padding: str) -> list[int]:
    """Samples that stand in for positions start to stop - 1 of an axis of ``size``, however far outside."""
    if padding == "replicate":
        return [min(max(i, 0), size - 1) for i in range(start, stop)]
    if padding == "circular" or size == 1:
        return [i % size for i in range(start, stop)]
    # Reflection about the outer samples, as often as needed: a triangle wave of period 2 (size - 1).
    period = 2 * (size - 1)
    return [min(i % period, period - i % period) for i in range(start, stop)]


def _is_near(before: int, after: int, size: int, padding: str) -> bool:
    """Whether the border needs each sample at most once a side, which slices can do."""
    return padding == "replicate" or max(before, after) <= size - (padding == "reflect")


def extend(x: Tensor, axis: int, before: int, after: int, padding: str) -> Tensor:
    """Add ``before`` and ``after`` samples along ``axis`` (-2 or -1); negative counts cut samples off.

    Exact for any count, also for several reflections or wraps.
    """
    size = x.shape[axis]
    if before < 0 or after < 0:
        x = extend(x, axis, max(before, 0), max(after, 0), padding)
        return x.narrow(axis, max(-before, 0), size + before + after)
    if before == after == 0:
        return x
    pads = (0, 0, before, after) if axis == -2 else (before, after, 0, 0)
    if padding == "zero":
        return F.pad(x, pads)
    if _is_near(before, after, size, padding):
        return F.pad(x, pads, mode=padding)
    source = _sources(-before, size + after, size, padding)
    return x.index_select(axis, torch.tensor(source, device=x.device))


def extend_both(x: Tensor, before: tuple[int, int], after: tuple[int, int], padding: str) -> Tensor:
    """``extend`` along both axes, in one pass where the border is narrow."""
    near = all(_is_near(b, a, n, padding) for b, a, n in zip(before, after, x.shape[-2:], strict=True))
    if padding == "zero" or not near or not any((*before, *after)):
        return extend(extend(x, -2, before[0], after[0], padding), -1, before[1], after[1], padding)
    return F.pad(x, (before[1], after[1], before[0], after[0]), mode=padding)


def fold(y: Tensor, axis: int, before: int, after: int, padding: str) -> Tensor:
    """Adjoint of ``extend``: add the samples of the border back onto the samples they were copied from."""
    if before < 0 or after < 0:
        cut = (max(-before, 0), max(-after, 0))
        y = F.pad(y, (0, 0, *cut) if axis == -2 else cut)
        return fold(y, axis, max(before, 0), max(after, 0), padding)
    if before == after == 0:
        return y
    size = y.shape[axis] - before - after
    out = y.narrow(axis, before, size)
    if padding == "zero":
        return out
    head, tail = y.narrow(axis, 0, before), y.narrow(axis, before + size, after)
    if not _is_near(before, after, size, padding):
        # A product with a 0/1 matrix instead of index_add: the same sum in the same order on every device.
        source = [*_sources(-before, 0, size, padding), *_sources(size, size + after, size, padding)]
        scatter = F.one_hot(torch.tensor(source, device=y.device), size).to(y.dtype)
        border = torch.cat([head, tail], axis)
        return out + (scatter.mT @ border if axis == -2 else border @ scatter)
    out = out.clone()
    if padding == "replicate":
        out.narrow(axis, 0, 1).add_(head.sum(axis, keepdim=True))
        out.narrow(axis, size - 1, 1).add_(tail.sum(axis, keepdim=True))
    elif padding == "circular":
        out.narrow(axis, size - before, before).add_(head)
        out.narrow(axis, 0, after).add_(tail)
    else:
        out.narrow(axis, 1, before).add_(head.flip(axis))
        out.narrow(axis, size - 1 - after, after).add_(tail.flip(axis))
    return out
