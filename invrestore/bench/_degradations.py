"""The degradations that suites are made of: each turns clean images and seeds into a problem."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from invrestore import corruptions
from invrestore._types import Tensor
from invrestore.bench._types import Degradation, Kind, Problem
from invrestore.errors import ImageFileError
from invrestore.operators import (
    JPEG,
    Blur,
    Downsample,
    Grayscale,
    Identity,
    Mask,
    Operator,
    Quantize,
    SparseSampling,
)

__all__ = [
    "Clutter",
    "ColoredPixels",
    "Compressed",
    "Gray",
    "Hole",
    "Levels",
    "LevinBlur",
    "Noisy",
    "Reduced",
    "Sparse",
    "set_data_folder",
]

_data: list[Path] = []


def set_data_folder(folder: Path) -> None:
    """Tell where blur kernels are read from."""
    _data[:] = [folder]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _add_noise(x: Tensor, sigma: float, seeds: Sequence[int]) -> Tensor:
    if sigma == 0:
        return x
    noise = [torch.randn(image.shape, generator=_generator(s)) for image, s in zip(x, seeds, strict=True)]
    return x + sigma * torch.stack(noise)


def _problem(
    kind: Kind, operator: Operator | None, y: Tensor, view: Tensor, seeds: Sequence[int], sigma: float = 0.0
) -> Problem:
    return Problem(kind, y, operator, sigma, view.clamp(0, 1), tuple(seeds))


@dataclasses.dataclass(frozen=True)
class Noisy(Degradation):
    """White Gaussian noise, not clipped.

    Attributes:
        sigma: Standard deviation in units of the image range.
    """

    kind: ClassVar[Kind] = "noise"
    sigma: float

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        y = _add_noise(x, self.sigma, seeds)
        return _problem(self.kind, Identity(), y, y, seeds, self.sigma)


@dataclasses.dataclass(frozen=True)
class Hole(Degradation):
    """A centred square without values.

    Attributes:
        size: Side in pixels.
        fill: How a person sees the hole; the measurement is 0 there.
    """

    kind: ClassVar[Kind] = "mask"
    size: int
    fill: float = 0.0

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        damage = corruptions.MissingBlock(self.size, fill=self.fill)
        view, info = damage(x, _generator(0))
        operator = Mask(~info["mask"][:1])
        return _problem(self.kind, operator, operator(x), view, seeds)


@dataclasses.dataclass(frozen=True)
class Sparse(Degradation):
    """Only some pixels are known, the others are white to a person.

    Attributes:
        keep: Fraction of known pixels.
        guided: Choose them by the Sobel gradient of the image, not uniformly.
    """

    kind: ClassVar[Kind] = "mask"
    keep: float
    guided: bool = False

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        shape = tuple(x.shape[1:])
        masks = [
            SparseSampling(
                shape, keep=self.keep, guide=image[None] if self.guided else None, rng=_generator(seed)
            ).mask
            for image, seed in zip(x, seeds, strict=True)
        ]
        operator = Mask(torch.cat(masks))
        return _problem(self.kind, operator, operator(x), x.masked_fill(~operator.mask, 1.0), seeds)


@dataclasses.dataclass(frozen=True)
class LevinBlur(Degradation):
    """One of the eight kernels of Levin et al. (2009), circular borders, then white Gaussian noise.

    Attributes:
        kernel: 1 to 8.
        sigma: Standard deviation of the noise.
    """

    kind: ClassVar[Kind] = "blur"
    kernel: int
    sigma: float

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        operator = Blur(_levin(_data[0], self.kernel), padding="circular")
        y = _add_noise(operator(x), self.sigma, seeds)
        return _problem(self.kind, operator, y, y, seeds, self.sigma)


@functools.lru_cache(maxsize=8)
def _levin(data: Path, number: int) -> Tensor:
    path = data / "kernels" / "levin09.npz"
    try:
        with np.load(path) as kernels:
            return torch.from_numpy(kernels[f"levin{number}"])[None, None]
    except (OSError, KeyError, ValueError) as error:
        raise ImageFileError(
            "bench",
            expected="kernels/levin09.npz in the data folder, with levin1 to levin8",
            found=str(error),
        ) from error


@dataclasses.dataclass(frozen=True)
class Reduced(Degradation):
    """Bicubic reduction with antialiasing, as MATLAB's imresize.

    Attributes:
        factor: Whole number; image sides must be multiples of it.
        sigma: Standard deviation of the noise added afterwards.
    """

    kind: ClassVar[Kind] = "downsample"
    factor: int
    sigma: float = 0.0

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        operator = Downsample(self.factor)
        y = _add_noise(operator(x), self.sigma, seeds)
        view = y.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return _problem(self.kind, operator, y, view, seeds, self.sigma)


@dataclasses.dataclass(frozen=True)
class Gray(Degradation):
    """Luma instead of colour."""

    kind: ClassVar[Kind] = "grayscale"

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        operator = Grayscale()
        y = operator(x)
        return _problem(self.kind, operator, y, y.expand(-1, 3, -1, -1), seeds)


@dataclasses.dataclass(frozen=True)
class Levels(Degradation):
    """Rounding to a few values for each channel.

    Attributes:
        count: Number of values.
    """

    kind: ClassVar[Kind] = "quantize"
    count: int

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        operator = Quantize(self.count)
        y = operator(x)
        return _problem(self.kind, operator, y, y, seeds)


@dataclasses.dataclass(frozen=True)
class Compressed(Degradation):
    """JPEG with halved chroma, as libjpeg's tables have it.

    Attributes:
        quality: 1 to 100.
    """

    kind: ClassVar[Kind] = "jpeg"
    quality: int

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        operator = JPEG(self.quality)
        y = operator(x)
        return _problem(self.kind, operator, y, y, seeds)


@dataclasses.dataclass(frozen=True)
class ColoredPixels(Degradation):
    """Random colours on most pixels; which ones, nobody says.

    Attributes:
        amount: Fraction of hit pixels.
    """

    kind: ClassVar[Kind] = "colornoise"
    amount: float

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        damage = corruptions.ColorNoise(self.amount)
        y = torch.cat(
            [damage(image[None], _generator(seed))[0] for image, seed in zip(x, seeds, strict=True)]
        )
        return _problem(self.kind, None, y, y, seeds)


@dataclasses.dataclass(frozen=True)
class Clutter(Degradation):
    """A square of another picture laid over the image; methods are told where, which flatters those that need it.

    Attributes:
        smallest: Least side in pixels.
        largest: Greatest side in pixels.
    """

    kind: ClassVar[Kind] = "clutter"
    smallest: int
    largest: int

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Make the problem."""
        damage = corruptions.ClutteredBlock((self.smallest, self.largest), donors=_donors())
        views, known = [], []
        for image, seed in zip(x, seeds, strict=True):
            view, info = damage(image[None], _generator(seed))
            views.append(view)
            known.append(~info["mask"])
        operator = Mask(torch.cat(known))
        return _problem(self.kind, operator, operator(x), torch.cat(views), seeds)


@functools.lru_cache(maxsize=1)
def _donors() -> Tensor:
    """Bundled photos, cut to one size."""
    from invrestore import assets, io

    photos = [io.load_image(assets.photo(name)) for name in assets.PHOTOS]
    side = min(min(photo.shape[-2:]) for photo in photos)
    return torch.cat([photo[..., :side, :side] for photo in photos])
