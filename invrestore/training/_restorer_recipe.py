"""Recipes of feed-forward restorers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from invrestore.errors import TrainingError
from invrestore.training._degradations import Blurred, Degradation, Noisy
from invrestore.training._recipe import AdversarialRecipe, Recipe, Stage

__all__ = ["RestorerRecipe", "RestorerStage", "ablate"]


class RestorerStage(Stage):
    """What is trained up to a point of the schedule, and the weights of its losses.

    Attributes:
        trains: "generator"; "refiner", the second network of a cascade, alone on the recipe's `refined`
            degradations; or "both", end to end, gradients of the final image reaching the generator.
        l1: Weight of the L1 distance to the true image.
        mse: Weight of the squared distance.
        perceptual: Weight of the distance in the features of `perceptual_network`.
        points: Weight of the corresponding-point loss.
        adversarial: Weight of the adversarial loss; 0 leaves the discriminator out.
        matching: Weight of feature matching in the discriminator's layers.
    """

    trains: Literal["generator", "refiner", "both"] = "generator"
    l1: float = Field(default=0.0, ge=0)
    mse: float = Field(default=0.0, ge=0)
    perceptual: float = Field(default=0.0, ge=0)
    points: float = Field(default=0.0, ge=0)
    adversarial: float = Field(default=0.0, ge=0)
    matching: float = Field(default=0.0, ge=0)


class RestorerRecipe(AdversarialRecipe):
    """A network that maps degraded images to restored ones, trained on damage made on the fly.

    Attributes:
        kind: Tells recipes apart in files.
        degradations: What is to be undone.
        refined: What the second network of a cascade is pre-trained to undo.
        by_image: Draw crops from every image equally often, not by its size.
        upright: Mirror crops left to right only.
        discriminator: "Critic" judges images, "MultiScaleDiscriminator" pairs of input and image.
        discriminator_arguments: Its constructor arguments; sizes and channels follow from the recipe.
        adversary: "wasserstein-penalty", "wasserstein-clip", "least-squares", "minimax" (as first proposed) or
            "non-saturating".
        critic_steps: Updates of the discriminator in each step.
        penalty: Weight of the gradient penalty.
        clip: Largest weight of a clipped critic.
        point_loss: Distance of the corresponding-point loss, or "none".
        perceptual_network: "vgg16" or "vgg19" (read from disk, and the loss left out where they are not), a name
            of the catalogue, or empty.
        perceptual_layers: Weights of its layers by name.
        perceptual_distance: "l1" or "mse".
        tests: Degradations with fixed numbers by name, for scores and the sample sheet.
        test_side: Side of the centre crops of the test images that are scored.
        test_images: Most test images that are scored.
    """

    kind: Literal["restorer"] = "restorer"
    stages: tuple[RestorerStage, ...]
    degradations: tuple[Degradation, ...] = Field(min_length=1)
    refined: tuple[Degradation, ...] = (Blurred(sigma=(0.0, 0.1), width=(0.3, 2.0)), Noisy(sigma=(0.0, 0.1)))
    by_image: bool = False
    upright: bool = False
    discriminator: Literal["Critic", "MultiScaleDiscriminator"] = "Critic"
    discriminator_arguments: dict[str, Any] = Field(default_factory=dict)
    adversary: Literal[
        "wasserstein-penalty", "wasserstein-clip", "least-squares", "minimax", "non-saturating"
    ] = "wasserstein-penalty"
    critic_steps: int = Field(default=1, ge=1)
    penalty: float = Field(default=10.0, ge=0)
    clip: float = Field(default=0.01, gt=0)
    point_loss: Literal["l2", "l1", "none"] = "l2"
    perceptual_network: str = ""
    perceptual_layers: dict[str, float] = Field(default_factory=dict)
    perceptual_distance: Literal["l1", "mse"] = "l1"
    tests: dict[str, Degradation] = Field(default_factory=dict)
    test_side: int = Field(default=128, ge=8)
    test_images: int = Field(default=24, ge=1)

    @property
    def adversarial(self) -> bool:
        """Whether a discriminator takes part in any stage."""
        return any(stage.adversarial > 0 for stage in self.stages)

    @model_validator(mode="after")
    def _fits_together(self) -> RestorerRecipe:
        for stage in self.stages:
            weights = (stage.l1, stage.mse, stage.perceptual, stage.points, stage.adversarial, stage.matching)
            if not any(weights):
                raise ValueError("every stage needs a loss with a weight above 0")
            if stage.matching and self.discriminator != "MultiScaleDiscriminator":
                raise ValueError("feature matching needs the MultiScaleDiscriminator")
        sides = {stage.patch for stage in self.stages if stage.adversarial}
        if self.discriminator == "Critic" and len(sides) > 1:
            raise ValueError("a Critic has one size: adversarial stages need the same patch")
        if self.adversary.startswith("wasserstein") and self.discriminator != "Critic" and self.adversarial:
            raise ValueError("Wasserstein losses need a Critic")
        if any(stage.trains != "generator" for stage in self.stages) and self.architecture != "Cascade":
            raise ValueError("only a Cascade has a second network to train")
        return self


def ablate(
    recipe: Recipe,
    *,
    without: Literal["pretraining"] | None = None,
    gan_only: bool = False,
    point_loss: Literal["l2", "l1", "none"] | None = None,
) -> RestorerRecipe:
    """Return a recipe without one of its parts, under a name of its own, as the papers' tables have it.

    Args:
        recipe: Recipe of a restorer.
        without: "pretraining" leaves out all stages of a cascade but the last: both networks are trained end to
            end from random weights, for the whole schedule, with the discriminator and the perceptual loss of the
            second stage.
        gan_only: Leave out the second network of a cascade, and its stages.
        point_loss: Another corresponding-point loss, or "none".

    Raises:
        TrainingError: The recipe has no such part.
    """
    if not isinstance(recipe, RestorerRecipe):
        raise TrainingError(
            "ablate", expected="the recipe of a restorer", found=f"{recipe.name!r}, another kind"
        )
    changes: dict[str, Any] = {}
    suffix = ""
    if (without or gan_only) and recipe.architecture != "Cascade":
        raise TrainingError(
            "ablate",
            expected="a cascade",
            found=recipe.name,
            remedy="Take the recipe cascade or cascade-cpu.",
        )
    if without is not None and gan_only:
        raise TrainingError("ablate", expected="one ablation at a time", found="two")
    if without == "pretraining":
        # The last stage alone, with the losses of the others: only the pre-training is missing.
        weights = {
            name: max(getattr(stage, name) for stage in recipe.stages)
            for name in ("adversarial", "perceptual")
        }
        changes["stages"] = (recipe.stages[-1].model_copy(update=weights),)
        suffix += "-no-pretraining"
    if gan_only:
        kept = [stage for stage in recipe.stages if stage.trains == "generator"]
        scale = kept[-1].until
        changes["stages"] = tuple(s.model_copy(update={"until": min(s.until / scale, 1.0)}) for s in kept)
        changes["arguments"] = recipe.arguments | {"refined": False}
        suffix += "-gan-only"
    if point_loss is not None:
        if not any(stage.points for stage in recipe.stages):
            raise TrainingError(
                "ablate",
                expected="a recipe with a corresponding-point loss",
                found=recipe.name,
                remedy="Take xgan-sparse, xgan-block or their -cpu variants.",
            )
        changes["point_loss"] = point_loss
        suffix += f"-points-{point_loss}"
    if not changes:
        return recipe
    name = recipe.name + suffix
    named = {"name": name, "checkpoint": (recipe.checkpoint or recipe.name) + suffix}
    return RestorerRecipe.model_validate(recipe.model_dump() | _plain(changes) | named)


def _plain(changes: dict[str, Any]) -> dict[str, Any]:
    if "stages" in changes:
        changes = changes | {"stages": [stage.model_dump() for stage in changes["stages"]]}
    return changes
