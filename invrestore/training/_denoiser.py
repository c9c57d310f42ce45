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
from invrestore.data import PatchPool, read_pack
from invrestore.errors import TrainingError
from invrestore.networks import DenoiserNetwork
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
        self.test_images = list(test_images)
        self.protocol = (
            f"mean RGB PSNR in dB on {recipe.test_folder} ({len(self.test_images)} images), noise of seed 0 for "
            "each image, not clipped; output clamped and rounded to 8 bits; no border crop; float32"
            if self.test_images
            else ""
        )

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
        noisy = clean + sigma * torch.randn(clean.shape, device=clean.device, generator=rng)
        target = clean
        if self.teacher is not None:
            target = clean.lerp(self._lesson(noisy, sigma.flatten(), rng), self.recipe.taught)
        distance = _DISTANCES[self.recipe.loss]
        yield "denoiser", distance(players["denoiser"](noisy, sigma.flatten()), target)

    @torch.no_grad()
    def _lesson(self, noisy: Tensor, sigma: Tensor, rng: torch.Generator) -> Tensor:
        """What the network said before this training, in the mean over four flips and turns drawn anew."""
        assert self.teacher is not None
        teacher = self.teacher.to(noisy.device)
        # Drawn on the host, which need not wait for the device then.
        drawn = torch.randperm(8, generator=torch.Generator().manual_seed(rng.initial_seed()))[:4].tolist()
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
        return {
            f"psnr_{round(255 * sigma)}": score_denoiser(players["denoiser"], images, sigma)
            for sigma in self.recipe.test_sigmas
        }

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


def _log_mse(x: Tensor, target: Tensor) -> Tensor:
    """Mean over images of log(mean squared error); errors far below a step of 8 bits count as equal."""
    return ((x - target).square().mean(dim=(1, 2, 3)) + _NEGLIGIBLE).log().mean()


_NEGLIGIBLE = 1e-5
_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "mse": F.mse_loss,
    "log-mse": _log_mse,
}


def score_denoiser(network: nn.Module, images: Sequence[Tensor], sigma: float) -> float:
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
def denoise_all(network: nn.Module, images: Sequence[Tensor], sigma: float) -> Iterator[Tensor]:
    """Add noise of seed 0 to each of some images (1, C, H, W), not clipped, and denoise it."""
    for image in images:
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        yield network(image + sigma * noise, sigma)


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
