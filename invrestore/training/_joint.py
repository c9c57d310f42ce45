"""Training of a denoiser that is judged by a frozen high-level network as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore.data import LabelledPool, PatchPool, read_labelled
from invrestore.errors import TrainingError
from invrestore.networks import DenoiserNetwork
from invrestore.training._denoiser import denoise_all, mean_psnr
from invrestore.training._high_level import load_high_level, read_tests
from invrestore.training._high_level_recipe import JointRecipe
from invrestore.training._label_scores import label_loss, score_labels
from invrestore.training._recipe import Recipe, Stage
from invrestore.training._task import FEW, RecipeTask

__all__ = ["JointTask"]


class JointTask(RecipeTask):
    """A denoiser learns L = MSE + lam * cross-entropy, the latter of a frozen network behind it.

    The high-level network is copied, kept in evaluation mode and handed to no optimiser, so neither its weights nor
    its running statistics move; gradients pass through it to the denoiser.

    Args:
        network: The denoiser, `network(x, sigma)`.
        recipe: Noise levels and weights of the losses.
        high_level: Any module from images (B, 3, H, W) in [0, 1] to logits, (B, K) or (B, K, H, W).
        labelled: Training images with labels, on the device that trains.
        others: Training images without, for the squared error alone; None where there are none.
        test_images: Held-out images (1, 3, H, W) in [0, 1].
        test_labels: Their class numbers, or maps (H, W).

    Reference:
        Liu et al. (2018), When Image Denoising Meets High-Level Vision Tasks, equation 1.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: JointRecipe,
        high_level: nn.Module,
        labelled: LabelledPool,
        others: PatchPool | None = None,
        test_images: Sequence[Tensor] = (),
        test_labels: Sequence[int | Tensor] = (),
    ) -> None:
        self.players = {"denoiser": network}
        self.averaged = ("denoiser",)
        self.recipe, self.labelled, self.others = recipe, labelled, others
        self.high_level = deepcopy(high_level).eval().requires_grad_(False).to(labelled.pixels.device)
        self.test_images, self.test_labels = test_images, test_labels
        score = "miou: mean intersection over union" if labelled.maps else "top1: accuracy"
        self.protocol = (
            f"psnr: mean RGB PSNR in dB; {score} in percent of {recipe.high_level or 'the high-level network'} "
            f"on the denoised image; {len(self.test_images)} images spread over the test images of "
            f"{recipe.test_folder}; noise of seed 0 for each image, not clipped; float32"
            if self.test_images
            else ""
        )

    @classmethod
    def create(
        cls,
        network: nn.Module,
        recipe: Recipe,
        train: Path,
        test: Path | None,
        device: torch.device,
        high_level: nn.Module | None = None,
    ) -> Self:
        """Decode packed images and labels, and load the high-level network unless one is given."""
        if not isinstance(network, DenoiserNetwork) or not isinstance(recipe, JointRecipe):
            raise TrainingError(
                "training.train", expected="a denoiser architecture", found=recipe.architecture
            )
        if network.channels != 3:
            raise TrainingError(
                "training.train", expected="a colour denoiser", found=f"{network.channels} channel(s)"
            )
        if high_level is None:
            high_level = load_high_level(recipe.high_level)
        maps = recipe.task == "segmentation"
        classes: Sequence[str] | None = getattr(high_level, "classes", None)
        found = read_labelled(train, maps, classes, recipe.ignore)
        labelled = LabelledPool(found.images, found.labels, device)
        others = PatchPool(found.others, device, by_image=True, upright=True) if found.others else None
        images, labels = read_tests(test, maps, found.classes if classes is None else classes, recipe.ignore)
        spread = slice(None, None, max(1, len(images) // recipe.test_images))
        return cls(network, recipe, high_level, labelled, others, images[spread], labels[spread])

    def losses(
        self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the joint loss of a batch."""
        recipe = self.recipe
        clean, labels = self.labelled.draw(stage.batch, stage.patch, rng)
        denoised = self._denoise(players["denoiser"], clean, rng)
        error, count = (denoised - clean).square().sum(), clean.numel()
        if self.others is not None:
            size, side = recipe.other_batch or stage.batch, recipe.other_patch or stage.patch
            other = self.others.crops(size, side, rng).float() / 255
            error = error + (self._denoise(players["denoiser"], other, rng) - other).square().sum()
            count += other.numel()
        loss = error / count / recipe.unit**2
        if recipe.lam:
            with recipe.autocast(clean.device):
                logits = self.high_level(denoised)
            loss = loss + recipe.lam * label_loss(logits, labels, ignore=recipe.ignore)
        yield "denoiser", loss

    def _denoise(self, denoiser: nn.Module, clean: Tensor, rng: torch.Generator) -> Tensor:
        """Denoise images after noise of one of the levels each."""
        levels = torch.tensor(self.recipe.sigmas, device=clean.device)
        sigma = levels[torch.randint(len(levels), (len(clean),), device=clean.device, generator=rng)]
        noise = torch.randn(clean.shape, device=clean.device, generator=rng)
        denoised: Tensor = denoiser(clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
        return denoised

    @torch.no_grad()
    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        """Return PSNR, and accuracy or mean intersection over union in percent, at each noise level."""
        if not self.test_images:
            return {}
        denoiser, high_level = players["denoiser"], deepcopy(self.high_level).cpu()
        name = "miou" if self.labelled.maps else "top1"
        every = max(1, len(self.test_images) // FEW) if few else 1
        images, labels = self.test_images[::every], self.test_labels[::every]
        scores: dict[str, float] = {}
        for sigma in self.recipe.sigmas:
            level = round(255 * sigma)
            denoised = list(denoise_all(denoiser, images, sigma))
            scores[f"psnr_{level}"] = round(mean_psnr(denoised, images), 3)
            score = score_labels(high_level, denoised, labels, self.recipe.ignore)
            scores[f"{name}_{level}"] = round(score, 2)
        return scores

    @torch.no_grad()
    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        """Show noisy, denoised and clean test images, one row for each noise level."""
        if not self.test_images:
            return None
        rows = []
        for sigma in self.recipe.sigmas:
            row = []
            for x in self.test_images[:: max(1, len(self.test_images) // 4)][:3]:
                noisy = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
                row += [noisy, players["denoiser"](noisy, sigma), x]
            height = max(x.shape[-2] for x in row)
            rows.append(torch.cat([F.pad(x, (0, 0, 0, height - x.shape[-2])) for x in row], dim=3))
        width = max(row.shape[-1] for row in rows)
        return torch.cat([F.pad(row, (0, width - row.shape[-1])) for row in rows], dim=2)[0].clamp(0, 1)
