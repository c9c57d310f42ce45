"""Blur kernels: (1, 1, kh, kw) tensors of sum 1 in torch's default type, for ``operators.Blur``.

The centre of a kernel of side n is its sample n // 2, as in ``Blur``, so that no kernel here moves the
picture.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invrestore._checks import check_count, check_nonnegative, check_rng
from invrestore._types import Tensor
from invrestore.errors import (
    DTypeError,
    ImageFileError,
    InvrestoreError,
    RangeError,
    ShapeError,
    UnknownNameError,
)

__all__ = ["box", "disk", "from_file", "gaussian", "motion"]


def _finish(kernel: Tensor) -> Tensor:
    """Float64 (kh, kw) to (1, 1, kh, kw) of sum 1 in the default type."""
    return (kernel / kernel.sum()).to(torch.get_default_dtype())[None, None]


def _sides(where: str, size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise DTypeError(where, expected="size as an int or a pair (kh, kw)", found=repr(size))
    return check_count(where, "size", pair[0]), check_count(where, "size", pair[1])


def gaussian(
    sigma: float | tuple[float, float], size: int | tuple[int, int] | None = None, *, angle: float = 0.0
) -> Tensor:
    """Gaussian blur, ``k[i, j] ~ exp(-d^T S^-1 d / 2)`` at the offsets d of the pixel centres.

    Args:
        sigma: Standard deviation in pixels, > 0, or a pair (vertical, horizontal) before turning.
        size: Side or sides of the kernel; default covers 4 standard deviations to each side, odd.
        angle: Turns the pair of deviations by this many radians counterclockwise.

    Raises:
        RangeError: A deviation is not positive and finite, or the angle not finite.

    Example:
        >>> gaussian(1.6).shape
        torch.Size([1, 1, 15, 15])
    """
    pair = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    if len(pair) != 2:
        raise ShapeError(
            "kernels.gaussian", expected="sigma as a number or a pair", found=f"{len(pair)} numbers"
        )
    for value in pair:
        check_nonnegative("kernels.gaussian", "sigma", value, positive=True)
    if not math.isfinite(angle):
        raise RangeError("kernels.gaussian", expected="a finite angle in radians", found=str(angle))
    tall, wide = (float(s) for s in pair)
    cos, sin = math.cos(angle), math.sin(angle)
    # Rows count downwards, so a counterclockwise turn of the axes has this sign.
    vertical = math.hypot(tall * cos, wide * sin)
    horizontal = math.hypot(tall * sin, wide * cos)
    if size is None:
        size = (2 * math.ceil(4 * vertical) + 1, 2 * math.ceil(4 * horizontal) + 1)
    kh, kw = _sides("kernels.gaussian", size)
    i = torch.arange(kh, dtype=torch.float64)[:, None] - kh // 2
    j = torch.arange(kw, dtype=torch.float64) - kw // 2
    across, along = (cos * i + sin * j) / tall, (cos * j - sin * i) / wide
    return _finish(torch.exp(-0.5 * (across**2 + along**2)))


def box(size: int | tuple[int, int]) -> Tensor:
    """Mean over ``size`` x ``size`` pixels (or a pair of sides), ``k = 1 / (kh kw)``.

    Raises:
        RangeError: A side is below 1.

    Example:
        >>> box(2)
        tensor([[[[0.2500, 0.2500],
                  [0.2500, 0.2500]]]])
    """
    return _finish(torch.ones(_sides("kernels.box", size), dtype=torch.float64))


def disk(radius: float) -> Tensor:
    """Defocus: the exact area that a disk of ``radius`` pixels about the centre covers of each pixel.

    Args:
        radius: In pixels, > 0; 0.5 and less cover one pixel only.

    Raises:
        RangeError: The radius is not positive and finite.

    Example:
        >>> disk(3.0).shape
        torch.Size([1, 1, 7, 7])
    """
    check_nonnegative("kernels.disk", "radius", radius, positive=True)
    r = float(radius)
    reach = max(math.ceil(r - 0.5), 0)
    edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
    x, y = edges.abs().clamp_max(r)[:, None], edges.abs().clamp_max(r)
    # Area of the disk inside [0, x] x [0, y]: full height y up to the arc, then the area under the arc.
    knee = torch.minimum(x, (r * r - y * y).clamp_min(0).sqrt())

    def under_arc(t: Tensor) -> Tensor:
        return 0.5 * (t * (r * r - t * t).clamp_min(0).sqrt() + r * r * torch.asin((t / r).clamp(-1, 1)))

    corner = knee * y + under_arc(x) - under_arc(knee)
    signed = corner * edges.sign()[:, None] * edges.sign()
    area = signed[1:, 1:] - signed[:-1, 1:] - signed[1:, :-1] + signed[:-1, :-1]
    return _finish(area.clamp_min(0))


def motion(size: int, rng: torch.Generator | None = None, *, shake: float = 0.4) -> Tensor:
    """Random camera shake: the time a point of the scene spends over each pixel during the exposure.

    The point starts in a random direction and keeps moving; its velocity is disturbed by white noise, pulled
    back towards the start of the path, and now and then reversed by a jerk. The path is scaled to fit the
    kernel and centred at its centre of mass, so that the blur moves the picture by less than half a pixel.

    Args:
        size: Side of the kernel, >= 1; the path spans most of it.
        rng: Source of randomness; None stands for ``torch.Generator().manual_seed(0)``, always the same path.
        shake: Strength of noise, pull and jerks in [0, 1]: 0 is a straight line, 1 a tangle.

    Raises:
        RangeError: ``size`` is below 1 or ``shake`` outside [0, 1].
        DTypeError: ``rng`` is not a torch.Generator.

    Example:
        >>> kernel = motion(15, torch.Generator().manual_seed(3))
        >>> kernel.shape, round(float(kernel.sum()), 4)
        (torch.Size([1, 1, 15, 15]), 1.0)

    Reference:
        After the trajectory model of Boracchi and Foi (2012), Modeling the performance of image restoration
        from motion blur; own constants, scaling and rasterisation.
    """
    check_count("kernels.motion", "size", size)
    check_nonnegative("kernels.motion", "shake", shake)
    if shake > 1:
        raise RangeError("kernels.motion", expected="shake in [0, 1]", found=str(shake))
    rng = check_rng("kernels.motion", rng) or torch.Generator().manual_seed(0)
    steps = 48 * max(size, 8)
    device = rng.device
    noise = torch.randn(steps, 2, generator=rng, device=device, dtype=torch.float64).cpu().numpy()
    chance = torch.rand(steps, 2, generator=rng, device=device, dtype=torch.float64).cpu().numpy()
    turn = 2 * math.pi * chance[0, 1]
    dt = 1.0 / steps
    velocity, position = complex(math.cos(turn), math.sin(turn)), 0j
    path = np.empty(steps, dtype=complex)
    for t in range(steps):
        path[t] = position
        position += velocity * dt
        velocity += shake * (complex(*noise[t]) * 3.0 * math.sqrt(dt) - 12.0 * position * dt)
        if chance[t, 0] < 3.0 * shake * dt:
            # A jerk: the hand snaps back, up to half a turn to either side.
            angle = math.pi * (1 + 0.5 * (2 * chance[t, 1] - 1))
            velocity *= complex(math.cos(angle), math.sin(angle)) * 1.5
        velocity /= max(abs(velocity), 1e-12)
    path -= path.mean()
    reach = max(np.abs(path.real).max(), np.abs(path.imag).max())
    path *= max((size - 1) // 2 - 0.5, 0.0) / reach
    rows, columns = path.imag + size // 2, path.real + size // 2
    kernel = np.zeros((size + 1, size + 1))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for di, wi in ((0, 1 - down), (1, down)):
        for dj, wj in ((0, 1 - right), (1, right)):
            np.add.at(kernel, (top + di, left + dj), wi * wj)
    return _finish(torch.from_numpy(kernel[:size, :size].copy()))


def _read_png(path: Path, key: str | None) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        gray = image if image.mode in ("L", "F", "I") or image.mode.startswith("I;16") else image.convert("L")
        return np.asarray(gray, dtype=np.float64)


def _read_npy(path: Path, key: str | None) -> Any:
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path, key: str | None) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
        if key is None and len(names) != 1:
            raise ShapeError(
                "kernels.from_file",
                expected="an archive of one array",
                found=f"{len(names)} arrays: {', '.join(names[:12])}",
                remedy="key= names the one to read.",
            )
        if key is not None and key not in names:
            raise UnknownNameError.suggest("kernels.from_file", "key", key, names)
        return archive[names[0] if key is None else key]


def _read_txt(path: Path, key: str | None) -> Any:
    return np.loadtxt(path, ndmin=2)


_READERS: dict[str, Callable[[Path, str | None], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".png": _read_png,
    ".tif": _read_png,
    ".tiff": _read_png,
    ".txt": _read_txt,
}


def from_file(path: str | os.PathLike[str], *, key: str | None = None) -> Tensor:
    """Kernel from a gray image, a numpy file or a table of numbers, divided by its sum.

    Args:
        path: .png or .tif (colour is turned gray), .npy, .npz, or .txt (rows of numbers).
        key: Name of the array in an .npz with several.

    Shapes:
        Returns: (1, 1, kh, kw), the orientation of the file: ``Blur`` flips it, as true convolution does.

    Raises:
        ImageFileError: The file is missing, of an unknown kind, or cannot be read.
        ShapeError: It holds no table of two axes, or several arrays and no ``key``.
        UnknownNameError: No array of that ``key``.
        RangeError: It holds numbers that are not finite, or sums to 0 or less.
    """
    where = "kernels.from_file"
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ImageFileError(where, expected=f"a file of kind {', '.join(_READERS)}", found=f"{path.name!r}")
    if not path.is_file():
        raise ImageFileError(where, expected="an existing file", found=str(path), remedy="Check the path.")
    try:
        values = np.asarray(reader(path, key), dtype=np.float64)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        if isinstance(error, InvrestoreError):
            raise
        raise ImageFileError(
            where, expected=f"a readable {path.suffix} file", found=f"{path}: {type(error).__name__}: {error}"
        ) from error
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.size == 0:
        raise ShapeError(
            where, expected="a kernel (kh, kw)", found=f"an array of shape {values.shape} in {path.name}"
        )
    if not np.isfinite(values).all():
        raise RangeError(where, expected="finite numbers", found=f"NaN or infinity in {path.name}")
    if values.sum() <= 1e-6 * np.abs(values).sum():
        raise RangeError(
            where,
            expected="a kernel with a positive sum",
            found=f"a sum of {values.sum():g} in {path.name}",
            remedy="A blur keeps the brightness; a file of zeros or an edge filter has none to keep.",
        )
    return _finish(torch.from_numpy(np.ascontiguousarray(values)))
