"""Rows of the benchmark that fill holes from elsewhere: PatchMatch completion and nearest neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from invrestore._types import Tensor
from invrestore.bench._classical import operator_of
from invrestore.bench._examples import examples_of_size
from invrestore.bench._types import Problem
from invrestore.errors import CapabilityError

__all__ = ["complete", "nearest_neighbours", "patchmatch"]

_DECAY = 1.3
"""Trust in an unknown pixel falls by this factor for each pixel of distance from the known ones."""

_PIECE = 512
"""Examples compared at once."""


def patchmatch(problem: Problem, *, patch: int = 7, rounds: int = 8) -> Tensor:
    """Holes filled by :func:`complete`, each image with its own seed.

    Args:
        problem: What to restore.
        patch: Side of a patch, pixels, odd.
        rounds: Rounds on the full image.

    Raises:
        CapabilityError: Somewhere no patch is known whole, as with scattered pixels.
    """
    known = operator_of(problem)(torch.ones_like(problem.view)).amin(1) != 0
    return torch.stack(
        [
            complete(y, seen, torch.Generator().manual_seed(seed), patch=patch, rounds=rounds)
            for y, seen, seed in zip(problem.y, known, problem.seeds, strict=True)
        ]
    )


def complete(
    image: Tensor, known: Tensor, rng: torch.Generator, *, patch: int = 7, rounds: int = 8
) -> Tensor:
    """Fill unknown pixels so that every patch of the image resembles one that is wholly known.

    From coarse to fine, two steps alternate: PatchMatch finds for each patch that touches the hole a similar
    known one (candidates come from the matches of its neighbours, shifted along, and from random places ever
    nearer to the present match), and each unknown pixel becomes the mean of what the matches of the patches
    around it say. Patches near the border of the hole and good matches count more in the mean.

    Args:
        image: (C, H, W).
        known: Boolean (H, W).
        rng: Source of the random candidates.
        patch: Side of a patch, pixels, odd; smaller images use smaller ones.
        rounds: Rounds on the full image; each halving of the size doubles them.

    Raises:
        CapabilityError: No patch is known whole.

    Reference:
        Wexler, Shechtman and Irani (2007), Space-time completion of video; Barnes, Shechtman, Finkelstein and
        Goldman (2009), PatchMatch. Unlike the latter, all patches propagate at once, over ever shorter jumps.
    """
    if bool(known.all()):
        return image.clone()
    levels = [(image * known, known)]
    while True:
        smaller = _halved(*levels[-1])
        if not bool(_whole(smaller[1], patch).sum() >= 2 * patch) or bool(smaller[1].all()):
            break
        levels.append(smaller)
    if not bool(_whole(known, patch).any()):
        raise CapabilityError(
            "patchmatch",
            expected=f"some {patch}x{patch} patch that is known whole",
            found="none",
            remedy="Scattered pixels are for other methods.",
        )
    data, seen = levels.pop()
    search = _Search(data, seen, patch, rng)
    x = torch.where(seen, data, _smooth_start(data, seen))
    match = search.random(search.targets)
    while True:
        for _ in range(rounds * 2 ** len(levels)):
            match = search.improve(x, match)
            x = search.vote(x, match, search.cost(x, match))
        if not levels:
            return x
        finer = _Search(*levels.pop(), patch, rng)
        match = finer.refined(match, search)
        x = finer.vote(finer.data, match, None)
        search = finer


def _halved(image: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Means over 2 x 2 pixels; known where all of them are."""
    size = (image.shape[1] // 2 * 2, image.shape[2] // 2 * 2)
    image, known = image[:, : size[0], : size[1]], known[: size[0], : size[1]]
    weight = F.avg_pool2d(known.to(image.dtype)[None, None], 2)[0]
    return F.avg_pool2d(image[None], 2)[0] * (weight == 1), weight[0] == 1


def _whole(known: Tensor, patch: int) -> Tensor:
    """Whether the patch with its first corner at a place is known whole, (H - p + 1, W - p + 1)."""
    if min(known.shape) < patch:
        return known.new_zeros(1, 1)
    unknown = (~known).float()[None, None]
    return F.max_pool2d(unknown, patch, stride=1)[0, 0] == 0


def _smooth_start(image: Tensor, known: Tensor) -> Tensor:
    """Unknown pixels from averages of the known ones around them, widening until all are reached."""
    x, seen = image[None], known.to(image.dtype)[None, None]
    while bool((seen == 0).any()):
        total = F.avg_pool2d(x * seen, 3, stride=1, padding=1)
        weight = F.avg_pool2d(seen, 3, stride=1, padding=1)
        x = torch.where(seen > 0, x, total / weight.clamp_min(1e-12))
        seen = torch.maximum(seen, (weight > 0).to(seen.dtype))
    return x[0]


class _Search:
    """Patches of one size of an image: which are targets, which may be copied, and how far each pixel is trusted."""

    def __init__(self, data: Tensor, known: Tensor, patch: int, rng: torch.Generator) -> None:
        self.data, self.known, self.patch, self.rng = data, known, patch, rng
        self.whole = _whole(known, patch)
        self.rows, self.columns = self.whole.shape
        self.targets = (~self.whole).flatten().nonzero()[:, 0]
        self.sources = self.whole.flatten().nonzero()[:, 0]
        self.place = torch.full((self.rows * self.columns,), -1)
        self.place[self.targets] = torch.arange(self.targets.numel())
        # Of the pixels of each patch, the one nearest to the known ones decides: the layers of the hole.
        layers = torch.zeros(known.shape)
        rest = ~known
        while bool(rest.any()):
            layers += rest
            grown = F.max_pool2d((~rest).float()[None, None], 3, stride=1, padding=1)[0, 0] > 0
            rest = rest & ~grown
        trust = _DECAY**-layers
        self.trust = F.unfold(trust[None, None], patch)[0].mean(0)[self.targets]

    def random(self, like: Tensor) -> Tensor:
        draw = torch.randint(self.sources.numel(), tuple(like.shape), generator=self.rng)
        return self.sources[draw]

    def refined(self, match: Tensor, coarse: _Search) -> Tensor:
        """Matches of the halved image carried over."""
        i = torch.div(self.targets, self.columns, rounding_mode="floor")
        j = self.targets % self.columns
        up, left = (i // 2).clamp_max(coarse.rows - 1), (j // 2).clamp_max(coarse.columns - 1)
        parent = coarse.place[up * coarse.columns + left]
        found = match[parent.clamp_min(0)]
        row = 2 * torch.div(found, coarse.columns, rounding_mode="floor") + (i - 2 * up)
        column = 2 * (found % coarse.columns) + (j - 2 * left)
        return self._allowed(row, column, parent >= 0, self.random(self.targets))

    def _allowed(self, row: Tensor, column: Tensor, valid: Tensor, otherwise: Tensor) -> Tensor:
        inside = valid & (row >= 0) & (row < self.rows) & (column >= 0) & (column < self.columns)
        place = row.clamp(0, self.rows - 1) * self.columns + column.clamp(0, self.columns - 1)
        return torch.where(inside & self.whole.flatten()[place], place, otherwise)

    def _patches(self, x: Tensor) -> Tensor:
        return F.unfold(x[None], self.patch)[0].mT.contiguous()

    def cost(self, x: Tensor, match: Tensor) -> Tensor:
        """Mean squared difference of each target and its match."""
        patches = self._patches(x)
        return (patches[self.targets] - patches[match]).square().mean(1)

    def improve(self, x: Tensor, match: Tensor) -> Tensor:
        """One round of propagation and random search."""
        patches = self._patches(x)
        mine = patches[self.targets]
        best = (mine - patches[match]).square().mean(1)
        i = torch.div(self.targets, self.columns, rounding_mode="floor")
        j = self.targets % self.columns

        def consider(candidate: Tensor) -> None:
            nonlocal match, best
            cost = (mine - patches[candidate]).square().mean(1)
            better = cost < best
            match, best = torch.where(better, candidate, match), torch.where(better, cost, best)

        for jump in (8, 4, 2, 1, 1):
            for di, dj in ((-jump, 0), (jump, 0), (0, -jump), (0, jump)):
                ni, nj = i + di, j + dj
                inside = (ni >= 0) & (ni < self.rows) & (nj >= 0) & (nj < self.columns)
                near = self.place[ni.clamp(0, self.rows - 1) * self.columns + nj.clamp(0, self.columns - 1)]
                found = match[near.clamp_min(0)]
                row = torch.div(found, self.columns, rounding_mode="floor") - di
                consider(self._allowed(row, found % self.columns - dj, inside & (near >= 0), match))
        reach = float(max(self.rows, self.columns))
        while reach >= 1:
            shift = torch.rand(2, match.numel(), generator=self.rng).mul(2).sub(1).mul(reach).round().long()
            row = torch.div(match, self.columns, rounding_mode="floor") + shift[0]
            everywhere = torch.ones_like(match, dtype=torch.bool)
            consider(self._allowed(row, match % self.columns + shift[1], everywhere, match))
            reach /= 2
        return match

    def vote(self, x: Tensor, match: Tensor, cost: Tensor | None) -> Tensor:
        """Unknown pixels as the weighted mean of what the matches have there."""
        weight = self.trust
        if cost is not None:
            # Wexler et al.: the spread of the likelihood is the 75th percentile of the distances.
            spread = cost.quantile(0.75).clamp_min(1e-12)
            weight = weight * torch.exp(-cost / (2 * spread)).clamp_min(1e-6)
        source = self._patches(self.data)[match] * weight[:, None]
        size, count = (x.shape[1], x.shape[2]), self.rows * self.columns
        columns = source.new_zeros(count, source.shape[1])
        columns[self.targets] = source
        share = source.new_zeros(count, 1)
        share[self.targets] = weight[:, None]
        total = F.fold(columns.mT[None], size, self.patch)[0]
        norm = F.fold(share.expand(-1, self.patch**2).mT[None].contiguous(), size, self.patch)[0]
        return torch.where(self.known, x, total / norm.clamp_min(1e-30))


# Nearest neighbours -----------------------------------------------------------------------------------------


def nearest_neighbours(
    problem: Problem, *, examples: str, neighbours: int = 1, blend: bool = True, skip: int = 32
) -> Tensor:
    """Holes filled with the mean of the training images that fit the known pixels best.

    Args:
        problem: What to restore.
        examples: Folder of images; those with the training split are used.
        neighbours: Images in the mean.
        skip: First training images to leave out, those that settings are searched on.
        blend: Correct the filling by the harmonic function that makes it meet the border of the hole.

    Reference:
        Perez, Gangnet and Blake (2003), Poisson image editing, for the blending.
    """
    known = operator_of(problem)(torch.ones_like(problem.view)) != 0
    pool = examples_of_size(examples, *problem.view.shape[1:], skip)
    weight = known.float().flatten(1)
    data = (problem.y * known).flatten(1)
    parts = []
    for piece in torch.split(pool, _PIECE):
        e = piece.flatten(1).float() / 255
        parts.append(weight @ e.square().mT - 2 * data @ e.mT)
    best = torch.cat(parts, 1).topk(neighbours, largest=False).indices
    filling = (pool[best].float() / 255).mean(1)
    if blend:
        gap = torch.where(known, problem.y - filling, 0)
        filling = filling + torch.stack([_harmonic(g, k[0]) for g, k in zip(gap, known, strict=True)])
    return torch.where(known, problem.y, filling)


def _harmonic(values: Tensor, known: Tensor) -> Tensor:
    """The function that has these values where known and is the mean of its four neighbours elsewhere, (C, H, W)."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    seen = known.numpy()
    height, width = seen.shape
    number = np.full(seen.shape, -1)
    number[~seen] = np.arange((~seen).sum())
    inner = np.argwhere(~seen)
    if not len(inner):
        return values
    me = number[~seen]
    degree = np.zeros(len(inner))
    rows, columns, right = [], [], np.zeros((len(inner), values.shape[0]))
    for di, dj in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        i, j = inner[:, 0] + di, inner[:, 1] + dj
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        i, j = i.clip(0, height - 1), j.clip(0, width - 1)
        degree += inside
        free = inside & ~seen[i, j]
        rows.append(me[free])
        columns.append(number[i[free], j[free]])
        fixed = inside & seen[i, j]
        right[fixed] += values.numpy()[:, i[fixed], j[fixed]].T
    rows.append(me)
    columns.append(me)
    entries = np.concatenate([-np.ones(sum(map(len, rows[:-1]))), degree])
    shape = (len(inner), len(inner))
    matrix = coo_array((entries, (np.concatenate(rows), np.concatenate(columns))), shape=shape).tocsc()
    out = values.clone()
    out[:, ~known] = torch.from_numpy(splu(matrix).solve(right).T).to(values.dtype)
    return out
