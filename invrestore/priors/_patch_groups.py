"""Groups of similar patches, denoised together: the weighted nuclear norm on non-local patch matrices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from invrestore._types import Tensor

__all__ = ["GroupSettings", "shrink_spectrum", "weighted_nuclear_denoise"]

_CHUNK = 1 << 22
"""Numbers in the largest temporary of one step, so that memory does not grow with the image."""

_TILE = 8
"""Reference patches of a tile, in each direction, share one search window and one matrix product."""


@dataclasses.dataclass(frozen=True)
class GroupSettings:
    """How groups are formed and how often they are denoised.

    Attributes:
        patch: Side of a patch, pixels.
        group: Patches in a group at the start; each new search takes ``fewer`` less.
        steps: Rounds of grouping, shrinking and averaging.
        window: Side of the search window, pixels.
        stride: Distance between reference patches, pixels.
        residual: Share of the noise standard deviation still assumed after the first round.
        feedback: Share of the removed residual that returns before every round.
        rematch: Rounds between two searches.
        fewer: See ``group``.
        scale: Constant c of the weights c sqrt(n) sigma^2 / s, for the misfit with the factor 1/2.
    """

    patch: int
    group: int
    steps: int
    window: int
    stride: int
    residual: float
    feedback: float = 0.1
    rematch: int = 2
    fewer: int = 10
    scale: float = 2 * math.sqrt(2)


# Spectra ----------------------------------------------------------------------------------------------------


def _soft(s: Tensor, level: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """max(s - level, 0) beyond the first ``rank`` values; with the derivatives in s and in level."""
    tail = torch.arange(s.shape[-1], device=s.device) >= rank
    t = level * tail
    on = (s > t).to(s)
    return (s - t).clamp_min(0), on, -on * tail


def _reweighted(s: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(s + sqrt(s^2 - 4 level)) / 2, or 0 where that is not real; with the derivatives in s and in level."""
    inside = s.square() - 4 * level
    on = inside > 0
    root = inside.where(on, torch.ones_like(inside)).sqrt()
    zero = torch.zeros_like(s)
    return ((s + root) / 2).where(on, zero), ((1 + s / root) / 2).where(on, zero), (-1 / root).where(on, zero)


class _Shrink(torch.autograd.Function):
    """U f(S) V^T of wide matrices, with a derivative that stays finite where singular values coincide.

    With P = U^T dX V, the differential is U (G1 * sym P + G2 * skew P) V^T + U diag(f / s) U^T dX (I - V
    V^T), G1_ij = (f_i - f_j) / (s_i - s_j) and G2_ij = (f_i + f_j) / (s_i + s_j). The map is self-adjoint,
    so the backward pass applies it to the cotangent.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, level: Tensor, rank: int | None) -> Tensor:
        if rank is None:
            # Gram matrices cost a fifth of the SVD; what they lose in accuracy lies far below the noise.
            power, U = torch.linalg.eigh(x @ x.mT)
            s = power.clamp_min(0).sqrt()
        else:
            U, s, _ = torch.linalg.svd(x, full_matrices=False)
        values = _values(s, level, rank)[0]
        out: Tensor = (U * (values / s.clamp_min(torch.finfo(s.dtype).tiny))[..., None, :]) @ (U.mT @ x)
        ctx.save_for_backward(x, level, U, s)
        ctx.rank = rank
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, level, U, s = ctx.saved_tensors
        f, slope, by_level = _values(s, level, ctx.rank)
        kind = torch.finfo(s.dtype)
        floor = s.amax(-1, keepdim=True).clamp_min(kind.tiny) * kind.eps**0.5
        present = s > floor
        Vt = (U.mT @ x) * (present / s.where(present, floor.expand_as(s)))[..., None]
        turned = U.mT @ grad
        P = turned @ Vt.mT
        difference = s[..., :, None] - s[..., None, :]
        apart = difference.abs() > floor[..., None]
        chord = (f[..., :, None] - f[..., None, :]) / difference.where(apart, torch.ones_like(difference))
        tangent = (slope[..., :, None] + slope[..., None, :]) / 2
        total = (s[..., :, None] + s[..., None, :]).clamp_min(kind.tiny)
        symmetric, skew = (P + P.mT) / 2, (P - P.mT) / 2
        inner = chord.where(apart, tangent) * symmetric + (f[..., :, None] + f[..., None, :]) / total * skew
        ratio = (f / s.clamp_min(kind.tiny)).where(present, slope)
        back = U @ (inner @ Vt + ratio[..., None] * (turned - P @ Vt))
        return back, (P.diagonal(dim1=-2, dim2=-1) * by_level).sum(-1, keepdim=True), None


def _values(s: Tensor, level: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    return _reweighted(s, level) if rank is None else _soft(s, level, rank)


def shrink_spectrum(x: Tensor, level: Tensor, *, rank: int | None = None) -> Tensor:
    """Matrices with shrunken singular values, U f(S) V^T.

    Args:
        x: (..., m, n).
        level: One number for each matrix, (...).
        rank: The first ``rank`` values stay and ``level`` is subtracted from the others, down to 0; by SVD.
            None: s becomes (s + sqrt(s^2 - 4 level)) / 2, or 0 if that is not real; by the smaller Gram
            matrix.
    """
    wide = x.shape[-2] <= x.shape[-1]
    out: Tensor = _Shrink.apply(x if wide else x.mT, level[..., None], rank)
    return out if wide else out.mT


# Groups -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Band:
    """Reference patches of a few neighbouring rows, and the rows of patches they search.

    Attributes:
        rows: Top edges of the reference patches.
        first: First row of the search.
        height: Rows of the search.
    """

    rows: Tensor
    first: int
    height: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Grid:
    """Where patches may lie in an image of given size, and where reference patches do.

    Attributes:
        patch: Side of a patch.
        height, width: Number of patch positions.
        reach: Largest offset searched.
        columns: Left edges of the reference patches.
        bands: Reference patches from top to bottom.
    """

    patch: int
    height: int
    width: int
    reach: int
    columns: list[int]
    bands: list[_Band]

    @classmethod
    def of(cls, shape: tuple[int, int], settings: GroupSettings, device: torch.device) -> _Grid:
        patch = min(settings.patch, *shape)
        height, width = (side - patch + 1 for side in shape)
        reach = settings.window // 2
        stride = min(settings.stride, patch)
        rows, columns = (_edges(side, stride) for side in (height, width))
        bands = []
        for start in range(0, len(rows), _TILE):
            part = rows[start : start + _TILE]
            first, size = _span(part[0], part[-1], reach, height)
            bands.append(_Band(torch.tensor(part, device=device), first, size))
        return cls(patch, height, width, reach, columns, bands)

    def tiles(self) -> Iterator[tuple[list[int], int, int]]:
        """Left edges of the reference patches of each tile, with start and width of its window."""
        for start in range(0, len(self.columns), _TILE):
            part = self.columns[start : start + _TILE]
            yield part, *_span(part[0], part[-1], self.reach, self.width)


def _edges(side: int, stride: int) -> list[int]:
    """0, stride, 2 stride ... and the last position, so that patches cover every pixel."""
    edges = list(range(0, side, stride))
    return edges if edges[-1] == side - 1 else [*edges, side - 1]


def _span(low: int, high: int, reach: int, side: int) -> tuple[int, int]:
    """Start and size of a window that reaches as far beyond low..high, moved inwards at the border."""
    size = min(side, high - low + 1 + 2 * reach)
    return min(max(low - reach, 0), side - size), size


def _patches(x: Tensor, grid: _Grid, band: _Band) -> Tensor:
    """All patches whose top edge lies in the rows of a band, (B, height * W', C * patch^2)."""
    rows = x[:, :, band.first : band.first + band.height + grid.patch - 1]
    return F.unfold(rows, grid.patch).mT.contiguous()


def _match(patches: Tensor, grid: _Grid, band: _Band, group: int) -> Tensor:
    """Indices of the ``group`` patches nearest to each reference patch of a band.

    Squared distances within the window of a tile of reference patches, by one matrix product for each tile;
    (B, K, group), itself first. Fewer where the smallest window of the band holds fewer.
    """
    centred = patches - patches.mean(1, keepdim=True)
    field = centred.view(patches.shape[0], band.height, grid.width, -1)
    power = field.square().sum(-1)
    rows = (band.rows - band.first).view(-1, 1)
    found = []
    for columns, start, width in grid.tiles():
        near = field[:, :, start : start + width].flatten(1, 2)
        own = (rows * width + torch.tensor(columns, device=rows.device) - start).flatten()
        distance = power[:, :, start : start + width].flatten(1)[:, None] - 2 * near[:, own] @ near.mT
        # A reference patch belongs to its group even among equal ones: every pixel gets an estimate.
        distance[:, torch.arange(own.numel(), device=own.device), own] = -torch.inf
        nearest = distance.topk(min(group, near.shape[1]), largest=False).indices
        found.append(nearest // width * grid.width + nearest % width + start)
    least = min(part.shape[-1] for part in found)
    return torch.cat([part[..., :least] for part in found], 1).int()


def _keys(grid: _Grid, band: _Band) -> Tensor:
    """Flat positions of a band's reference patches among all H' * W', in the order of ``_match``."""
    parts = [
        (band.rows.view(-1, 1) * grid.width + torch.tensor(columns, device=band.rows.device)).flatten()
        for columns, _, _ in grid.tiles()
    ]
    return torch.cat(parts)


def _threshold(members: int, size: int, channels: int, scale: float) -> float:
    """Weight times singular value, in units of the noise variance, for groups of ``members`` patches.

    c sqrt(n) of the paper for gray images. The largest singular value of noise is about (sqrt(n) + sqrt(d))
    sigma, and d grows with the channels, so that colour patches need a threshold larger by the square of its
    ratio.
    """
    root = math.sqrt(members)
    return scale * root * ((root + math.sqrt(size)) / (root + math.sqrt(size / channels))) ** 2


def _average_groups(patches: Tensor, index: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the estimates of every patch and their number.

    Args:
        patches: (B, N, d).
        index: (B, K, n), patches of each group.
        level: Weight times singular value of each group, (B, K).
    """
    batch, count, size = patches.shape
    flat = patches.flatten(0, 1)
    offset = torch.arange(batch, device=index.device).view(-1, 1, 1) * count
    total, weight = torch.zeros_like(flat), flat.new_zeros(flat.shape[0])
    together = max(1, _CHUNK // (index.shape[-1] * size))
    members = (index + offset).flatten(0, 1)
    for chunk, bound in zip(
        torch.split(members, together), torch.split(level.flatten(), together), strict=True
    ):
        groups = flat[chunk]
        mean = groups.mean(1, keepdim=True)
        estimate = shrink_spectrum(groups - mean, bound) + mean
        _add(total, chunk.flatten(), estimate.flatten(0, 1))
        _add(weight, chunk.flatten(), torch.ones_like(chunk, dtype=flat.dtype).flatten())
    return total.view_as(patches), weight.view(batch, count)


def _add(total: Tensor, index: Tensor, values: Tensor) -> None:
    """total[index] += values, in an order that does not change between runs."""
    if total.device.type == "cpu":
        total.index_add_(0, index, values)
    else:
        # On other devices index_add_ is atomic, hence unordered; index_put_ sorts first.
        total.index_put_((index,), values, accumulate=True)


def weighted_nuclear_denoise(x: Tensor, variance: Tensor, settings: GroupSettings) -> Tensor:
    """WNNM of images of one noise regime.

    Args:
        x: (B, C, H, W), float32 or float64.
        variance: Noise variance of each image, (B,).
        settings: Patches, groups and rounds.
    """
    together = max(1, 4 * _CHUNK // (settings.patch**2 * x[0].numel()))
    parts = zip(torch.split(x, together), torch.split(variance, together), strict=True)
    return torch.cat([_denoise(part, noise, settings) for part, noise in parts])


def _denoise(y: Tensor, variance: Tensor, settings: GroupSettings) -> Tensor:
    grid = _Grid.of((y.shape[-2], y.shape[-1]), settings, y.device)
    keys = [_keys(grid, band) for band in grid.bands]
    variance = variance.view(-1, 1)
    matches: list[Tensor] = []
    x = y
    group = settings.group
    for step in range(settings.steps):
        x = x + settings.feedback * (y - x)
        if step == 0:
            left = variance.expand(-1, grid.height * grid.width)
        else:
            removed = F.avg_pool2d((y - x).square().mean(1, keepdim=True), grid.patch, stride=1).flatten(1)
            left = settings.residual**2 * (variance - removed).abs()
        search = step % settings.rematch == 0
        if search:
            group = max(group - settings.fewer, 2)
            matches = []
        total, weight = torch.zeros_like(y), torch.zeros_like(y[:, :1])
        for k, band in enumerate(grid.bands):
            patches = _patches(x, grid, band)
            if search:
                with torch.no_grad():
                    matches.append(_match(patches, grid, band, group))
            factor = _threshold(matches[k].shape[-1], patches.shape[-1], y.shape[1], settings.scale)
            sums, counts = _average_groups(patches, matches[k], factor * left[:, keys[k]])
            shape = (band.height + grid.patch - 1, y.shape[-1])
            rows = slice(band.first, band.first + shape[0])
            total[:, :, rows] += F.fold(sums.mT, shape, grid.patch)
            weight[:, :, rows] += F.fold(counts[:, None].expand(-1, grid.patch**2, -1), shape, grid.patch)
        x = total / weight
    return x
