"""What restorers are trained to undo: typed degradations, and batches of them made on the fly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from invrestore import corruptions, kernels
from invrestore.operators import JPEG, Blur, Downsample, Identity, Mask, Operator, SparseSampling
from invrestore.priors._feed_forward import network_input

__all__ = [
    "Block",
    "Blurred",
    "Clutter",
    "ColoredPixels",
    "Compressed",
    "Degradation",
    "Degraded",
    "Degrader",
    "Noisy",
    "Reduced",
    "Sparse",
    "uniform",
]

Range: TypeAlias = tuple[float, float]


class _Degradation(BaseModel):
    """One kind of damage; numbers are drawn from the given ranges.

    Attributes:
        weight: Share of the training images relative to the other kinds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(default=1.0, gt=0)


class Noisy(_Degradation):
    """White Gaussian noise.

    Attributes:
        sigma: Standard deviation, uniform in the range, in units of the image range.
    """

    kind: Literal["noise"] = "noise"
    sigma: Range = (0.0, 55 / 255)


class Blurred(_Degradation):
    """Known blur with circular borders (half camera shake, half Gaussian), then white noise.

    Attributes:
        side: Range of the sides of camera-shake kernels, in pixels.
        width: Range of the standard deviations of Gaussian kernels, in pixels.
        sigma: Standard deviation of the noise.
    """

    kind: Literal["blur"] = "blur"
    side: tuple[int, int] = (9, 27)
    width: Range = (0.5, 3.0)
    sigma: Range = (0.0, 0.05)


class Compressed(_Degradation):
    """JPEG.

    Attributes:
        quality: Range of qualities, whole numbers.
        subsampling: Chroma; one is drawn.
    """

    kind: Literal["jpeg"] = "jpeg"
    quality: tuple[int, int] = (5, 60)
    subsampling: tuple[Literal["4:2:0", "4:4:4"], ...] = ("4:2:0",)


class Reduced(_Degradation):
    """Bicubic reduction of the size with antialiasing, then white noise.

    Attributes:
        factor: Factors of which one is drawn.
        sigma: Standard deviation of the noise.
    """

    kind: Literal["reduced"] = "reduced"
    factor: tuple[Annotated[int, Field(ge=2, le=8)], ...] = Field(default=(2, 3, 4), min_length=1)
    sigma: Range = (0.0, 0.1)


class Sparse(_Degradation):
    """Few known pixels.

    Attributes:
        keep: Share of known pixels; few are more frequent, the logarithm is uniform.
        guided: Share of images whose pixels follow the Sobel gradient.
    """

    kind: Literal["sparse"] = "sparse"
    keep: Range = (0.01, 0.2)
    guided: float = Field(default=0.5, ge=0, le=1)


class Block(_Degradation):
    """A square hole.

    Attributes:
        size: Range of its side in pixels.
        centred: Share of images with the hole in the middle; elsewhere it lies anywhere.
        told: Share of images for which the network is told where the hole is; for others it is white.
    """

    kind: Literal["block"] = "block"
    size: tuple[int, int] = (64, 64)
    centred: float = Field(default=1.0, ge=0, le=1)
    told: float = Field(default=1.0, ge=0, le=1)


class Clutter(_Degradation):
    """A square of another image of the batch.

    Attributes:
        size: Range of its side in pixels.
        told: Share of images for which the network is told where the square is.
    """

    kind: Literal["clutter"] = "clutter"
    size: tuple[int, int] = (8, 64)
    told: float = Field(default=0.0, ge=0, le=1)


class ColoredPixels(_Degradation):
    """Random colours at random places, which the network is not told.

    Attributes:
        amount: Share of hit pixels.
    """

    kind: Literal["colornoise"] = "colornoise"
    amount: Range = (0.8, 0.95)


Degradation: TypeAlias = Annotated[
    Noisy | Blurred | Compressed | Reduced | Sparse | Block | Clutter | ColoredPixels,
    Field(discriminator="kind"),
]


@dataclass(frozen=True)
class Degraded:
    """A batch of degraded images.

    Attributes:
        input: What the network sees, (B, inputs, H, W).
        view: What a person sees, (B, C, H, W).
        measured: Samples that are known to be true, (B, C, H, W); others are 0.
        known: 1 on them, (B, 1, H, W), also where the network is not told which they are (a white square); nowhere 1
            where the data hide it (clutter, random colours), or all are wrong.
    """

    input: Tensor
    view: Tensor
    measured: Tensor
    known: Tensor


class Part(NamedTuple):
    """Some images of a batch and what was done to them.

    Attributes:
        view: What a person sees, (B, C, H, W).
        y: Measurement.
        operator: What the network is told of how it was made.
        sigma: Noise level, (B,).
        true: Mask (B, 1, H, W) of true samples where the operator does not say so.
    """

    view: Tensor
    y: Tensor
    operator: Operator
    sigma: Tensor
    true: Tensor | None = None


class Degrader:
    """Makes batches of degraded images, each image with a kind of damage drawn by weight.

    Args:
        degradations: Kinds of damage.
        informed: Whether the network is an informed one.
        seed: Of the blur kernels, which are drawn once.
    """

    _KERNELS = 64
    _CHUNK = 4  # Images that share a JPEG quality or a factor

    def __init__(self, degradations: Sequence[Degradation], *, informed: bool, seed: int = 0) -> None:
        self.degradations = tuple(degradations)
        self.informed = informed
        self.shares = torch.tensor([d.weight for d in self.degradations], dtype=torch.float64)
        self.kernels = {
            i: _kernel_bank(d, self._KERNELS, seed)
            for i, d in enumerate(self.degradations)
            if isinstance(d, Blurred)
        }

    def __call__(self, clean: Tensor, rng: torch.Generator) -> Degraded:
        """Degrade images (B, C, H, W) in [0, 1] with random numbers of the device they are on."""
        fields: list[list[Tensor]] = [[], [], [], []]
        for view, y, operator, sigma, true in self.parts(clean, rng):
            told = sigma * (1 + 0.1 * _normal(sigma.shape, rng)) if bool(sigma.any()) else sigma
            fields[0].append(network_input(y, operator, told.clamp(0, 1), informed=self.informed))
            fields[1].append(view)
            known = _known(operator, view) if true is None else true.to(view.dtype)
            # Only a mask leaves samples as they were, and its measurement has the size of the image.
            fields[2].append((y if isinstance(operator, Mask) else view) * known)
            fields[3].append(known)
        return Degraded(*(torch.cat(field) for field in fields))

    def parts(self, clean: Tensor, rng: torch.Generator) -> Iterator[Part]:
        """Yield images (B, C, H, W) in [0, 1] in their order, a few with one operator at a time, as measured."""
        kinds = torch.multinomial(self.shares.to(rng.device), len(clean), replacement=True, generator=rng)
        start = 0
        # The first images suffer the first kind, and so on: those of one kind are degraded together.
        for kind, count in enumerate(torch.bincount(kinds).tolist()):
            if count:
                yield from self._of_kind(kind, clean[start : start + count], clean, rng)
                start += count

    def _of_kind(self, index: int, x: Tensor, batch: Tensor, rng: torch.Generator) -> Iterator[Part]:
        d = self.degradations[index]
        none = x.new_zeros(len(x))
        if isinstance(d, Noisy):
            sigma = uniform(d.sigma, len(x), rng)
            y = x + sigma.view(-1, 1, 1, 1) * _normal(x.shape, rng)
            yield Part(y, y, Identity(), sigma)
        elif isinstance(d, Blurred):
            bank = self.kernels[index].to(x)
            chosen = torch.randint(len(bank), (len(x),), generator=rng, device=rng.device)
            operator = Blur(bank[chosen], padding="circular")
            sigma = uniform(d.sigma, len(x), rng)
            y = operator(x) + sigma.view(-1, 1, 1, 1) * _normal(x.shape, rng)
            yield Part(y, y, operator, sigma)
        elif isinstance(d, Compressed):
            for part in torch.split(x, self._CHUNK):
                chroma = d.subsampling[_whole((0, len(d.subsampling) - 1), rng)]
                code = JPEG(_whole(d.quality, rng), subsampling=chroma)
                y = code(part)
                yield Part(y, y, code, none[: len(part)])
        elif isinstance(d, Reduced):
            for part in torch.split(x, self._CHUNK):
                factor = d.factor[_whole((0, len(d.factor) - 1), rng)]
                reduce = Downsample(factor, input_shape=tuple(part.shape[1:]))
                sigma = uniform(d.sigma, len(part), rng)
                small = reduce(part)
                y = small + sigma.view(-1, 1, 1, 1) * _normal(small.shape, rng)
                view = F.interpolate(y, scale_factor=factor, mode="nearest")
                yield Part(view[..., : part.shape[-2], : part.shape[-1]], y, reduce, sigma)
        elif isinstance(d, Sparse):
            masks = [_samples(d, image, rng) for image in x]
            mask = Mask(torch.cat(masks).to(x.device))
            yield Part(x.masked_fill(~mask.mask, 1.0), mask(x), mask, none)
        elif isinstance(d, ColoredPixels):
            y, _ = corruptions.ColorNoise(d.amount)(x, rng)
            yield Part(y, y, Identity(), none)
        else:
            yield from _squares(d, x, batch, rng)


def _squares(d: Block | Clutter, x: Tensor, batch: Tensor, rng: torch.Generator) -> Iterator[Part]:
    # Sorted, so that the images keep their order when those that are told are taken out.
    told = (torch.rand(len(x), generator=rng, device=rng.device) >= d.told).sort().values.logical_not()
    views, known = [], []
    for image in x:
        if isinstance(d, Block):
            centred = bool(torch.rand((), generator=rng, device=rng.device) < d.centred)
            damage: corruptions.Corruption = corruptions.MissingBlock(d.size, centred=centred, fill=1.0)
        else:
            damage = corruptions.ClutteredBlock(d.size, donors=batch)
        view, info = damage(image[None], rng)
        views.append(view)
        known.append(info["known"])
    view, mask = torch.cat(views), torch.cat(known)
    for chosen, is_told in ((told, True), (~told, False)):
        if bool(chosen.any()):
            some, sigma = view[chosen], x.new_zeros(int(chosen.sum()))
            if is_told:
                operator: Operator = Mask(mask[chosen])
                yield Part(some, operator(some), operator, sigma)
            else:
                true = mask[chosen] if isinstance(d, Block) else None
                yield Part(some, some, Identity(), sigma, true)


def _samples(d: Sparse, image: Tensor, rng: torch.Generator) -> Tensor:
    low, high = torch.tensor(d.keep, dtype=torch.float64).log().tolist()
    u, guided = torch.rand(2, generator=rng, device=rng.device, dtype=torch.float64).tolist()
    keep = float(torch.tensor(low + (high - low) * u, dtype=torch.float64).exp().clamp(*d.keep))
    guide = image if guided < d.guided else None
    return SparseSampling(tuple(image.shape), keep=keep, guide=guide, rng=rng).mask


def _known(operator: Operator, view: Tensor) -> Tensor:
    if isinstance(operator, Mask):
        return operator.mask.to(view.dtype).expand(len(view), 1, *view.shape[2:])
    return view.new_zeros(len(view), 1, *view.shape[2:])


def _kernel_bank(d: Blurred, count: int, seed: int) -> Tensor:
    """Kernels (2 count, 1, side, side): camera shake of all sides, then Gaussians of all widths."""
    rng = torch.Generator().manual_seed(seed)
    side = d.side[1] + 1 - d.side[1] % 2
    bank = []
    for k in range(count):
        own = d.side[0] + round((d.side[1] - d.side[0]) * k / max(count - 1, 1))
        bank.append(kernels.motion(own, rng, shake=float(torch.rand((), generator=rng))))
    for k in range(count):
        width = d.width[0] + (d.width[1] - d.width[0]) * k / max(count - 1, 1)
        bank.append(kernels.gaussian(width, size=side))
    padded = []
    for kernel in bank:
        # An odd kernel is centred at its middle pixel, an even one right below it.
        before = side // 2 - kernel.shape[-1] // 2
        after = side - kernel.shape[-1] - before
        padded.append(F.pad(kernel, (before, after, before, after)))
    return torch.cat(padded).float()


def uniform(span: Range, count: int, rng: torch.Generator) -> Tensor:
    """Numbers (count,) from the range, on the generator's device."""
    return span[0] + (span[1] - span[0]) * torch.rand(count, generator=rng, device=rng.device)


def _normal(shape: torch.Size, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device)


def _whole(span: tuple[int, int], rng: torch.Generator) -> int:
    """A whole number from the range, ends included."""
    return int(torch.randint(span[0], span[1] + 1, (), generator=rng, device=rng.device))
