"""Training of feed-forward restorers, alone, against a discriminator, or in cascade."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from invrestore import metrics, networks
from invrestore.data import PatchPool, read_pack
from invrestore.errors import TrainingError, WeightsError
from invrestore.networks import Cascade, Critic, MultiScaleDiscriminator, RestorerNetwork
from invrestore.training._degradations import Degraded, Degrader
from invrestore.training._gan import _plain
from invrestore.training._recipe import Recipe, Stage
from invrestore.training._restorer_recipe import RestorerRecipe, RestorerStage
from invrestore.training._task import FEW, RecipeTask
from invrestore.training.losses import (
    ADVERSARIAL,
    PerceptualLoss,
    clip_weights,
    corresponding_points,
    feature_matching,
    l1,
    lipschitz_penalty,
    mse,
    strongest,
)

__all__ = ["RestorerTask"]

Loss = tuple[str | tuple[str, ...], Tensor]
_SHOWN = 4


class RestorerTask(RecipeTask):
    """A network learns to undo damage that is done to clean crops on the fly.

    Players are "generator", "refiner" (the second network of a cascade) and "discriminator" where a stage has
    one. In a stage that trains both networks of a cascade one loss of the final image moves them together.

    Args:
        model: The restorer.
        recipe: Damage, losses and their weights.
        pool: Training images, on the device that trains.
        test_images: Held-out images (N, C, side, side) in [0, 1], or None.
    """

    def __init__(
        self,
        model: RestorerNetwork,
        recipe: RestorerRecipe,
        pool: PatchPool,
        test_images: Tensor | None = None,
    ) -> None:
        self.model, self.recipe, self.pool, self.test_images = model, recipe, pool, test_images
        if isinstance(model, Cascade):
            self.players: dict[str, nn.Module] = {"generator": model.generator}
            if model.refiner is not None:
                self.players["refiner"] = model.refiner
        else:
            self.players = {"generator": model}
        self.averaged = tuple(self.players)
        missing = {s.trains for s in recipe.stages} - {"generator"}
        if missing and "refiner" not in self.players:
            raise TrainingError(
                "RestorerTask",
                expected="a cascade with its second network, for stages that train it",
                found=recipe.architecture,
                remedy="training.ablate(recipe, gan_only=True) leaves these stages out.",
            )
        self.loss = ADVERSARIAL["wasserstein" if recipe.adversary.startswith("wasser") else recipe.adversary]
        if recipe.adversarial:
            self.players["discriminator"] = _discriminator(recipe, model)
        self.degrade = Degrader(recipe.degradations, informed=model.informed, seed=recipe.seed)
        self.blur = Degrader(recipe.refined, informed=False, seed=recipe.seed)
        self.perceptual = _perceptual(recipe)
        if self.perceptual is not None:
            layers = ", ".join(f"{name} {weight:g}" for name, weight in recipe.perceptual_layers.items())
            self.remark = f"perceptual features of {recipe.perceptual_network} at {layers}"
        self.protocol = ""
        if test_images is not None and recipe.tests:
            without = "; trained without the perceptual loss, whose network was not on disk"
            self.protocol = (
                f"mean RGB PSNR in dB and SSIM on the middle {recipe.test_side} x {recipe.test_side} pixels of "
                f"{len(test_images)} images of {recipe.test_folder}, image i damaged with seed i; output clamped "
                "and rounded to 8 bits; float32; input: what the network was shown"
                + (without if recipe.perceptual_network and self.perceptual is None else "")
            )

    @classmethod
    def create(
        cls, network: nn.Module, recipe: Recipe, train: Path, test: Path | None, device: torch.device
    ) -> Self:
        """Decode the packed images for a restorer."""
        if not isinstance(network, RestorerNetwork) or not isinstance(recipe, RestorerRecipe):
            raise TrainingError(
                "training.train", expected="a restorer architecture", found=recipe.architecture
            )
        if network.channels != 3:
            raise TrainingError(
                "training.train", expected="a colour network", found=f"{network.channels} channel(s)"
            )
        pool = PatchPool.from_pack(
            train,
            device=device,
            scales=recipe.scales,
            copies=recipe.copies,
            seed=recipe.seed,
            by_image=recipe.by_image,
            upright=recipe.upright,
        )
        return cls(network, recipe, pool, None if test is None else _centres(test, recipe))

    def join(self, players: Mapping[str, nn.Module]) -> nn.Module:
        """Return the restorer with these players."""
        if not isinstance(self.model, Cascade):
            return players["generator"]
        model = deepcopy(self.model).cpu()
        for name in self.averaged:
            setattr(model, name, players[name])
        return model

    def split(self, network: nn.Module) -> dict[str, nn.Module]:
        """Take a restorer apart."""
        if not isinstance(network, Cascade):
            return {"generator": network}
        return {name: getattr(network, name) for name in self.averaged}

    def losses(self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator) -> Iterator[Loss]:
        """Yield the losses of the discriminator and of the networks that the stage trains."""
        assert isinstance(stage, RestorerStage)
        if stage.trains == "refiner":
            clean = self._clean(stage, rng)
            restored = players["refiner"](self.blur(clean, rng).input)
            yield "refiner", self._distance(restored, clean, None, stage)
            return
        trained = ("generator", "refiner") if stage.trains == "both" else ("generator",)
        if stage.adversarial:
            for _ in range(self.recipe.critic_steps):
                clean = self._clean(stage, rng)
                damaged = self.degrade(clean, rng)
                with torch.no_grad():
                    fake = _through(players, trained, damaged.input)
                yield "discriminator", self._judge(players["discriminator"], damaged, clean, fake, rng)
                if self.recipe.adversary == "wasserstein-clip":
                    clip_weights(players["discriminator"], self.recipe.clip)
        if not stage.adversarial or self.recipe.critic_steps > 1:
            clean = self._clean(stage, rng)
            damaged = self.degrade(clean, rng)
        restored = _through(players, trained, damaged.input)
        loss = self._distance(restored, clean, damaged, stage)
        if stage.adversarial:
            discriminator = players["discriminator"].requires_grad_(False)
            loss = loss + self._deceive(discriminator, damaged, clean, restored, stage)
        yield trained if len(trained) > 1 else "generator", loss
        if stage.adversarial:
            players["discriminator"].requires_grad_(True)

    def _clean(self, stage: Stage, rng: torch.Generator) -> Tensor:
        return self.pool.crops(stage.batch, stage.patch, rng).float() / 255

    def _distance(self, x: Tensor, clean: Tensor, damaged: Degraded | None, stage: RestorerStage) -> Tensor:
        total = x.new_zeros(())
        if stage.l1:
            total = total + stage.l1 * l1(x, clean)
        if stage.mse:
            total = total + stage.mse * mse(x, clean)
        if stage.perceptual and self.perceptual is not None:
            total = total + stage.perceptual * self.perceptual.to(x.device)(x, clean)
        if stage.points and damaged is not None and self.recipe.point_loss != "none":
            points = corresponding_points(x, damaged.measured, damaged.known, self.recipe.point_loss)
            total = total + stage.points * points
        return total

    def _judge(
        self, discriminator: nn.Module, damaged: Degraded, clean: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Loss of the discriminator."""
        if self.recipe.discriminator == "MultiScaleDiscriminator":
            real_maps = discriminator(damaged.input, clean)
            fake_maps = discriminator(damaged.input, fake)
            losses = [
                self.loss.discriminator(real[-1], made[-1])
                for real, made in zip(real_maps, fake_maps, strict=True)
            ]
            return torch.stack(losses).sum()
        loss = self.loss.discriminator(discriminator(clean), discriminator(fake))
        if self.recipe.adversary == "wasserstein-penalty":
            # The module below the wrappers, which would not be differentiated outside the loop's backward pass.
            with self.recipe.autocast(clean.device):
                penalty = lipschitz_penalty(_plain(discriminator), clean, fake, rng)
            loss = loss + self.recipe.penalty * penalty
        return loss

    def _deceive(
        self,
        discriminator: nn.Module,
        damaged: Degraded,
        clean: Tensor,
        restored: Tensor,
        stage: RestorerStage,
    ) -> Tensor:
        """Adversarial loss of the restorer, with feature matching: against the strongest of several."""
        if self.recipe.discriminator == "Critic":
            logits = discriminator(restored)
            return stage.adversarial * self.loss.generator(logits.detach(), logits)
        maps = discriminator(damaged.input, restored)
        loss = stage.adversarial * strongest([self.loss.generator(m[-1].detach(), m[-1]) for m in maps])
        if stage.matching:
            with torch.no_grad():
                wanted = discriminator(damaged.input, clean)
            loss = loss + stage.matching * feature_matching(wanted, maps)
        return loss

    @torch.no_grad()
    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        """Return PSNR and SSIM of restored and of shown images for each test."""
        scores: dict[str, float] = {}
        if self.test_images is None:
            return scores
        images = self.test_images[:FEW] if few else self.test_images
        for name in self.recipe.tests:
            found = [self._restored(players, name, i) for i in range(len(images))]
            shown, restored = (torch.cat([pair[k] for pair in found]) for k in (0, 1))
            rounded = metrics.quantize(restored)
            scores[f"psnr_{name}"] = float(metrics.psnr(rounded, images).mean())
            scores[f"psnr_{name}_input"] = float(metrics.psnr(shown, images).mean())
            scores[f"ssim_{name}"] = float(metrics.ssim(rounded, images).mean())
        return scores

    def _restored(self, players: Mapping[str, nn.Module], name: str, index: int) -> tuple[Tensor, Tensor]:
        """What the network is shown of a test image (as a person sees it), and what it makes of it."""
        assert self.test_images is not None
        degrade = Degrader([self.recipe.tests[name]], informed=self.model.informed)
        rng = torch.Generator().manual_seed(index)
        clean = self.test_images[index : index + 1]
        # A square of clutter is cut from the next image.
        pair = torch.cat([clean, self.test_images[(index + 1) % len(self.test_images)][None]])
        damaged = degrade(pair, rng)
        trained = tuple(name for name in ("generator", "refiner") if name in players)
        return damaged.view[:1], _through(players, trained, damaged.input[:1])

    @torch.no_grad()
    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        """Show damaged, restored and clean images side by side, one row for each test."""
        if self.test_images is None or not self.recipe.tests:
            return None
        rows = []
        for name in self.recipe.tests:
            row = []
            for i in range(min(_SHOWN, len(self.test_images))):
                row += [*self._restored(players, name, i), self.test_images[i : i + 1]]
            rows.append(torch.cat(row, dim=3))
        return torch.cat(rows, dim=2)[0].clamp(0, 1)


def _through(players: Mapping[str, nn.Module], names: Sequence[str], x: Tensor) -> Tensor:
    for name in names:
        x = players[name](x)
    return x


def _discriminator(recipe: RestorerRecipe, model: RestorerNetwork) -> nn.Module:
    if recipe.discriminator == "MultiScaleDiscriminator":
        return MultiScaleDiscriminator(model.inputs, model.channels, **recipe.discriminator_arguments)
    size = next(stage.patch for stage in recipe.stages if stage.adversarial)
    # A gradient penalty is a matter of single images, and weights that are clipped need normalisation.
    normalised = recipe.adversary != "wasserstein-penalty"
    return Critic(model.channels, size, normalised=normalised, **recipe.discriminator_arguments)


def _perceptual(recipe: RestorerRecipe) -> PerceptualLoss | None:
    name = recipe.perceptual_network
    if not name or not any(stage.perceptual for stage in recipe.stages):
        return None
    try:
        network = name if name in ("vgg16", "vgg19") else networks.load(name)
        return PerceptualLoss(network, recipe.perceptual_layers, recipe.perceptual_distance)  # type: ignore[arg-type]
    except WeightsError as error:
        warnings.warn(f"training without the perceptual loss: {error}", stacklevel=2)
        return None


def _centres(path: Path, recipe: RestorerRecipe) -> Tensor | None:
    """The middle of the first test images that are large enough, (N, 3, side, side)."""
    side, found = recipe.test_side, []
    for encoded in read_pack(path):
        with Image.open(io.BytesIO(encoded)) as image:
            if min(image.size) < side:
                continue
            left, top = (image.width - side) // 2, (image.height - side) // 2
            found.append(np.asarray(image.convert("RGB").crop((left, top, left + side, top + side))))
        if len(found) == recipe.test_images:
            break
    if not found:
        return None
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255
