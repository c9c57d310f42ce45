"""Noise, and damage whose place a solver does not know.

Noise models (``Gaussian, Poisson, Uniform``) return the noisy tensor. Damages (``ColorNoise, ClutteredBlock,
SaltPepper, MissingBlock, RandomMask, RandomBlur, RandomNoise``) return ``(y, info)``: info holds what was
drawn, from which a user who does know builds the operator (``operators.Mask(info["known"])``,
``operators.Blur(info["kernel"])``).

All take ``(x, rng)`` with images (B, C, H, W) in [0, 1] and an explicit ``torch.Generator``. Images are
treated one after the other, so that the first images of a batch come out the same however many follow (a
cluttered block from the batch itself excepted). Numbers are drawn on the generator's device and moved to the
image's. Nothing is clamped.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from invrestore._checks import check_batch_tensor, check_choice, check_image, check_nonnegative, check_sigma
from invrestore._types import PerImage, Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError

__all__ = [
    "ClutteredBlock",
    "ColorNoise",
    "Corruption",
    "Gaussian",
    "MissingBlock",
    "Noise",
    "Poisson",
    "RandomBlur",
    "RandomMask",
    "RandomNoise",
    "SaltPepper",
    "Uniform",
]

Between: TypeAlias = float | tuple[float, float]
"""One number, or (lowest, highest): drawn uniformly for each image."""


def _check_call(where: str, x: object, rng: object) -> tuple[Tensor, torch.Generator]:
    if not isinstance(rng, torch.Generator):
        raise DTypeError(
            where,
            expected="rng as a torch.Generator",
            found=type(rng).__name__,
            remedy="torch.Generator().manual_seed(0) makes one; results then repeat.",
        )
    return check_image(where, x), rng


def _wide(x: Tensor) -> torch.dtype:
    """Type to draw random numbers in: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _uniform(size: Sequence[int], rng: torch.Generator, like: Tensor) -> Tensor:
    drawn = torch.rand(tuple(size), generator=rng, dtype=_wide(like), device=rng.device)
    return drawn.to(like.device)


def _normal(size: Sequence[int], rng: torch.Generator, like: Tensor) -> Tensor:
    drawn = torch.randn(tuple(size), generator=rng, dtype=_wide(like), device=rng.device)
    return drawn.to(like.device)


def _check_between(where: str, name: str, value: object, low: float, high: float) -> None:
    """Raise unless ``value`` is a number in [low, high] or a rising pair of such."""
    ends = value if isinstance(value, tuple) else (value, value)
    if len(ends) != 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in ends):
        raise DTypeError(where, expected=f"{name} as a number or a pair (lowest, highest)", found=repr(value))
    if not (low <= ends[0] <= ends[1] <= high and math.isfinite(ends[1])):
        raise RangeError(where, expected=f"{low:g} <= {name} <= {high:g}, lowest first", found=str(value))


def _draw_between(value: Between, rng: torch.Generator) -> float:
    if not isinstance(value, tuple):
        return float(value)
    low, high = value
    return low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64, device=rng.device))


def _draw_integer(low: int, high: int, rng: torch.Generator) -> int:
    """Uniform on low, ..., high."""
    return int(torch.randint(low, high + 1, (), generator=rng, device=rng.device))


def _some_pixels(fraction: float, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Boolean (height, width) with exactly ``round(fraction * height * width)`` True, on rng's device."""
    count = math.floor(fraction * height * width + 0.5)
    chosen = torch.randperm(height * width, generator=rng, device=rng.device)[:count]
    mask = torch.zeros(height * width, dtype=torch.bool, device=rng.device)
    mask[chosen] = True
    return mask.view(height, width)


@dataclasses.dataclass(frozen=True, eq=False)
class Noise(ABC):
    """Noise model: ``noise(x, rng)`` returns a noisy copy of ``x``."""

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """The noisy images.

        Raises:
            DTypeError: ``x`` is no floating-point tensor or ``rng`` no generator.
            ShapeError: ``x`` is not (B, C, H, W), or a per-image parameter has another length.
        """
        name = type(self).__name__
        x, rng = _check_call(name, x, rng)
        for field in dataclasses.fields(self):
            check_batch_tensor(name, field.name, getattr(self, field.name), x.shape[0])
        return torch.stack([self._one(image, i, rng).to(x.dtype) for i, image in enumerate(x)])

    @abstractmethod
    def _one(self, image: Tensor, index: int, rng: torch.Generator) -> Tensor:
        """One noisy image (C, H, W)."""


def _of_image(value: PerImage, index: int, like: Tensor) -> float | Tensor:
    """The parameter of one image."""
    if not isinstance(value, torch.Tensor):
        return value
    own = value if value.ndim == 0 else value[index if value.shape[0] > 1 else 0]
    return own.to(like.device)


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian(Noise):
    """``x + sigma n`` with n standard normal.

    Args:
        sigma: Standard deviation in units of the image range, in [0, 1]; a number or (B,).

    Raises:
        RangeError: ``sigma`` is outside [0, 1].

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> bool((Gaussian(0.1)(torch.zeros(1, 1, 64, 64), rng).std() - 0.1).abs() < 0.005)
        True
    """

    sigma: PerImage

    def __post_init__(self) -> None:
        check_sigma("Gaussian", self.sigma)

    def _one(self, image: Tensor, index: int, rng: torch.Generator) -> Tensor:
        return image + _of_image(self.sigma, index, image) * _normal(image.shape, rng, image)


@dataclasses.dataclass(frozen=True, eq=False)
class Poisson(Noise):
    """``k / gain`` with k Poisson of mean ``gain x``: photon noise, of variance x / gain.

    No gradient flows through the counts.

    Args:
        gain: Counts per unit of the image range, > 0; a number or (B,). 255 is mild, 10 is strong.

    Raises:
        RangeError: ``gain`` is not positive, or an image has negative values.
    """

    gain: PerImage

    def __post_init__(self) -> None:
        check_nonnegative("Poisson", "gain", self.gain, positive=True)

    def _one(self, image: Tensor, index: int, rng: torch.Generator) -> Tensor:
        image = image.detach()
        if bool((image < 0).any()):
            raise RangeError(
                "Poisson",
                expected="images >= 0",
                found=f"{float(image.min()):g} in image {index}",
                remedy="x.clamp_min(0)?",
            )
        gain = _of_image(self.gain, index, image)
        counts = torch.poisson((gain * image).to(rng.device, _wide(image)), generator=rng)
        return counts.to(image.device) / gain


@dataclasses.dataclass(frozen=True, eq=False)
class Uniform(Noise):
    """``x + n`` with n uniform on (-width/2, width/2): standard deviation width / sqrt(12).

    Args:
        width: Full width in units of the image range, >= 0; a number or (B,).

    Raises:
        RangeError: ``width`` is negative or not finite.
    """

    width: PerImage

    def __post_init__(self) -> None:
        check_nonnegative("Uniform", "width", self.width)

    def _one(self, image: Tensor, index: int, rng: torch.Generator) -> Tensor:
        return image + _of_image(self.width, index, image) * (_uniform(image.shape, rng, image) - 0.5)


@dataclasses.dataclass(frozen=True, eq=False)
class Corruption(ABC):
    """Damage: ``damage(x, rng)`` returns ``(y, info)``.

    ``info`` maps names to tensors with one entry for each image. Where damage has a place, ``info["mask"]``
    is True on damaged samples and ``info["known"]`` is its opposite, ready for ``operators.Mask``.
    """

    def __call__(self, x: Tensor, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The damaged images, and what was done to each.

        Raises:
            DTypeError: ``x`` is no floating-point tensor or ``rng`` no generator.
            ShapeError: ``x`` is not (B, C, H, W).
        """
        x, rng = _check_call(type(self).__name__, x, rng)
        self._check_images(x)
        results = [self._one(x, i, rng) for i in range(x.shape[0])]
        y = torch.stack([image.to(x.dtype) for image, _ in results])
        info = {
            key: torch.stack([torch.as_tensor(one[key], device=x.device) for _, one in results])
            for key in results[0][1]
        }
        if "mask" in info:
            info["known"] = ~info["mask"]
        return y, info

    def _check_images(self, x: Tensor) -> None:
        """Raise if the damage cannot be done to images of this shape."""
        return

    @abstractmethod
    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Image ``x[index]`` damaged, and what was drawn for it."""


@dataclasses.dataclass(frozen=True, eq=False)
class ColorNoise(Corruption):
    """Pixels replaced by random colours, uniform in [0, 1] in each channel.

    Args:
        amount: Fraction of pixels, exact to rounding, in [0, 1], or a range to draw it from for each image;
            0.8 to 0.95 is typical.

    Shapes:
        info: mask, known (B, 1, H, W); amount (B,).

    Raises:
        RangeError: ``amount`` is outside [0, 1].

    Example:
        >>> y, info = ColorNoise(0.9)(torch.zeros(1, 3, 10, 10), torch.Generator().manual_seed(0))
        >>> int(info["mask"].sum())
        90
    """

    amount: Between

    def __post_init__(self) -> None:
        _check_between("ColorNoise", "amount", self.amount, 0, 1)

    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        image = x[index]
        amount = _draw_between(self.amount, rng)
        mask = _some_pixels(amount, image.shape[1], image.shape[2], rng).to(x.device)[None]
        colours = _uniform(image.shape, rng, image).to(image.dtype)
        return torch.where(mask, colours, image), {"mask": mask, "amount": amount}


@dataclasses.dataclass(frozen=True, eq=False)
class SaltPepper(Corruption):
    """Samples set to 1 (salt) or 0 (pepper).

    Args:
        amount: Fraction of pixels hit, exact to rounding, in [0, 1], or a range to draw it from.
        salt: Probability that a hit pixel turns 1 rather than 0, in [0, 1].
        per_channel: Hit every channel on its own instead of whole pixels.

    Shapes:
        info: mask, known (B, 1, H, W), or (B, C, H, W) per channel; amount (B,).

    Raises:
        RangeError: ``amount`` or ``salt`` is outside [0, 1].
    """

    amount: Between
    salt: float = dataclasses.field(default=0.5, kw_only=True)
    per_channel: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_between("SaltPepper", "amount", self.amount, 0, 1)
        _check_between("SaltPepper", "salt", (self.salt, self.salt), 0, 1)

    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        image = x[index]
        height, width = image.shape[1:]
        amount = _draw_between(self.amount, rng)
        planes = image.shape[0] if self.per_channel else 1
        # One plane of planes*height rows makes the number of hits exact over all channels.
        mask = _some_pixels(amount, planes * height, width, rng).view(planes, height, width).to(x.device)
        value = (_uniform(mask.shape, rng, image) < self.salt).to(image.dtype)
        return torch.where(mask, value, image), {"mask": mask, "amount": amount}


def _check_block_sizes(where: str, size: object) -> tuple[int, int]:
    ends = size if isinstance(size, tuple) else (size, size)
    if len(ends) != 2 or any(isinstance(n, bool) or not isinstance(n, int) for n in ends):
        raise DTypeError(
            where, expected="size as a whole number or a pair (smallest, largest)", found=repr(size)
        )
    if not 1 <= ends[0] <= ends[1]:
        raise RangeError(where, expected="1 <= smallest <= largest size", found=str(size))
    return ends


def _check_block_fits(where: str, largest: int, x: Tensor, what: str = "image") -> None:
    if largest > min(x.shape[-2:]):
        raise RangeError(
            where,
            expected=f"blocks no larger than the {what}, {x.shape[-2]}x{x.shape[-1]}",
            found=f"{largest}",
            remedy=f"size=({max(1, min(x.shape[-2:]) // 8)}, {max(1, min(x.shape[-2:]) // 2)})?",
        )


def _block_mask(x: Tensor, top: int, left: int, size: int) -> Tensor:
    mask = torch.zeros(1, *x.shape[-2:], dtype=torch.bool, device=x.device)
    mask[:, top : top + size, left : left + size] = True
    return mask


@dataclasses.dataclass(frozen=True, eq=False)
class ClutteredBlock(Corruption):
    """A square block overwritten by a crop of another image: damage that looks like image.

    Side, place, donor and place of the crop are drawn uniformly for each image.

    Args:
        size: Side of the block in pixels, or (smallest, largest). 16 to 128 is typical on 256x256.
        donors: Images (N, C, h, w) to cut from. None: another image of the batch, which then needs two.

    Shapes:
        info: mask, known (B, 1, H, W); size, top, left, donor, donor_top, donor_left (B,); donor is an index
        into ``donors`` or the batch.

    Raises:
        RangeError: ``size`` is below 1, or above that of images or donors; or one image and no donors.
        ShapeError: The donors have another number of channels.
    """

    size: int | tuple[int, int] = (16, 128)
    donors: Tensor | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_block_sizes("ClutteredBlock", self.size)
        if self.donors is not None:
            check_image("ClutteredBlock", self.donors, "donors")

    def _check_images(self, x: Tensor) -> None:
        where, largest = "ClutteredBlock", _check_block_sizes("ClutteredBlock", self.size)[1]
        _check_block_fits(where, largest, x)
        if self.donors is None:
            if x.shape[0] < 2:
                raise RangeError(
                    where,
                    expected="two images in the batch, or donors",
                    found="one image",
                    remedy="ClutteredBlock(size, donors=images) gives it something to cut from.",
                )
            return
        _check_block_fits(where, largest, self.donors, "donor images")
        if self.donors.shape[1] != x.shape[1]:
            raise ShapeError(
                where, expected=f"donors with {x.shape[1]} channels", found=str(tuple(self.donors.shape))
            )

    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        low, high = _check_block_sizes("ClutteredBlock", self.size)
        size = _draw_integer(low, high, rng)
        height, width = x.shape[-2:]
        top, left = _draw_integer(0, height - size, rng), _draw_integer(0, width - size, rng)
        if self.donors is None:
            # A draw among the others: skip the image itself.
            donor = (index + _draw_integer(1, x.shape[0] - 1, rng)) % x.shape[0]
            source = x[donor]
        else:
            donor = _draw_integer(0, self.donors.shape[0] - 1, rng)
            source = self.donors[donor].to(x)
        donor_top = _draw_integer(0, source.shape[-2] - size, rng)
        donor_left = _draw_integer(0, source.shape[-1] - size, rng)
        y = x[index].clone()
        y[:, top : top + size, left : left + size] = source[
            :, donor_top : donor_top + size, donor_left : donor_left + size
        ]
        return y, {
            "mask": _block_mask(x, top, left, size),
            "size": size,
            "top": top,
            "left": left,
            "donor": donor,
            "donor_top": donor_top,
            "donor_left": donor_left,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class MissingBlock(Corruption):
    """A square hole of one value; ``operators.Mask(info["known"])`` is its operator if ``fill`` is 0.

    Args:
        size: Side in pixels, or (smallest, largest). None: half the shorter side of the image.
        centred: In the centre, or anywhere inside the image.
        fill: Value of the hole; 1 gives a white block.

    Shapes:
        info: mask, known (B, 1, H, W); size, top, left (B,).

    Raises:
        RangeError: ``size`` is below 1 or larger than the image, or ``fill`` is not finite.
    """

    size: int | tuple[int, int] | None = None
    centred: bool = dataclasses.field(default=True, kw_only=True)
    fill: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.size is not None:
            _check_block_sizes("MissingBlock", self.size)
        if not math.isfinite(self.fill):
            raise RangeError("MissingBlock", expected="a finite fill value", found=str(self.fill))

    def _sizes(self, x: Tensor) -> tuple[int, int]:
        half = max(1, min(x.shape[-2:]) // 2)
        return _check_block_sizes("MissingBlock", half if self.size is None else self.size)

    def _check_images(self, x: Tensor) -> None:
        _check_block_fits("MissingBlock", self._sizes(x)[1], x)

    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        size = _draw_integer(*self._sizes(x), rng)
        rows, columns = x.shape[-2] - size, x.shape[-1] - size
        if self.centred:
            top, left = rows // 2, columns // 2
        else:
            top, left = _draw_integer(0, rows, rng), _draw_integer(0, columns, rng)
        mask = _block_mask(x, top, left, size)
        return x[index].masked_fill(mask, self.fill), {"mask": mask, "size": size, "top": top, "left": left}


@dataclasses.dataclass(frozen=True, eq=False)
class RandomMask(Corruption):
    """Pixels lost at random places, set to 0; ``operators.Mask(info["known"])`` is its operator.

    Args:
        keep: Fraction of kept pixels, exact to rounding (at least one pixel), in (0, 1], or a range to draw
            it from for each image.

    Shapes:
        info: mask, known (B, 1, H, W); keep (B,).

    Raises:
        RangeError: ``keep`` is outside (0, 1].
    """

    keep: Between

    def __post_init__(self) -> None:
        _check_between("RandomMask", "keep", self.keep, 0, 1)
        if (self.keep[0] if isinstance(self.keep, tuple) else self.keep) == 0:
            raise RangeError("RandomMask", expected="0 < keep <= 1", found=str(self.keep))

    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        height, width = x.shape[-2:]
        keep = _draw_between(self.keep, rng)
        lost = ~_some_pixels(max(keep, 1 / (height * width)), height, width, rng).to(x.device)[None]
        return x[index].masked_fill(lost, 0.0), {"mask": lost, "keep": keep}


@dataclasses.dataclass(frozen=True, eq=False)
class RandomNoise(Corruption):
    """Gaussian noise whose level is drawn for each image and returned.

    Args:
        sigma: Standard deviation in units of the image range, in [0, 1], or a range to draw it from.

    Shapes:
        info: sigma (B,).

    Raises:
        RangeError: ``sigma`` is outside [0, 1].
    """

    sigma: Between

    def __post_init__(self) -> None:
        _check_between("RandomNoise", "sigma", self.sigma, 0, 1)

    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        sigma = _draw_between(self.sigma, rng)
        return x[index] + sigma * _normal(x[index].shape, rng, x), {"sigma": sigma}


@dataclasses.dataclass(frozen=True, eq=False)
class RandomBlur(Corruption):
    """Blur with a kernel drawn for each image: a Gaussian of random width or a random motion path.

    ``operators.Blur(info["kernel"], padding=...)`` is its operator.

    Args:
        kind: "gaussian" or "motion".
        sigma: Standard deviation of Gaussian kernels in pixels, > 0, or a range to draw it from.
        size: Side of the kernels in pixels, odd.
        padding: As in ``operators.Blur``.

    Shapes:
        info: kernel (B, 1, size, size); sigma (B,) for Gaussian kernels.

    Raises:
        RangeError: ``sigma`` is not positive, or ``size`` not odd and positive.
        UnknownNameError: Unknown ``kind``.
    """

    kind: str = "gaussian"
    sigma: Between = dataclasses.field(default=(0.5, 3.0), kw_only=True)
    size: int = dataclasses.field(default=21, kw_only=True)
    padding: str = dataclasses.field(default="reflect", kw_only=True)

    def __post_init__(self) -> None:
        check_choice("RandomBlur", "kind", self.kind, ("gaussian", "motion"))
        _check_between("RandomBlur", "sigma", self.sigma, 0, math.inf)
        if (self.sigma[0] if isinstance(self.sigma, tuple) else self.sigma) == 0:
            raise RangeError("RandomBlur", expected="sigma > 0", found=str(self.sigma))
        if (
            isinstance(self.size, bool)
            or not isinstance(self.size, int)
            or self.size < 1
            or self.size % 2 == 0
        ):
            raise RangeError("RandomBlur", expected="size odd and >= 1", found=str(self.size))

    def _one(self, x: Tensor, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        from invrestore import kernels
        from invrestore.operators import Blur

        info: dict[str, Any] = {}
        if self.kind == "gaussian":
            info["sigma"] = _draw_between(self.sigma, rng)
            kernel = kernels.gaussian(info["sigma"], size=self.size)
        else:
            kernel = kernels.motion(self.size, rng=rng)
        kernel = kernel.reshape(1, *kernel.shape[-2:]).to(x)
        info["kernel"] = kernel
        blurred = Blur(kernel[None], padding=self.padding)(x[index : index + 1])
        return blurred[0], info
