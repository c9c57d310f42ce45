"""Dictionaries: the overcomplete cosine one, and K-SVD learning from examples."""

from __future__ import annotations

import math

import torch

from invrestore._checks import check_count, check_rng
from invrestore._types import Tensor
from invrestore.errors import RangeError
from invrestore.priors._sparse_coding import SparseCode, check_signals, omp

__all__ = ["dct_atoms", "ksvd"]

_ALIKE = 0.99
"""Cosine at which two atoms count as one."""

_SELDOM = 3
"""An atom in no more codes than this stands for single examples, not for a structure."""


def dct_atoms(size: int, count: int, channels: int = 1) -> Tensor:
    """Overcomplete cosine dictionary, (K, channels, size, size), unit norms, float32.

    Along each axis the atoms are cos(pi i k / m), i < size, k < m, less their mean for k > 0; a patch atom is
    the product of two. Several channels have one such set for their mean and one for each way to differ.

    Args:
        size: Side of a patch, pixels.
        count: Atoms for each colour direction, a square m * m with m >= size.
        channels: Channels of a patch.

    Raises:
        RangeError: ``count`` is not a square of at least ``size * size``.
    """
    check_count("dct_atoms", "size", size)
    check_count("dct_atoms", "count", count)
    check_count("dct_atoms", "channels", channels)
    m = math.isqrt(count)
    if m * m != count or m < size:
        raise RangeError(
            "dct_atoms",
            expected=f"count as a square >= {size * size}",
            found=str(count),
            remedy=f"Try {max(m, size) ** 2} or {(max(m, size) + 1) ** 2}.",
        )
    i, k = torch.arange(size, dtype=torch.float64), torch.arange(m, dtype=torch.float64)
    line = torch.cos(math.pi * k[:, None] * i / m)
    line[1:] -= line[1:].mean(1, keepdim=True)
    line /= line.norm(dim=1, keepdim=True)
    return (
        (
            _cosines(channels)[:, None, :, None, None]
            * torch.einsum("ai,bj->abij", line, line).reshape(count, 1, size, size)
        )
        .reshape(-1, channels, size, size)
        .float()
    )


def _cosines(n: int) -> Tensor:
    """Orthonormal rows, the first constant."""
    i = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * i[:, None] * (i + 0.5) / n)
    rows /= rows.norm(dim=1, keepdim=True)
    return rows


def ksvd(
    x: Tensor,
    atoms: Tensor,
    *,
    sparsity: int | None = None,
    error: float | Tensor | None = None,
    steps: int = 10,
    batch: int | None = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """K-SVD: atoms that code the examples ``x`` with little error, (K, n), unit norms.

    A step codes the examples by ``omp`` and then changes each atom together with its coefficients towards the
    best rank-one fit of what the other atoms leave: d = E^T g / ||.||, g = E d, one power iteration on the
    examples E that use the atom. Atoms that few examples use or that resemble another give way to the
    examples coded worst. The atoms of a step are updated one after the other, their examples all at once.

    Args:
        x: Examples, (N, n).
        atoms: First dictionary, (K, n), of any norms but zero.
        sparsity: Most atoms in a code; see ``omp``.
        error: Norm of the residual at which a code is good enough; see ``omp``.
        steps: Rounds of coding and updating.
        batch: Examples drawn anew for every step; None takes all of them in each.
        rng: Source of the draws; needed with ``batch``.

    Raises:
        ShapeError: Examples and atoms do not fit.
        RangeError: No stopping rule was given, or a zero atom.

    Reference:
        Aharon, Elad and Bruckstein (2006); Rubinstein, Zibulevsky and Elad (2008) for the power iteration.
    """
    x, atoms = check_signals("ksvd", x, atoms)
    check_count("ksvd", "steps", steps)
    check_rng("ksvd", rng)
    if sparsity is None and error is None:
        raise RangeError(
            "ksvd",
            expected="sparsity or error",
            found="neither",
            remedy="Without a limit every dictionary codes every example.",
        )
    if batch is not None:
        check_count("ksvd", "batch", batch)
        if rng is None:
            raise RangeError(
                "ksvd",
                expected="rng with batch",
                found="rng=None",
                remedy="torch.Generator().manual_seed(0) makes one.",
            )
    with torch.no_grad():
        D = torch.nn.functional.normalize(atoms, dim=1)
        for _ in range(steps):
            part, goal = x, error
            if batch is not None and batch < x.shape[0]:
                assert rng is not None
                draw = torch.randperm(x.shape[0], generator=rng, device=rng.device)[:batch].to(x.device)
                part = x[draw]
                goal = error[draw] if isinstance(error, torch.Tensor) and error.ndim == 1 else error
            D = _update(part, D, omp(part, D, sparsity=sparsity, error=goal))
    return D


def _update(x: Tensor, atoms: Tensor, code: SparseCode) -> Tensor:
    """One sweep over the atoms, then the replacement of useless ones."""
    D = atoms.clone()
    entry = (code.values != 0).nonzero()
    values = code.values[entry[:, 0], entry[:, 1]]
    owner = code.support[entry[:, 0], entry[:, 1]]
    order = owner.argsort(stable=True)
    example, values = entry[order, 0], values[order]
    uses = torch.bincount(owner, minlength=D.shape[0])
    rest = x - code.decode(D)
    end = 0
    for k, n in enumerate(uses.tolist()):
        start, end = end, end + n
        if n == 0:
            continue
        rows, g = example[start:end], values[start:end]
        E = rest[rows] + g[:, None] * D[k]
        d = g @ E
        size = d.norm()
        # E may be orthogonal to g only where nothing is left to fit; the atom then stays.
        d = torch.where(size > 0, d / size.clamp_min(torch.finfo(d.dtype).tiny), D[k])
        D[k] = d
        rest[rows] = E - (E @ d)[:, None] * d
    return _replace(D, uses, rest, x)


def _replace(D: Tensor, uses: Tensor, rest: Tensor, x: Tensor) -> Tensor:
    alike = (D @ D.T).abs().triu(1) > _ALIKE
    # Of two that are alike the one with the higher number goes.
    useless = ((uses <= _SELDOM) | alike.any(0)).nonzero()[:, 0]
    worst = rest.square().sum(1).topk(min(useless.numel(), x.shape[0])).indices
    fresh = x[worst]
    size = fresh.norm(dim=1, keepdim=True)
    new = torch.where(
        size > 0, fresh / size.clamp_min(torch.finfo(D.dtype).tiny), D[useless[: worst.numel()]]
    )
    D[useless[: worst.numel()]] = new
    return D
