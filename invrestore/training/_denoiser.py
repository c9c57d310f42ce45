"""Training of Gaussian denoisers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore import metrics
from invrestore._symmetry import under_symmetry
from invrestore._types import PerImage
from invrestore.data import PatchPool, read_pack
from invrestore.errors import TrainingError
from invrestore.networks import DenoiserNetwork
from invrestore.priors import Denoiser
from invrestore.training._degradations import Degrader
from invrestore.training._plugged import seen_when_plugged
from invrestore.training._recipe import DenoiserRecipe, Recipe, Stage
from invrestore.training._task import FEW, RecipeTask

__all__ = ["DenoiserTask", "denoise_all", "mean_psnr", "score_denoiser"]


class DenoiserTask(RecipeTask):
    """One network learns to remove Gaussian noise of a level it is told.

    Args:
        network: The denoiser, `network(x, sigma)`.
        recipe: Noise levels and loss.
        pool: Training images, on the device that trains.
        test_images: Held-out images (1, C, H, W) in [0, 1] for scores and samples.
    """

    def __init__(
        self, network: nn.Module, recipe: DenoiserRecipe, pool: PatchPool, test_images: Sequence[Tensor] = ()
    ) -> None:
        self.players = {"denoiser": network}
        self.averaged = ("denoiser",)
        self.teacher = deepcopy(network).eval().requires_grad_(False) if recipe.taught else None
        self.recipe = recipe
        self.pool = pool
        self.degrade = Degrader(recipe.problems, informed=False, seed=recipe.seed)
        self.test_images = list(test_images)
        self.protocol = (
            f"mean RGB PSNR in dB on {recipe.test_folder} ({len(self.test_images)} images), noise of seed 0 for "
            "each image, not clipped; output clamped and rounded to 8 bits; no border crop; float32"
            if self.test_images
            else ""
        )
        if self.protocol and recipe.maps:
            self.protocol += (
                f"; half: level {round(255 * _HALF_LEVEL)} on half of the pixels, the others exact"
            )
        if self.protocol and recipe.gray:
            self.protocol += f"; gray: luma at level {round(255 * _GRAY_LEVEL)}"

    @classmethod
    def create(
        cls, network: nn.Module, recipe: Recipe, train: Path, test: Path | None, device: torch.device
    ) -> Self:
        """Decode the packed images for a denoiser."""
        if not isinstance(network, DenoiserNetwork) or not isinstance(recipe, DenoiserRecipe):
            raise TrainingError(
                "training.train", expected="a denoiser architecture", found=recipe.architecture
            )
        pool = PatchPool.from_pack(
            train, device=device, scales=recipe.scales, copies=recipe.copies, seed=recipe.seed
        )
        return cls(network, recipe, pool, [] if test is None else _test_images(test, network.channels))

    def losses(
        self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the distance between denoised and clean crops."""
        clean = self.pool.crops(stage.batch, stage.patch, rng).float() / 255
        if self.recipe.arguments.get("channels", 3) == 1:
            clean = metrics.rgb_to_y(clean, full_range=True)
        low, high = self.recipe.sigma
        draw = torch.rand((stage.batch, 1, 1, 1), device=clean.device, generator=rng)
        sigma = low + (high - low) * draw**self.recipe.sigma_power
        noise = torch.randn(clean.shape, device=clean.device, generator=rng)
        # Drawn on the host, which need not wait for the device then.
        host = torch.Generator().manual_seed(rng.initial_seed())
        kind = torch.rand(stage.batch, generator=host)
        mapped = int((kind < self.recipe.maps).sum())
        gray = int((kind > 1 - self.recipe.gray).sum())
        plugged = int((kind > 1 - self.recipe.gray - self.recipe.plugged).sum()) - gray
        if gray:
            ours = slice(mapped, mapped + gray)
            clean[ours] = metrics.rgb_to_y(clean[ours], full_range=True)
            noise[ours] = noise[ours, :1] / clean.shape[1] ** 0.5
        if mapped:
            share = torch.ones((stage.batch, 1, *clean.shape[-2:]), device=clean.device)
            share[:mapped] = _share_of_noise(mapped, stage.patch, rng, host)
            sigma = sigma * share
        noisy = clean + sigma * noise
        special = mapped + gray + plugged
        if plugged:
            ours = slice(mapped + gray, special)
            noisy[ours], level = seen_when_plugged(
                players["denoiser"],
                clean[ours],
                self.degrade,
                steps=self.recipe.plugged_steps,
                rng=rng,
                host=host,
            )
            sigma[ours] = level.view(-1, 1, 1, 1)
        target = clean
        if self.teacher is not None and special < stage.batch:
            # Of noise that differs from pixel to pixel, or is none, the teacher need not know anything.
            plain = slice(special, None)
            target = clean.clone()
            target[plain] = clean[plain].lerp(
                self._lesson(noisy[plain], sigma[plain, :, 0, 0].flatten(), host), self.recipe.taught
            )
        distance = _DISTANCES[self.recipe.loss]
        yield "denoiser", distance(players["denoiser"](noisy, sigma if mapped else sigma.flatten()), target)

    @torch.no_grad()
    def _lesson(self, noisy: Tensor, sigma: Tensor, host: torch.Generator) -> Tensor:
        """What the network said before this training, in the mean over flips and turns drawn anew."""
        assert self.teacher is not None
        teacher = self.teacher.to(noisy.device)
        drawn = torch.randperm(8, generator=host)[: self.recipe.taught_views].tolist()
        with self.recipe.autocast(noisy.device):
            views = [
                under_symmetry(lambda v: teacher(v, sigma).float(), noisy, flip=k >= 4, turns=k % 4)
                for k in drawn
            ]
        return torch.stack(views).mean(dim=0)

    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        """Return the mean PSNR of the test images at each test level, in dB."""
        if not self.test_images:
            return {}
        images = self.test_images[:FEW] if few else self.test_images
        network = players["denoiser"]
        scores = {
            f"psnr_{round(255 * sigma)}": score_denoiser(network, images, sigma)
            for sigma in self.recipe.test_sigmas
        }
        if self.recipe.maps:
            scores["psnr_half"] = mean_psnr(denoise_all(network, images, _HALF_LEVEL, share=0.5), images)
        if self.recipe.gray:
            colour = Denoiser(network, precision="full")
            gray = [metrics.rgb_to_y(image, full_range=True) for image in images]
            scores["psnr_gray"] = score_denoiser(colour.denoise, gray, _GRAY_LEVEL)
        return scores

    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        """Show noisy, denoised and clean crops of test images, one row for each test level."""
        if not self.test_images:
            return None
        rows = []
        for sigma in self.recipe.test_sigmas:
            row = []
            for image in self.test_images[:3]:
                height, width = (min(side, 192) for side in image.shape[-2:])
                top, left = (
                    (side - cut) // 2 for side, cut in zip(image.shape[-2:], (height, width), strict=True)
                )
                clean = image[..., top : top + height, left : left + width]
                noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
                with torch.no_grad():
                    denoised = players["denoiser"](noisy, sigma)
                row += [F.pad(x, (0, 192 - width, 0, 192 - height)) for x in (noisy, denoised, clean)]
            rows.append(torch.cat(row, dim=3))
        sheet = torch.cat(rows, dim=2)[0].clamp(0, 1)
        return sheet.expand(3, -1, -1)


def _share_of_noise(count: int, side: int, rng: torch.Generator, host: torch.Generator) -> Tensor:
    """Maps (count, 1, side, side) from 0 to 1 of how much of its noise each pixel gets; most have pixels without.

    The maps of one step are all of scattered pixels, of squares, or smooth.
    """
    kind, fineness = torch.rand(2, generator=host).tolist()
    cell = 1 if kind < 0.6 else round(2 * 8**fineness)
    cells = -(-side // cell)
    few = torch.rand((count, 1, 1, 1), device=rng.device, generator=rng)
    least = (2 * torch.rand((count, 1, 1, 1), device=rng.device, generator=rng) - 1).clamp_min(0)
    map_ = torch.rand((count, 1, cells, cells), device=rng.device, generator=rng)
    if kind < 0.8:
        map_ = (map_ < few).to(map_)
        map_ = map_.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[..., :side, :side]
    else:
        map_ = F.interpolate(map_, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    return least + (1 - least) * map_


def _log_mse(x: Tensor, target: Tensor) -> Tensor:
    """Mean over images of log(mean squared error); errors far below a step of 8 bits count as equal."""
    return ((x - target).square().mean(dim=(1, 2, 3)) + _NEGLIGIBLE).log().mean()


_NEGLIGIBLE = 1e-5
_HALF_LEVEL = 50 / 255
_GRAY_LEVEL = 25 / 255
_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "mse": F.mse_loss,
    "log-mse": _log_mse,
}


def score_denoiser(
    network: Callable[[Tensor, PerImage], Tensor], images: Sequence[Tensor], sigma: float
) -> float:
    """Mean PSNR in dB by the usual protocol for published tables.

    Noise of seed 0 is drawn anew for each image and not clipped; the output is clamped and rounded to 8 bits;
    no border is cropped.

    Args:
        network: Denoiser called as `network(x, sigma)`.
        images: Clean images (1, C, H, W) in [0, 1].
        sigma: Noise level in [0, 1].
    """
    return mean_psnr(denoise_all(network, images, sigma), images)


@torch.no_grad()
def denoise_all(
    network: Callable[[Tensor, PerImage], Tensor], images: Sequence[Tensor], sigma: float, share: float = 1.0
) -> Iterator[Tensor]:
    """Add noise of seed 0 to a share of the pixels of some images (1, C, H, W), not clipped, and denoise them."""
    for image in images:
        rng = torch.Generator().manual_seed(0)
        noise = torch.randn(image.shape, generator=rng)
        level: PerImage = sigma
        if share < 1:
            level = sigma * (torch.rand(image[:, :1].shape, generator=rng) < share).to(image)
        yield network(image + level * noise, level)


def mean_psnr(estimates: Iterable[Tensor], images: Sequence[Tensor]) -> float:
    """Mean PSNR in dB of estimates after clamping and rounding to 8 bits."""
    pairs = zip(estimates, images, strict=True)
    return sum(float(metrics.psnr(metrics.quantize(x), image)) for x, image in pairs) / len(images)


def _test_images(path: Path, channels: int) -> list[Tensor]:
    images = []
    for encoded in read_pack(path):
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
        tensor = torch.from_numpy(pixels).reshape(*pixels.shape[:2], channels)
        images.append(tensor.permute(2, 0, 1)[None].float() / 255)
    return images
