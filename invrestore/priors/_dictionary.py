"""Images whose patches are sums of a few atoms: cosine or learned dictionaries as a denoising prior."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import ClassVar, Self

import torch
import torch.nn.functional as F

from invrestore._checks import (
    check_batch_tensor,
    check_choice,
    check_count,
    check_image,
    check_nonnegative,
    check_rng,
    check_sigma,
)
from invrestore._types import PerImage, Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError, WeightsError
from invrestore.priors._base import Capability, Prior
from invrestore.priors._dictionary_learning import dct_atoms, ksvd
from invrestore.priors._sparse_coding import ista, omp

__all__ = ["Dictionary", "shipped_atoms"]

_CODERS = ("omp", "l1")

_BAND = 1 << 16
"""Patches cut out together, so that memory does not grow with the image."""

_EXAMPLES = 65000
"""Most patches of one image a dictionary is adapted to, as in Elad and Aharon (2006)."""

_CONFIDENCE = 0.82
"""Share of pure-noise patches whose norm stays below the error a code may leave; tuned on training images."""

_CONFIDENCE_ADAPTED = 0.96
"""The same for atoms learned from the noisy patches themselves, which fit noise more readily."""

_SOFT = 1.5
"""Threshold of the l1 coder in units of sigma; tuned on training images."""

_ANY_ERROR = 1e6
"""An error that no patch exceeds, in units of the image range."""

_FINEST = 3 / 255
"""Least error of a masked code, in units of the image range; met closer, known entries bend the others."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dictionary(Prior):
    """Sparse patches: every patch, less its mean colour, is a sum of few atoms.

    Denoising codes all overlapping patches P_i x, each with the fewest atoms found that leave an error of
    gain * sigma * sqrt(n), and averages what the codes stand for with the noisy image:

        x_hat = (y + mu sum_i P_i^T (m_i + D a_i)) / (1 + mu sum_i P_i^T 1),   mu = 255 sigma / 30.

    As a plug-and-play prior prox(v, step) = denoise(v, sqrt(lam * step)). No objective is minimised exactly,
    so the prior declares no value. ``lam`` is in units of noise variance; None lets ``solve`` take
    0.23 sigma^2, as for any denoiser.

    Args:
        atoms: (K, C, p, p), of any norms but zero. None takes the shipped learned ones: 8x8 atoms of three
            channels for colour images, of one channel for all others. Atoms of one channel treat the channels
            of an image on their own.
        lam: Weight, >= 0.
        coder: "omp" (few atoms, by orthogonal matching pursuit) or "l1" (soft thresholds, by FISTA).
        gain: Error that a code may leave, relative to the noise; with "l1" the threshold relative to sigma.
            None takes the 82 % quantile of the norm of pure noise (1.07 for 64 entries, 1.04 for 192), with
            ``adapt`` the 96 % quantile (1.15 and 1.09), and 1.5 for "l1".
        max_atoms: Most atoms in a code; None allows half the pixels of a patch.
        stride: Distance between patches, pixels. 2 is 4 times faster and about 0.5 dB worse.
        adapt: Steps of K-SVD on the noisy patches of each image before they are coded; 10 is the method of
            Elad and Aharon, slower and for images of 256x256 and more usually better.

    Shapes:
        x: (B, C, H, W), any size; images smaller than a patch are extended by their border pixels.

    Raises:
        ShapeError: ``atoms`` are not (K, C, p, p), or do not fit the channels of an image.
        RangeError: A zero or infinite atom, an option out of range.
        UnknownNameError: No such coder.

    Example:
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> Dictionary().denoise(y, 0.1).shape
        torch.Size([1, 3, 16, 16])

    Reference:
        Elad and Aharon (2006); Mairal, Elad and Sapiro (2008) for colour, where we take the mean colour out
        of each patch instead of giving it more weight in the inner product.
    """

    atoms: Tensor | None = dataclasses.field(default=None, kw_only=False)
    coder: str = dataclasses.field(default="omp", kw_only=True)
    gain: float | None = dataclasses.field(default=None, kw_only=True)
    max_atoms: int | None = dataclasses.field(default=None, kw_only=True)
    stride: int = dataclasses.field(default=1, kw_only=True)
    adapt: int = dataclasses.field(default=0, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.DENOISE, Capability.PROX})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.atoms is not None:
            _check_atoms(self.name, self.atoms)
        check_choice(self.name, "coder", self.coder, _CODERS)
        check_nonnegative(self.name, "gain", self.gain, positive=True)
        if self.max_atoms is not None:
            check_count(self.name, "max_atoms", self.max_atoms)
        check_count(self.name, "stride", self.stride)
        check_count(self.name, "adapt", self.adapt, least=0)

    @classmethod
    def dct(cls, size: int = 8, count: int = 256, *, channels: int = 1, lam: PerImage | None = None) -> Self:
        """The overcomplete cosine dictionary.

        Args:
            size: Side of a patch, pixels.
            count: Atoms for each colour direction, the square of a number >= ``size``.
            channels: Channels of a patch.
            lam: Weight of the prior.

        Raises:
            RangeError: ``count`` is no such square.
        """
        return cls(dct_atoms(size, count, channels), lam=lam)

    @classmethod
    def learn(
        cls,
        images: Tensor | Sequence[Tensor] | str | Path,
        *,
        sigma: float | None = None,
        sparsity: int | None = None,
        start: Tensor | None = None,
        size: int = 8,
        count: int = 256,
        steps: int = 10,
        examples: int = _EXAMPLES,
        rng: torch.Generator | None = None,
        lam: PerImage | None = None,
    ) -> Self:
        """A dictionary learned by K-SVD from images: noisy ones at their noise level, or clean ones.

        Args:
            images: Images (B, C, H, W), several such tensors of different sizes, or a folder of image files
                (read in colour; images known to be test images are left out).
            sigma: Noise level of the images, or the detail in clean images not worth an atom, in units of the
                image range: codes may leave the error that denoising at this level would.
            sparsity: Most atoms in a code; None allows half the pixels of a patch.
            start: First atoms, (K, C, p, p); None takes the cosine dictionary, for colour with its ``count``
                atoms drawn from the three colour directions.
            size: Side of a patch when ``start`` is None.
            count: Atoms when ``start`` is None; for one channel the square of a number >= ``size``.
            steps: Rounds of coding and updating.
            examples: Patches to learn from, taken evenly from all images.
            rng: Draw the patches at random instead.
            lam: Weight of the prior.

        Raises:
            RangeError: Neither sigma nor sparsity was given, or ``count`` does not fit.
            ShapeError: Images of different channel counts, or smaller than a patch.
            ImageFileError: No such folder, or no readable image in it.
        """
        where = "Dictionary.learn"
        check_sigma(where, sigma)
        check_rng(where, rng)
        check_count(where, "examples", examples)
        if sigma is None and sparsity is None:
            raise RangeError(where, expected="sigma or sparsity", found="neither")
        batches = _as_batches(where, images)
        channels = batches[0].shape[1]
        if start is None:
            start = _first_atoms(size, count, channels)
        _check_atoms(where, start)
        if start.shape[1] != channels:
            raise ShapeError(
                where,
                expected=f"start atoms with {channels} channels, as the images",
                found=f"{start.shape[1]}",
            )
        x = _examples(where, batches, start.shape[-1], examples, rng)
        n = x.shape[1]
        limit = sparsity if sparsity is not None else start.shape[-1] ** 2 // 2
        error = None if sigma is None else _noise_quantile(n, _CONFIDENCE_ADAPTED) * sigma * math.sqrt(n)
        D = ksvd(x, start.to(x).flatten(1), sparsity=limit, error=error, steps=steps)
        return cls(D.view(-1, *start.shape[1:]), lam=lam)

    def denoise(self, x: Tensor, sigma: PerImage, mask: Tensor | None = None) -> Tensor:
        """``x`` with white noise of standard deviation ``sigma`` removed, and unknown pixels filled.

        Args:
            x: Noisy images, (B, C, H, W).
            sigma: Noise level in [0, 1], a number or (B,). At 0 known pixels come back as they are.
            mask: 1 where ``x`` is known, 0 where not, or weights between, broadcastable to x. Codes then fit
                the known entries only and fill the others; a pixel keeps its value if none of its patches
                has a known one in every channel.

        Raises:
            ShapeError: The channels do not fit the atoms, or the mask does not fit the image.
            RangeError: The mask leaves [0, 1].
        """
        where = f"{self.name}.denoise"
        check_image(where, x)
        check_sigma(where, sigma)
        check_batch_tensor(where, "sigma", sigma, x.shape[0])
        atoms = self._fitting(where, x)
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])
        known = None if mask is None else _as_mask(where, mask, x)
        if atoms.shape[1] != x.shape[1]:
            level = level.repeat_interleave(x.shape[1])
            known = None if known is None else known.flatten(0, 1)[:, None]
            return self._average(x.flatten(0, 1)[:, None], level, known, atoms).view_as(x)
        return self._average(x, level, known, atoms)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """``denoise(v, sqrt(lam * step))``: the prox variance of a Gaussian denoiser is lam * step."""
        variance = self.weight * step
        strength = variance.sqrt() if isinstance(variance, torch.Tensor) else variance**0.5
        return self.denoise(v, strength)

    def first_lam(self, sigma: Tensor) -> Tensor:
        """0.23 sigma^2."""
        return 0.23 * sigma.square()

    def _fitting(self, where: str, x: Tensor) -> Tensor:
        atoms = shipped_atoms(3 if x.shape[1] == 3 else 1) if self.atoms is None else self.atoms
        if atoms.shape[1] not in (1, x.shape[1]):
            raise ShapeError(
                where,
                expected=f"images with the {atoms.shape[1]} channels of the atoms",
                found=f"{x.shape[1]} channels",
                remedy="Atoms of one channel take images of any number.",
            )
        return atoms.to(device=x.device, dtype=x.dtype if x.dtype == torch.float64 else torch.float32)

    def _average(self, x: Tensor, sigma: Tensor, mask: Tensor | None, atoms: Tensor) -> Tensor:
        if not self.adapt:
            return self._restore(x, sigma, mask, atoms)
        parts = []
        for i in range(x.shape[0]):
            one = slice(i, i + 1)
            seen = None if mask is None else mask[one]
            parts.append(self._restore(x[one], sigma[one], seen, self._adapted(x[one], sigma[one], atoms)))
        return torch.cat(parts)

    def _adapted(self, x: Tensor, sigma: Tensor, atoms: Tensor) -> Tensor:
        """Atoms after K-SVD on the patches of one noisy image."""
        size, n = atoms.shape[-1], atoms[0].numel()
        noisy = _examples(self.name, [_extended(x.detach(), size, 1)], size, _EXAMPLES, None).to(atoms.dtype)
        error = self._gain(n) * sigma.detach().to(atoms) * math.sqrt(n)
        D = ksvd(noisy, atoms.detach().flatten(1), error=error, sparsity=self._limit(size), steps=self.adapt)
        return D.view_as(atoms)

    def _gain(self, n: int) -> float:
        return self.gain or _noise_quantile(n, _CONFIDENCE_ADAPTED if self.adapt else _CONFIDENCE)

    def _limit(self, size: int) -> int:
        return self.max_atoms or max(size * size // 2, 1)

    def _restore(self, x: Tensor, sigma: Tensor, mask: Tensor | None, atoms: Tensor) -> Tensor:
        size = atoms.shape[-1]
        y = _extended(x.to(atoms.dtype), size, self.stride)
        level = sigma.to(atoms.dtype)
        known = None if mask is None else _extended(mask.to(atoms.dtype), size, self.stride)
        total, weight = torch.zeros_like(y), torch.zeros_like(y)
        for rows, band in _bands(y, size, self.stride):
            length = band.shape[0] // y.shape[0]
            seen = None if known is None else _cut(known[:, :, rows], size, self.stride)
            estimate, share = self._code(band, level.repeat_interleave(length), seen, atoms)
            shape = (y.shape[0], y.shape[1], rows.stop - rows.start, y.shape[3])
            total[:, :, rows] += _paste(estimate * share, shape, size, self.stride)
            weight[:, :, rows] += _paste(share.expand_as(estimate), shape, size, self.stride)
        mu = (255 / 30) * level.view(-1, 1, 1, 1)
        if known is None:
            out = (y + mu * total) / (1 + mu * weight)
        else:
            mu = mu.clamp_min(1e-6)
            scale = known + mu * weight
            out = torch.where(scale > 0, (known * y + mu * total) / scale.clamp_min(1e-12), y)
        return out[:, :, : x.shape[2], : x.shape[3]].to(x.dtype)

    def _code(
        self, patches: Tensor, sigma: Tensor, seen: Tensor | None, atoms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates of patches, (N, n), and the weight of each in the average, (N, 1)."""
        channels, pixels = atoms.shape[1], atoms.shape[-1] ** 2
        D = atoms.flatten(1)
        n = D.shape[1]
        by_channel = patches.view(-1, channels, pixels)
        if seen is None:
            mean = by_channel.mean(2, keepdim=True)
            rest = (by_channel - mean).flatten(1)
            # At level 0 the noisy image alone counts: any error will do.
            goal = torch.where(sigma > 0, sigma, _ANY_ERROR)
            entries: float | Tensor = float(n)
            share = patches.new_ones(patches.shape[0], 1)
        else:
            w = seen.view(-1, channels, pixels)
            mean = (w * by_channel).sum(2, keepdim=True) / w.sum(2, keepdim=True).clamp_min(1e-12)
            rest = (by_channel - mean).flatten(1)
            goal = sigma.clamp_min(_FINEST)
            entries = seen.sum(1)
            share = (w.sum(2).amin(1, keepdim=True) > 0).to(patches.dtype)
            # The mean of the known entries is not that of the patch: constants join the atoms.
            constant = torch.eye(channels, dtype=D.dtype, device=D.device).repeat_interleave(pixels, 1)
            D = torch.cat([D, constant / math.sqrt(pixels)])
        if self.coder == "l1":
            code = ista(rest, D, (self.gain or _SOFT) * goal, weights=seen)
            found = code @ D
        else:
            error = self._gain(n) * goal * entries**0.5
            found = omp(rest, D, sparsity=self._limit(atoms.shape[-1]), error=error, weights=seen).decode(D)
        return (found.view_as(by_channel) + mean).flatten(1), share


def _noise_quantile(n: int, share: float) -> float:
    """Quantile of the norm of n standard normal numbers over sqrt(n), by Wilson and Hilferty (1931)."""
    spread = 2 / (9 * n)
    cube_root: float = 1 - spread + NormalDist().inv_cdf(share) * math.sqrt(spread)
    return math.sqrt(cube_root**3)


@cache
def shipped_atoms(channels: int) -> Tensor:
    """The learned 8x8 atoms for 1 or 3 channels, (K, channels, 8, 8), float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    name = f"dictionary_8x8_{'colour' if channels == 3 else 'gray'}.safetensors"
    try:
        return load(resources.files("invrestore.priors").joinpath(name).read_bytes())["atoms"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise WeightsError(
            "priors.Dictionary",
            expected=f"the shipped atoms {name}",
            found=f"{type(error).__name__}: {error}",
            remedy="Install the package again, or take Dictionary.dct().",
        ) from error


# Patches ----------------------------------------------------------------------------------------------------


def _extended(x: Tensor, size: int, stride: int) -> Tensor:
    """``x`` with border pixels repeated below and at the right until patches at ``stride`` cover it."""
    down, right = (max(size - n, -(n - size) % stride) for n in x.shape[-2:])
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def _cut(x: Tensor, size: int, stride: int) -> Tensor:
    """All patches, (B L, C size size), image by image."""
    return F.unfold(x, size, stride=stride).mT.flatten(0, 1)


def _paste(patches: Tensor, shape: tuple[int, int, int, int], size: int, stride: int) -> Tensor:
    """Sum of the patches at their places; the adjoint of ``_cut``."""
    columns = patches.view(shape[0], -1, patches.shape[1]).mT
    return F.fold(columns, shape[2:], size, stride=stride)


def _bands(x: Tensor, size: int, stride: int) -> Iterator[tuple[slice, Tensor]]:
    """Bands of image rows with the patches that lie in them."""
    lines = (x.shape[2] - size) // stride + 1
    across = (x.shape[3] - size) // stride + 1
    at_once = max(1, _BAND // (x.shape[0] * across))
    for first in range(0, lines, at_once):
        last = min(first + at_once, lines) - 1
        rows = slice(first * stride, last * stride + size)
        yield rows, _cut(x[:, :, rows], size, stride)


def _examples(
    where: str, batches: Sequence[Tensor], size: int, count: int, rng: torch.Generator | None
) -> Tensor:
    """``count`` patches of several batches of images less their channel means, evenly spaced or at random."""
    room = [b.shape[0] * (b.shape[2] - size + 1) * (b.shape[3] - size + 1) for b in batches]
    for b in batches:
        if min(b.shape[2:]) < size:
            raise ShapeError(where, expected=f"images of at least {size}x{size}", found=str(tuple(b.shape)))
    total = sum(room)
    count = min(count, total)
    if rng is None:
        pick = torch.arange(count, dtype=torch.float64).add(0.5).mul(total / count).long()
    else:
        pick = torch.randint(total, (count,), generator=rng, device=rng.device).cpu().sort().values
    parts, first = [], 0
    for b, n in zip(batches, room, strict=True):
        here = pick[(pick >= first) & (pick < first + n)] - first
        first += n
        lines, across = b.shape[2] - size + 1, b.shape[3] - size + 1
        here = here.to(b.device)
        image, place = here // (lines * across), here % (lines * across)
        grid = torch.arange(size, device=b.device)
        i = (place // across)[:, None, None] + grid[:, None]
        j = (place % across)[:, None, None] + grid
        parts.append(b[image[:, None, None], :, i, j].permute(0, 3, 1, 2))
    x = torch.cat(parts)
    return (x - x.mean((2, 3), keepdim=True)).flatten(1)


# Arguments --------------------------------------------------------------------------------------------------


def _check_atoms(where: str, atoms: object) -> None:
    if not isinstance(atoms, torch.Tensor) or not atoms.is_floating_point():
        raise DTypeError(
            where,
            expected="atoms as a floating-point tensor (K, C, p, p)",
            found=str(atoms.dtype) if isinstance(atoms, torch.Tensor) else type(atoms).__name__,
            remedy="Dictionary.learn makes atoms from images.",
        )
    if atoms.ndim != 4 or atoms.shape[2] != atoms.shape[3] or atoms.numel() == 0:
        raise ShapeError(where, expected="atoms of shape (K, C, p, p)", found=str(tuple(atoms.shape)))
    size = atoms.detach().flatten(1).norm(dim=1)
    if not bool(((size > 0) & torch.isfinite(size)).all()):
        raise RangeError(
            where, expected="atoms that are finite and not zero", found="a zero, infinite or NaN atom"
        )


def _as_mask(where: str, mask: Tensor, x: Tensor) -> Tensor:
    try:
        known = torch.as_tensor(mask, dtype=x.dtype, device=x.device).expand(x.shape)
    except RuntimeError as error:
        raise ShapeError(
            where, expected=f"a mask broadcastable to {tuple(x.shape)}", found=str(tuple(mask.shape))
        ) from error
    if not bool(((known >= 0) & (known <= 1)).all()):
        raise RangeError(
            where, expected="a mask in [0, 1]", found=f"[{float(known.min())}, {float(known.max())}]"
        )
    return known


def _as_batches(where: str, images: Tensor | Sequence[Tensor] | str | Path) -> list[Tensor]:
    if isinstance(images, str | Path):
        return _read_folder(where, Path(images))
    batches = [images] if isinstance(images, torch.Tensor) else list(images)
    for b in batches:
        check_image(where, b, "images")
    channels = {b.shape[1] for b in batches}
    if len(channels) != 1:
        raise ShapeError(
            where, expected="images with equal channels", found=f"{sorted(channels) or 'no image'}"
        )
    return batches


def _read_folder(where: str, folder: Path) -> list[Tensor]:
    # The data layer lies above the priors; only this convenience reaches up, when it is called.
    import io

    import numpy as np
    from PIL import Image

    from invrestore.data import find_images, reserved_set
    from invrestore.errors import ImageFileError

    found = []
    for file in find_images(folder, "train"):
        encoded = file.read()
        try:
            if reserved_set(encoded) is None:
                with Image.open(io.BytesIO(encoded)) as image:
                    pixels = torch.from_numpy(np.array(image.convert("RGB")))
                found.append(pixels.permute(2, 0, 1)[None].float() / 255)
        except OSError as error:
            raise ImageFileError(where, expected="readable images", found=str(file)) from error
    if not found:
        raise ImageFileError(where, expected="images to learn from", found=f"none in {folder}")
    return found


def _first_atoms(size: int, count: int, channels: int) -> Tensor:
    """``count`` cosine atoms: all of them for one channel, the slowest of every colour direction for more."""
    if channels == 1:
        return dct_atoms(size, count)
    side = max(size, math.isqrt(count - 1) + 1) if count > 0 else size
    full = dct_atoms(size, side * side, channels)
    k = torch.arange(side)
    order = (k[:, None] ** 2 + k**2).flatten().repeat(channels)
    # A colour difference of the same speed as a brightness pattern comes later: images hold less of it.
    order = order + torch.arange(channels).repeat_interleave(side * side).clamp_max(1) * side
    return full[order.argsort(stable=True)[:count]]
