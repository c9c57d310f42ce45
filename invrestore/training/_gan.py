"""Training of generators with a discriminator and an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from invrestore import metrics
from invrestore.data import ImagePool, read_squares
from invrestore.errors import TrainingError
from invrestore.networks import Encoder, LatentModel, StyleGenerator
from invrestore.training._augment import Augment
from invrestore.training._distances import RandomFeatures, kernel_distance, nearest_distances
from invrestore.training._recipe import GanRecipe, GanStage, Recipe, Stage
from invrestore.training._task import FEW, RecipeTask
from invrestore.training._views import damaged_views
from invrestore.training.losses import (
    ADVERSARIAL,
    code_distance,
    feature_distance,
    gradient_penalty,
    kl_to_normal,
    multiscale_l1,
)

__all__ = ["GanTask"]

_SCORED = 2000  # Generated images that are compared with the held-out ones
_BATCH = 50
_COLUMNS = 10

Loss = tuple[str | tuple[str, ...], Tensor]


class GanTask(RecipeTask):
    """A generator learns to make images that its discriminator takes for real.

    Players are "generator", "discriminator" and, if the recipe trains one, "encoder".

    Args:
        model: The generator with its companions.
        recipe: Losses and their weights.
        pool: Training images, on the device that trains.
        test_images: Held-out uint8 images (N, C, size, size), or None.
    """

    def __init__(
        self, model: LatentModel, recipe: GanRecipe, pool: ImagePool, test_images: Tensor | None = None
    ) -> None:
        if (recipe.encoder != "none") != (model.encoder is not None):
            raise TrainingError(
                "GanTask",
                expected="an architecture with an encoder"
                if model.encoder is None
                else "encoder to be joint or inverse",
                found=f"{type(model).__name__} and encoder={recipe.encoder!r}",
                remedy="A DCGAN has no encoder, a FaceGAN has one.",
            )
        self.model = model
        self.players: dict[str, nn.Module] = {
            "generator": model.generator,
            "discriminator": model.discriminator,
        }
        if model.encoder is not None:
            self.players["encoder"] = model.encoder
        self.averaged = tuple(self.players)
        self.recipe = recipe
        self.pool = pool
        self.test_images = test_images
        self.augment = Augment(recipe.augment)
        self.loss = ADVERSARIAL[recipe.loss]
        self.protocol = _PROTOCOL if test_images is not None else ""

    @classmethod
    def create(
        cls, network: nn.Module, recipe: Recipe, train: Path, test: Path | None, device: torch.device
    ) -> Self:
        """Decode the packed images for a generator."""
        if not isinstance(network, LatentModel) or not isinstance(recipe, GanRecipe):
            raise TrainingError(
                "training.train", expected="a generator architecture", found=recipe.architecture
            )
        images = read_squares(train, recipe.size, network.channels).to(device)
        held_out = None if test is None else read_squares(test, recipe.size, network.channels)
        return cls(network, recipe, ImagePool(images, recipe.mirror), held_out)

    def join(self, players: Mapping[str, nn.Module]) -> LatentModel:
        """Return a model of copies of these players, with the distributions of its codes and of w measured anew.

        A generator that did not learn keeps the distribution of codes it knows.
        """
        model = deepcopy(self.model).cpu()
        for name, player in players.items():
            setattr(model, name, deepcopy(player))
        if isinstance(model.generator, StyleGenerator):
            learnt = not all(stage.damaged for stage in self.recipe.stages)
            if self.recipe.encoder == "joint" and learnt:
                self._measure_codes(cast(Encoder, model.encoder))
                cast(Encoder, model.encoder).standardise(model.generator.mapping)
            model.generator.measure_w_mean()
        return model

    @torch.no_grad()
    def _measure_codes(self, encoder: Encoder) -> None:
        """Give an encoder mean and covariance of its codes of all training images."""
        images = torch.split(self.pool.images, _BATCH)
        rng = torch.Generator().manual_seed(0)
        codes = []
        for part in images:
            mean, log_variance = encoder(part.cpu().float() / 255)
            codes.append(_draw(mean, log_variance, rng))
        encoder.follow(torch.cat(codes), share=1.0)

    def split(self, network: nn.Module) -> dict[str, nn.Module]:
        """Take a model apart."""
        return {name: getattr(network, name) for name in self.players}

    def losses(self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator) -> Iterator[Loss]:
        """Yield the losses of discriminator and generator, or of the autoencoder, or of the encoder alone."""
        real = self.pool.draw(stage.batch, rng)
        if isinstance(stage, GanStage) and stage.damaged:
            yield "encoder", self._completion(players, real, round(stage.damaged * stage.batch), rng)
        elif isinstance(stage, GanStage) and not stage.adversarial:
            code, divergence = self._encode(players, real, rng)
            loss = self._similarity(players["generator"](code), real) + divergence
            yield ("encoder", "generator"), loss
        else:
            yield from self._duel(players, real, rng)

    def _duel(self, players: Mapping[str, nn.Module], real: Tensor, rng: torch.Generator) -> Iterator[Loss]:
        recipe, discriminator = self.recipe, players["discriminator"]
        joint = recipe.encoder == "joint"
        encoded = real[: round(recipe.encoded * len(real))] if joint else real[:0]
        z = torch.randn((len(real) - len(encoded), self.model.latent_dim), device=real.device, generator=rng)
        if joint:
            code, divergence = self._encode(players, encoded, rng)
            z = cast(Encoder, _plain(players["encoder"])).place(z)
        fake = players["generator"](torch.cat((code, z)) if joint else z)
        alter_real, alter_fake = self.augment.draw(real, rng), self.augment.draw(real, rng)
        seen = alter_real(real)
        # A pass for each kind, as the generator will be judged: batch normalisation would tell a mixture apart.
        loss = self.loss.discriminator(discriminator(seen), discriminator(alter_fake(fake.detach())))
        yield "discriminator", loss + self._penalty(discriminator, seen, alter_fake(fake.detach()))

        discriminator.requires_grad_(False)
        matched = joint and recipe.features > 0
        logits, maps = discriminator(alter_fake(fake), features=True)
        if self.loss.generator_sees_real:
            real_logits = discriminator(seen)
        else:
            real_logits = logits.detach()
        loss = recipe.adversarial * self.loss.generator(real_logits, logits)
        if joint:
            loss = loss + divergence + self._similarity(fake[: len(encoded)], encoded)
        if matched:
            # A reconstruction and its image are altered alike, so that they differ by the reconstruction only.
            with torch.no_grad():
                _, target = discriminator(alter_fake[: len(encoded)](encoded), features=True)
            distance = feature_distance([m[: len(encoded)] for m in maps], target)
            loss = loss + recipe.features * distance
        yield (("encoder", "generator") if joint else "generator"), loss
        discriminator.requires_grad_(True)
        if recipe.encoder == "inverse":
            yield "encoder", self._inversion(players, real, z, fake.detach())

    def _encode(
        self, players: Mapping[str, nn.Module], x: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw a code of each image; return it with the weighted divergence of the codes."""
        mean, log_variance = players["encoder"](x)
        code = _draw(mean, log_variance, rng)
        cast(Encoder, _plain(players["encoder"])).follow(code)
        return code, self.recipe.kl / x[0].numel() * kl_to_normal(mean, log_variance)

    def _completion(
        self, players: Mapping[str, nn.Module], real: Tensor, damaged: int, rng: torch.Generator
    ) -> Tensor:
        """Loss of an encoder that sees some images damaged, under a generator that it does not influence.

        What its code makes of a damaged image is compared with the whole one, before and after the exact data are put
        in: the second says how well is guessed what the data do not show.
        """
        whole = len(real) - damaged
        views = list(damaged_views(real[whole:], rng))
        mean, log_variance = players["encoder"](torch.cat((real[:whole], *(view.seen for view in views))))
        code = mean
        if self.recipe.encoder == "joint":
            drawn = _draw(mean[:whole], log_variance[:whole], rng)
            cast(Encoder, _plain(players["encoder"])).follow(drawn)
            code = torch.cat((drawn, mean[whole:]))
        clean = torch.cat((real[:whole], *(view.clean for view in views)))
        generator = players["generator"]
        generator.requires_grad_(False)
        rebuilt = generator(code)
        generator.requires_grad_(True)
        loss = self._similarity(rebuilt, clean)
        loss = loss + self.recipe.kl / real[0].numel() * kl_to_normal(mean, log_variance)
        for view, image in zip(views, rebuilt[whole:].split([len(v.clean) for v in views]), strict=True):
            if view.project is not None:
                share = len(view.clean) / len(real)
                loss = loss + share * self._similarity(view.project(image), view.clean)
        return loss

    def _similarity(self, x: Tensor, target: Tensor) -> Tensor:
        return self.recipe.reconstruction * multiscale_l1(x, target)

    def _penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        # torch.compile cannot differentiate twice, so the plain module below the wrappers is called.
        plain = _plain(discriminator)
        total = real.new_zeros(())
        for weight, images in ((self.recipe.r1, real), (self.recipe.r2, fake)):
            if weight:
                with self.recipe.autocast(real.device):
                    penalty = gradient_penalty(plain, images[: self.recipe.penalised])
                total = total + weight * penalty
        return total

    def _inversion(self, players: Mapping[str, nn.Module], real: Tensor, z: Tensor, fake: Tensor) -> Tensor:
        """Loss of an encoder that follows a generator: pixels of real images, codes of generated ones."""
        generator = players["generator"]
        mean, log_variance = players["encoder"](torch.cat((real, fake)))
        generator.requires_grad_(False)
        rebuilt = generator(mean[: len(real)])
        generator.requires_grad_(True)
        found = code_distance(mean[len(real) :], z)
        spread = self.recipe.kl / real[0].numel() * kl_to_normal(mean, log_variance)
        return self._similarity(rebuilt, real) + self.recipe.codes * found + spread

    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        """Score reconstructions, resemblance as a set and distance from the training images."""
        if self.test_images is None:
            return {}
        images = self.test_images[:FEW] if few else self.test_images
        test = [part.float() / 255 for part in torch.split(images, _BATCH)]
        if few:
            # A set of a few images has no distance worth the name; what the encoder gives back can be scored.
            return (
                {"reconstruction_psnr": self._reconstruction_psnr(players, test)}
                if "encoder" in players
                else {}
            )
        generated = self._generate(players, _SCORED)
        known = self.pool.images.cpu()
        features = RandomFeatures(self.model.channels)
        reference = [
            part.float() / 255 for part in torch.split(known[:: max(1, len(known) // _SCORED)], _BATCH)
        ]
        scores = {
            "kernel_distance": kernel_distance(torch.split(generated, _BATCH), test, features),
            "kernel_distance_of_training_images": kernel_distance(reference, test, features),
            "nearest_training_rms": float(nearest_distances(generated[:500], known)[0].median()),
            "nearest_training_rms_of_test_images": float(
                nearest_distances(torch.cat(test)[:500], known)[0].median()
            ),
        }
        if "encoder" in players:
            scores = {"reconstruction_psnr": self._reconstruction_psnr(players, test)} | scores
        return scores

    @torch.no_grad()
    def _reconstruction_psnr(self, players: Mapping[str, nn.Module], test: list[Tensor]) -> float:
        return float(torch.cat([metrics.psnr(self._rebuild(players, x), x) for x in test]).mean())

    @torch.no_grad()
    def _rebuild(self, players: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        return cast(Tensor, players["generator"](players["encoder"](x)[0]))

    @torch.no_grad()
    def _generate(self, players: Mapping[str, nn.Module], count: int) -> Tensor:
        """Images of random codes, seed 0."""
        z = torch.randn(count, self.model.latent_dim, generator=torch.Generator().manual_seed(0))
        return torch.cat([players["generator"](part) for part in torch.split(z, _BATCH)])

    def samples(self, players: Mapping[str, nn.Module]) -> Tensor:
        """Show random images, the nearest training images of the first row, and reconstructions.

        Six rows of images of random codes; below the first of them the nearest training image of each; then
        held-out images, each row with its reconstructions below.
        """
        generated = self._generate(players, 6 * _COLUMNS)
        rows = list(torch.split(generated, _COLUMNS))
        nearest = nearest_distances(rows[0], self.pool.images.cpu())[1]
        rows.insert(1, self.pool.images.cpu()[nearest].float() / 255)
        if self.test_images is not None and "encoder" in players:
            for part in torch.split(self.test_images[: 3 * _COLUMNS], _COLUMNS):
                if len(part) == _COLUMNS:
                    x = part.float() / 255
                    rows += [x, self._rebuild(players, x)]
        sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        return sheet.expand(3, -1, -1)


def _draw(mean: Tensor, log_variance: Tensor, rng: torch.Generator) -> Tensor:
    noise = torch.randn(mean.shape, device=mean.device, generator=rng)
    return mean + (0.5 * log_variance).exp() * noise


def _plain(module: nn.Module) -> nn.Module:
    """The module below the wrappers for devices and compilation."""
    inner: Any = getattr(module, "module", module)
    return cast(nn.Module, getattr(inner, "_orig_mod", inner))


_PROTOCOL = (
    "weights rounded to float16, float32 computation. reconstruction_psnr: mean RGB PSNR in dB of G(E(x).mean) "
    f"on the held-out images. kernel_distance: cubic-kernel MMD^2 of {_SCORED} images of random codes (seed 0) "
    "and the held-out images in statistics of a random convolutional network (RandomFeatures, seed 0); "
    "kernel_distance_of_training_images: the same of real training images. nearest_training_rms: median "
    "over 500 generated images of the root-mean-square distance to the nearest training image, in units of "
    "the image range; nearest_training_rms_of_test_images: the same of held-out images"
)
