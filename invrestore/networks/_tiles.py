"""Large images in overlapping tiles, so that memory does not grow with the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from invrestore._checks import check_count, check_image
from invrestore.errors import RangeError

__all__ = ["check_tile", "tiled"]

_ALIGN = 32

_OVERLAP = 96


def tiled(
    network: Callable[[Tensor, float | Tensor], Tensor],
    x: Tensor,
    sigma: float | Tensor,
    *,
    tile: int = 512,
    overlap: int = _OVERLAP,
) -> Tensor:
    """Denoise x tile by tile and blend the overlaps linearly, so that no seam shows.

    Memory beside x and the result is that of one tile. Tiles start at multiples of 32, so a network that
    halves its resolution sees the grid it sees on the whole image. The outer quarter of each overlap is
    dropped and the middle half blended linearly, so a network that looks no further than overlap / 4 gives
    exactly the untiled result. The shipped denoiser looks further with small weight: on three photos, at sigma
    up to 50/255, its largest difference is 0.11/255 (docs/speed.md).

    Args:
        network: Denoiser called as `network(x, sigma)`.
        x: Noisy images (B, C, H, W) in [0, 1]; images no larger than one tile are passed on whole.
        sigma: Noise level as the network takes it: float, (), (B,) or (B, 1, H, W); a map is cut along.
        tile: Side of a tile in pixels, a multiple of 32.
        overlap: Pixels that neighbours share, a multiple of 32 below tile.

    Returns:
        Tensor like x.

    Raises:
        ShapeError: x is not (B, C, H, W).
        DTypeError: x is not floating point.
        RangeError: tile or overlap make no sense.
    """
    x = check_image("networks.tiled", x)
    check_tile("networks.tiled", tile, overlap)
    height, width = x.shape[-2:]
    if height <= tile and width <= tile:
        return network(x, sigma)
    total = torch.zeros_like(x)
    columns = list(_windows(width, tile, overlap, x))
    for down, vertical in _windows(height, tile, overlap, x):
        for across, horizontal in columns:
            is_map = isinstance(sigma, Tensor) and sigma.ndim == 4 and sigma.shape[-2:] == x.shape[-2:]
            level = sigma[..., down, across] if is_map else sigma  # type: ignore[index]
            part = network(x[..., down, across], level)
            total[..., down, across] += part * (vertical[:, None] * horizontal)
    return total


def check_tile(where: str, tile: int, overlap: int = _OVERLAP) -> None:
    """Raise unless tiles of side ``tile`` can share ``overlap`` pixels with their neighbours.

    Raises:
        RangeError: They cannot, or are not on the grid of the coarsest scale.
    """
    check_count(where, "tile", tile)
    check_count(where, "overlap", overlap, least=0)
    if overlap >= tile or tile % _ALIGN or overlap % _ALIGN:
        raise RangeError(
            where,
            expected=f"overlap < tile, both multiples of {_ALIGN}",
            found=f"tile={tile}, overlap={overlap}",
        )


def _windows(size: int, tile: int, overlap: int, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Tiles along one axis with the weight of each of their pixels; the weights of a pixel add up to 1."""
    cuts = [slice(start, min(start + tile, size)) for start in _starts(size, tile, overlap)]
    ramps = [_ramp(cut.start, cut.stop - cut.start, size, overlap, like) for cut in cuts]
    total = like.new_zeros(size)
    for cut, ramp in zip(cuts, ramps, strict=True):
        total[cut] += ramp
    for cut, ramp in zip(cuts, ramps, strict=True):
        yield cut, ramp / total[cut]


def _starts(size: int, tile: int, overlap: int) -> Iterator[int]:
    """First pixels of the tiles along one axis; the last tile may be shorter, but exceeds the overlap."""
    start = 0
    while start + tile < size:
        yield start
        start += tile - overlap
    yield start


def _ramp(start: int, length: int, size: int, overlap: int, like: Tensor) -> Tensor:
    """Weights of one tile along one axis: a ramp over each overlap, 1 at the border of the image."""
    ones = like.new_ones(length)
    if overlap == 0:
        return ones
    position = torch.arange(length, device=like.device, dtype=like.dtype)
    # Over the outer quarter of an overlap the tile counts nothing: there it saw padding in place of pixels.
    quarter = overlap / 4
    rise = ((position + 0.5 - quarter) / (2 * quarter)).clamp(0, 1) if start > 0 else ones
    fall = (
        ((length - position - 0.5 - quarter) / (2 * quarter)).clamp(0, 1) if start + length < size else ones
    )
    return rise * fall
