"""Orthonormal periodised wavelet transform in two dimensions, for every image size."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from importlib import resources
from operator import index
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch

from invrestore._checks import check_count, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import DTypeError, ShapeError, UnknownNameError
from invrestore.operators._base import DataStep, LinearOperator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["WaveletTransform", "approximation_shape", "map_details", "shift_offsets", "wavelet_names"]

P = ParamSpec("P")
R = TypeVar("R")

# Axes up to this length are transformed by one dense matrix: below it, the product costs no more than the
# banded one with its periodic padding.
_DENSE_UP_TO = 128


def _constant_when_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Tell ``torch.compile`` to run ``function`` while tracing and keep its result.

    What ``torch.compiler.assume_constant_result`` does, which would load the whole compiler at import.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@functools.lru_cache(maxsize=1)
def _catalogue() -> dict[str, Array]:
    with (
        resources.files("invrestore.operators").joinpath("_wavelet_filters.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as stored,
    ):
        return {name: np.asarray(stored[name], dtype=np.float64) for name in stored.files}


def wavelet_names() -> tuple[str, ...]:
    """Names of the orthogonal wavelets, as PyWavelets spells them.

    Example:
        >>> len(wavelet_names()), "sym8" in wavelet_names()
        (76, True)
    """
    return tuple(_catalogue())


def check_wavelet(where: str, wavelet: object) -> None:
    """Raise unless ``wavelet`` is one of ``wavelet_names()``."""
    if not isinstance(wavelet, str):
        raise DTypeError(
            where, expected="wavelet as a name", found=type(wavelet).__name__, remedy="For example 'db4'."
        )
    if wavelet not in _catalogue():
        raise UnknownNameError.suggest(where, "wavelet", wavelet, wavelet_names())


def _filters(wavelet: str) -> tuple[Array, Array]:
    """Low-pass filter h and high-pass g[n] = (-1)^n h[L-1-n], PyWavelets' ``rec_lo`` and ``rec_hi``."""
    h = _catalogue()[wavelet]
    return h, np.where(np.arange(len(h)) % 2 == 0, 1.0, -1.0) * h[::-1]


def _even_matrix(wavelet: str, n: int) -> Array:
    """Orthogonal matrix of one level on ``n`` (even) periodic samples.

    Row 2k is low-pass function k, row 2k + 1 high-pass function k. The phase is that of PyWavelets' mode
    "periodization". A filter longer than ``n`` wraps, which keeps the rows orthonormal.
    """
    h, g = _filters(wavelet)
    matrix = np.zeros((n, n))
    for k in range(n // 2):
        columns = (2 * k + np.arange(len(h)) - (len(h) // 2 - 1)) % n
        np.add.at(matrix[2 * k], columns, h)
        np.add.at(matrix[2 * k + 1], columns, g)
    return matrix


def _low_pass_slots(before: int, after: int) -> NDArray[np.bool_]:
    return np.concatenate([np.arange(before) % 2 == 0, [True], np.arange(after) % 2 == 0])


def _seam(wavelet: str, n: int) -> tuple[int, int, Array]:
    """What makes one level orthonormal on an odd number ``n`` of samples.

    The first n - 1 samples take the even transform and the last one, e, is appended. The basis functions
    that reach across the end of those n - 1 samples, together with e, span a small space; an orthogonal
    matrix turns that space so that its high-pass part annihilates cubic polynomials running through the seam
    (fewer where the space is smaller; beyond them, the roughest functions are taken) and so that each basis
    function moves as little as possible. A reflection then spreads the sum of a constant image evenly over
    the low-pass functions there and four neighbours on each side; e alone would hold 1 between entries of
    sqrt(2), an edge that the next level would see. The other functions are unaffected.

    Returns:
        Interleaved positions taken before e at the end, positions taken at the start, and the matrix for
        (end, e, start). It is the same for every large n.
    """
    size = n - 1
    half = len(_catalogue()[wavelet]) // 2
    across = [k for k in range(size // 2) if 2 * k < half - 1 or 2 * k + half > size - 1]
    head = [k for k in across if 2 * k < half - 1 and k < (size // 2 + 1) // 2]
    tail = [k for k in across if k not in set(head)]
    before, after = 2 * len(tail), 2 * len(head)

    basis = np.zeros((n, n))
    basis[:size, :size] = _even_matrix(wavelet, size)
    basis[size, size] = 1.0
    rows = basis[[*range(size - before, n), *range(after)]]

    low = _low_pass_slots(before, after)
    count = int(low.sum())
    # Position on the circle, from the seam; exact integers near it, so that polynomials run straight through.
    position = (np.arange(n) + 1 + n // 2) % n - n // 2
    smooth = np.polynomial.legendre.legvander(position / (2.0 * max(half, 1)), min(count, 4) - 1)
    full, _ = np.linalg.qr(rows @ smooth, mode="complete")
    fixed, free = full[:, : smooth.shape[1]], full[:, smooth.shape[1] :]
    curvature = free.T @ (2 * rows - np.roll(rows, 1, axis=1) - np.roll(rows, -1, axis=1))
    _, vectors = np.linalg.eigh(curvature @ curvature.T)
    free = free @ vectors
    rest = count - smooth.shape[1]
    spaces = np.concatenate([fixed, free[:, :rest]], axis=1), free[:, rest:]

    turn = np.zeros((len(rows), len(rows)))
    for chosen, space in zip((low, ~low), spaces, strict=True):
        u, _, vt = np.linalg.svd(space[chosen], full_matrices=False)
        turn[chosen] = (space @ vt.T @ u.T).T

    more_tail = min(4, size // 2 - len(across))
    more_head = min(4, size // 2 - len(across) - more_tail)
    wide = np.eye(2 * more_tail + len(rows) + 2 * more_head)
    wide[2 * more_tail : 2 * more_tail + len(rows), 2 * more_tail : 2 * more_tail + len(rows)] = turn
    before, after = before + 2 * more_tail, after + 2 * more_head
    low = _low_pass_slots(before, after)
    means = (wide @ basis[[*range(size - before, n), *range(after)]]).sum(1)[low]
    normal = means - np.linalg.norm(means) / math.sqrt(len(means))
    if normal @ normal > 1e-20:
        wide[low] -= 2 / (normal @ normal) * np.outer(normal, normal @ wide[low])
    return before, after, wide


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One level along one axis of length ``n``, as matrices in the dtype and on the device of the images.

    Attributes:
        n: Length of the axis.
        dense: The whole matrix, for short axes.
        blocks: Otherwise (matrix, start) for analysis and for synthesis: output samples [jb, jb + b) are
            matrix @ input[jb + start : jb + start + matrix.shape[1]], with periodic input.
        seam: For odd lengths, the answer of ``_seam``.
    """

    n: int
    dense: Tensor | None
    blocks: tuple[tuple[Tensor, int], tuple[Tensor, int]] | None
    seam: tuple[int, int, Tensor] | None


def _block_matrices(wavelet: str) -> tuple[tuple[Array, int], tuple[Array, int]]:
    filters = _filters(wavelet)
    taps = len(filters[0])
    half = taps // 2
    b = 32 if taps <= 32 else 64
    analysis = np.zeros((b, b + taps - 2))
    for row in range(b):
        k = row // 2
        analysis[row, 2 * k : 2 * k + taps] = filters[row % 2]
    # Sample i is reached by the functions with i - half <= 2k <= i + half - 1.
    start = -2 * (half // 2)
    stop = 2 * ((b + half - 2) // 2) + 2
    synthesis = np.zeros((b, stop - start))
    for i in range(b):
        for c in range(stop - start):
            tap = i - (start + c - c % 2) + half - 1
            if 0 <= tap < taps:
                synthesis[i, c] = filters[c % 2][tap]
    return (analysis, 1 - half), (synthesis, start)


@_constant_when_compiled
def _axis(wavelet: str, n: int, dtype: torch.dtype, device: torch.device) -> _Axis:
    return _make_axis(wavelet, n, dtype, device)


@functools.lru_cache(maxsize=512)
def _make_axis(wavelet: str, n: int, dtype: torch.dtype, device: torch.device) -> _Axis:
    def tensor(array: Array) -> Tensor:
        # A constant first made under inference_mode must still serve a later call that differentiates.
        with torch.inference_mode(False):
            return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

    odd = n % 2 == 1
    taps = len(_catalogue()[wavelet])
    if n <= max(_DENSE_UP_TO, 2 * taps + 2):
        if not odd:
            return _Axis(n, tensor(_even_matrix(wavelet, n)), None, None)
        before, after, turn = _seam(wavelet, n)
        matrix = np.zeros((n, n))
        matrix[: n - 1, : n - 1] = _even_matrix(wavelet, n - 1)
        matrix[n - 1, n - 1] = 1.0
        places = [*range(n - 1 - before, n), *range(after)]
        matrix[places] = turn @ matrix[places]
        return _Axis(n, tensor(matrix), None, None)
    (analysis, first), (synthesis, second) = _block_matrices(wavelet)
    blocks = (tensor(analysis), first), (tensor(synthesis), second)
    if not odd:
        return _Axis(n, None, blocks, None)
    # The seam of a shorter odd axis is the same and costs less to compute.
    before, after, turn = _seam(wavelet, min(n, 4 * taps + 129))
    return _Axis(n, None, blocks, (before, after, tensor(turn)))


def _banded(x: Tensor, matrix: Tensor, start: int, length: int) -> Tensor:
    """``length`` output samples along the last axis of the periodic ``x``; the axes come back swapped."""
    b, width = matrix.shape
    n = x.shape[-1]
    count = -(-length // b)
    right = (count - 1) * b + start + width - n
    padded = torch.cat([x[..., n + start :], x, x[..., :right]], dim=-1)
    windows = padded.unfold(-1, width, b).permute(0, 2, 3, 1)
    return torch.matmul(matrix, windows).flatten(1, 2)[:, :length]


def _analyse_axis(x: Tensor, axis: _Axis) -> Tensor:
    """One level along the last axis of (N, A, n); returns (N, n, A), low and high pass interleaved."""
    if axis.blocks is None:
        assert axis.dense is not None
        return torch.matmul(axis.dense, x.mT)
    matrix, start = axis.blocks[0]
    if axis.seam is None:
        return _banded(x, matrix, start, axis.n)
    before, after, turn = axis.seam
    y = _banded(x[..., :-1], matrix, start, axis.n)
    ends = torch.cat([y[:, -1 - before : -1], x[..., -1:].mT, y[:, :after]], dim=1)
    ends = torch.matmul(turn, ends)
    y[:, -1 - before :] = ends[:, : before + 1]
    y[:, :after] = ends[:, before + 1 :]
    return y


def _synthesise_axis(y: Tensor, axis: _Axis) -> Tensor:
    """The transpose, and so the inverse, of ``_analyse_axis``; it swaps the axes, too."""
    if axis.blocks is None:
        assert axis.dense is not None
        return torch.matmul(axis.dense.mT, y.mT)
    matrix, start = axis.blocks[1]
    if axis.seam is None:
        return _banded(y, matrix, start, axis.n)
    before, after, turn = axis.seam
    ends = torch.matmul(torch.cat([y[..., -1 - before :], y[..., :after]], dim=-1), turn)
    inner = torch.cat([ends[..., before + 1 :], y[..., after : -1 - before], ends[..., :before]], dim=-1)
    x = _banded(inner, matrix, start, axis.n)
    x[:, -1:] = ends[..., before : before + 1].mT
    return x


def _analyse(x: Tensor, wavelet: str) -> Tensor:
    """One level of (N, H, W) along both axes, low and high pass interleaved on each."""
    for _ in range(2):
        n = index(x.shape[-1])  # a plain number: a compiler specialises on it
        x = x.mT if n == 1 else _analyse_axis(x, _axis(wavelet, n, x.dtype, x.device))
    return x


def _synthesise(y: Tensor, wavelet: str) -> Tensor:
    for _ in range(2):
        n = index(y.shape[-1])
        y = y.mT if n == 1 else _synthesise_axis(y, _axis(wavelet, n, y.dtype, y.device))
    return y


def _working(x: Tensor) -> Tensor:
    """``x`` as (B*C, H, W) in a type with enough digits for several levels."""
    x = x.flatten(0, 1)
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@_constant_when_compiled
def default_levels(wavelet: str, height: int, width: int) -> int:
    """Levels until the filter is longer than the shorter axis, at least 1 (PyWavelets' ``dwt_max_level``)."""
    sides = [n for n in (height, width) if n > 1]
    reach = max(len(_catalogue()[wavelet]) - 1, 1)
    return max(1, int(math.log2(min(sides) / reach))) if sides and min(sides) > reach else 1


def _depth(wavelet: str, levels: int | None, height: int, width: int) -> int:
    """Levels that do something: an axis of one pixel has nothing left to split."""
    height, width = index(height), index(width)
    wanted = default_levels(wavelet, height, width) if levels is None else levels
    return min(wanted, (max(height, width) - 1).bit_length())


def approximation_shape(wavelet: str, levels: int | None, height: int, width: int) -> tuple[int, int]:
    """Size of the approximation, which sits at the top left of the transform."""
    for _ in range(_depth(wavelet, levels, height, width)):
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def map_details(x: Tensor, wavelet: str, levels: int | None, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Inverse transform of ``change`` applied to the detail coefficients; the approximation is kept.

    Args:
        x: (B, C, H, W).
        wavelet: One of ``wavelet_names()``.
        levels: Depth, or None for ``default_levels``.
        change: Acts on each coefficient by itself; gets (B, C, h, w) and returns a new tensor of that shape.

    Returns:
        Shape and type of ``x``.
    """
    batch = x.shape[:2]

    def level(image: Tensor, left: int) -> Tensor:
        if left == 0:
            return image
        coefficients = _analyse(image, wavelet)
        # The approximation is changed along with the rest, because one pass over contiguous memory costs less
        # than three over strided parts, and then overwritten.
        changed = change(coefficients.reshape(*batch, *coefficients.shape[1:])).flatten(0, 1)
        changed[:, ::2, ::2] = level(coefficients[:, ::2, ::2], left - 1)
        return _synthesise(changed, wavelet)

    depth = _depth(wavelet, levels, *x.shape[-2:])
    return level(_working(x), depth).reshape(x.shape).to(x.dtype)


def shift_offsets(shifts: int) -> Iterator[tuple[int, int]]:
    """The first ``shifts`` offsets (rows, columns) of cycle spinning.

    The first 4 are all that level 1 distinguishes, the first 16 all that level 2 does, and so on; within
    each, diagonal neighbours come first.

    Example:
        >>> list(shift_offsets(5))
        [(0, 0), (1, 1), (0, 1), (1, 0), (2, 2)]
    """
    for number in range(shifts):
        rows = columns = 0
        bit = 1
        while number:
            number, digit = divmod(number, 4)
            rows += bit * (0, 1, 0, 1)[digit]
            columns += bit * (0, 1, 1, 0)[digit]
            bit *= 2
        yield rows, columns


@dataclasses.dataclass(frozen=True, eq=False)
class WaveletTransform(LinearOperator):
    """``A x = (W S_1 x, ..., W S_k x) / sqrt(k)``: orthonormal wavelet transform W of k shifted copies.

    W is the periodised separable transform of PyWavelets (mode "periodization") in Mallat's layout: the
    approximation at the top left, details around it, coarse to fine. With one shift the operator is
    orthogonal, and the adjoint is the inverse; with more it is a Parseval frame, and the adjoint is a left
    inverse. The cost is linear in the pixels.

    Every size is exact. Filters longer than the image wrap around it. An axis of odd length n gives
    (n + 1) / 2 low-pass and (n - 1) / 2 high-pass coefficients; the few basis functions at its end are turned
    into orthonormal ones whose high-pass part annihilates cubic polynomials (or as many as their number
    allows). An axis of one pixel is left alone. On odd sizes PyWavelets repeats the last sample, which gives
    one coefficient more, is not orthogonal, and so differs.

    Args:
        wavelet: One of ``wavelet_names()``: "haar", "db1" to "db38", "sym2" to "sym20", "coif1" to
            "coif17", "dmey". The published "sym" filters are orthonormal to 1e-11 and are polished here to
            1e-16 (changes below 1e-9); "dmey", a truncation that is orthonormal to 2e-3 only, is replaced by
            the orthonormal filter next to it, which differs by up to 8e-4.
        levels: Depth >= 1; None takes as many as PyWavelets does, until the filter is longer than the shorter
            axis. Levels below one pixel have no effect.
        shifts: Number k >= 1 of shifted copies, all circular; see ``shift_offsets``.

    Shapes:
        x: (B, C, H, W), real or complex. Returns (B, C, H, W) if ``shifts`` is 1, else (B, k, C, H, W).

    Raises:
        UnknownNameError: ``wavelet`` is no orthogonal wavelet.
        RangeError: ``levels`` or ``shifts`` is less than 1.

    Example:
        >>> x = torch.rand(1, 3, 17, 23, dtype=torch.float64)
        >>> W = WaveletTransform("sym8")
        >>> bool(torch.allclose(W.adjoint(W(x)), x, atol=1e-12))
        True

    Reference:
        Mallat (1989) for the transform; Coifman and Donoho (1995) for the shifts. The treatment of odd
        lengths is in the spirit of Herley and Vetterli (1994), with our own choice of the boundary functions.
    """

    wavelet: str = "db4"
    levels: int | None = dataclasses.field(default=None, kw_only=True)
    shifts: int = dataclasses.field(default=1, kw_only=True)

    image_range = False

    def __post_init__(self) -> None:
        check_wavelet(self.name, self.wavelet)
        if self.levels is not None:
            check_count(self.name, "levels", self.levels)
        check_count(self.name, "shifts", self.shifts)

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """The image's shape, with an axis for the shifts in front if there are several."""
        return input_shape if self.shifts == 1 else (self.shifts, *input_shape)

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """The last three numbers."""
        return output_shape[-3:]

    def _check_output(self, y: object, where: str) -> Tensor:
        y = super()._check_output(y, where)
        fits = y.ndim == 4 if self.shifts == 1 else y.ndim == 5 and y.shape[1] == self.shifts
        if not fits:
            expected = "(B, C, H, W)" if self.shifts == 1 else f"(B, {self.shifts}, C, H, W)"
            raise ShapeError(where, expected=f"y of shape {expected}", found=str(tuple(y.shape)))
        return y

    def _forward(self, x: Tensor) -> Tensor:
        def level(image: Tensor, left: int) -> Tensor:
            if left == 0:
                return image
            c = _analyse(image, self.wavelet)
            top = torch.cat([level(c[:, ::2, ::2], left - 1), c[:, ::2, 1::2]], dim=-1)
            return torch.cat([top, torch.cat([c[:, 1::2, ::2], c[:, 1::2, 1::2]], dim=-1)], dim=-2)

        depth = _depth(self.wavelet, self.levels, *x.shape[-2:])
        return level(_working(x), depth).reshape(x.shape).to(x.dtype)

    def _inverse(self, y: Tensor) -> Tensor:
        def level(q: Tensor, left: int) -> Tensor:
            if left == 0:
                return q
            rows, columns = -(-q.shape[-2] // 2), -(-q.shape[-1] // 2)
            c = torch.empty_like(q)
            c[:, ::2, ::2] = level(q[:, :rows, :columns], left - 1)
            c[:, ::2, 1::2] = q[:, :rows, columns:]
            c[:, 1::2, ::2] = q[:, rows:, :columns]
            c[:, 1::2, 1::2] = q[:, rows:, columns:]
            return _synthesise(c, self.wavelet)

        depth = _depth(self.wavelet, self.levels, *y.shape[-2:])
        return level(_working(y), depth).reshape(y.shape).to(y.dtype)

    def _apply(self, x: Tensor) -> Tensor:
        if self.shifts == 1:
            return self._forward(x)
        copies = [self._forward(torch.roll(x, offset, (-2, -1))) for offset in shift_offsets(self.shifts)]
        return torch.stack(copies, dim=1) / math.sqrt(self.shifts)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.shifts == 1:
            return self._inverse(y)
        total: Any = 0
        for j, (rows, columns) in enumerate(shift_offsets(self.shifts)):
            total = total + torch.roll(self._inverse(y[:, j]), (-rows, -columns), (-2, -1))
        average: Tensor = total / math.sqrt(self.shifts)
        return average

    def split(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Detail coefficients of ``q = A x`` in two views: below the approximation, and right of it."""
        rows, columns = approximation_shape(self.wavelet, self.levels, *q.shape[-2:])
        return q[..., rows:, :], q[..., :rows, columns:]

    def gram(self, x: Tensor) -> Tensor:
        """``x``."""
        return self._check_input(x, f"{self.name}.gram")

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """1."""
        return torch.ones(())

    def data_step(self, y: Tensor) -> DataStep:
        """``(z + step A^H y) / (1 + step)``."""
        back = self.adjoint(y)

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            s = expand(step, z)
            return (z + s * back) / (1 + s)

        return step_from

    def pinv(self, y: Tensor) -> Tensor:
        """``A^H y``."""
        return self.adjoint(y)
