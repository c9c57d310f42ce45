"""Typed recipes: everything that decides how a network comes out, in one frozen object."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from invrestore.networks._precision import has_matrix_units
from invrestore.training._degradations import Degradation

__all__ = ["DenoiserRecipe", "GanRecipe", "GanStage", "Optimizer", "Recipe", "Source", "Stage"]


class _Strict(BaseModel):
    """Frozen, and a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A folder or zip archive of images inside the data folder.

    Attributes:
        folder: Path inside the data folder; "." is the data folder itself.
        split: "train", "val" or "test" as the folder's layout defines it; None takes all images that are not
            reserved for measuring.
    """

    folder: str
    split: Literal["train", "val", "test"] | None = "train"


class Stage(_Strict):
    """Crop size and batch size up to a point of the schedule.

    Attributes:
        until: Progress in (0, 1] at which the stage ends; the last stage ends at 1.
        patch: Side of the square crops in pixels.
        batch: Crops in a step, on each device.
    """

    until: float = Field(default=1.0, gt=0, le=1)
    patch: int = Field(gt=0)
    batch: int = Field(gt=0)


class Optimizer(_Strict):
    """How parameters move, after a linear warm-up of the rate.

    Attributes:
        kind: "muon" (matrices by Muon, the rest by Adam), "adamw", or "rmsprop", whose decay is the second of
            `betas`.
        lr: Largest learning rate.
        betas: Decays of Adam's moments.
        weight_decay: Decoupled weight decay.
        warmup: Steps over which the rate rises from zero.
        schedule: "cosine": the rate falls to zero along half a cosine. "constant" suits a discriminator that
            joins late.
        clip_norm: Longer gradients of a network are shortened to this norm, so that one odd batch cannot undo a
            training; None leaves them.
    """

    kind: Literal["muon", "adamw", "rmsprop"] = "muon"
    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=100, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float | None = Field(default=None, gt=0)


class Recipe(_Strict):
    """What every training has.

    Attributes:
        name: Name of the recipe.
        checkpoint: Name of the weights it makes; empty for the name of the recipe. Recipes of one network for
            different machines share it.
        architecture: Class of the network in `invrestore.networks`.
        arguments: Its constructor arguments.
        start: Weights to begin from, a name of the catalogue or a `.safetensors` file of the same architecture,
            or of one with fewer residual blocks; empty begins from random ones.
        seed: Of all randomness. Step k draws from (seed, k), so a resumed run repeats an uninterrupted one.
        sources: Where images come from. If none of these folders exists, the data folder itself is used.
        scales: Range of random reductions of training images.
        copies: Sizes of each image kept in memory.
        test_folder: Folder or zip archive inside the data folder whose images are scored, if it is there; else
            the "test" images of a data folder whose layout has some.
        test_split: "test" or "val" to take only those of the test folder; None takes all.
        max_side: Larger images are reduced before they are packed; None keeps them.
        max_bytes: Size of the packed images, of which a decoded copy stays in memory; of a folder with more, images are
            drawn at random. None takes all.
        stages: Crop and batch sizes along the schedule.
        optimizer: How parameters move.
        ema: Decay of the averaged weights, which are what is evaluated and exported.
        revive: Steps between two looks for channels of residual blocks that nothing raises above zero, which
            therefore do not learn: they are drawn anew, without a change of what the network says. A training that
            starts from weights begins with a look. None lets them be.
        steps: Length of the schedule in steps; None when only time ends it.
        minutes: Length of the schedule in minutes of training, over all resumed parts; None when only steps
            end it.
        precision: "bf16" computes convolutions in bfloat16, "32" in float32, and "auto" in bfloat16 where that is
            faster: on GPUs since Ampere and processors with matrix units. Weights stay in float32.
        compile: Compile the networks with torch.compile.
        log_every: Steps between lines of the log; also how often the loss is checked to be finite.
        save_minutes: Minutes between checkpoints.
        show_minutes: Minutes between looks at the averaged networks: scores on a few test images in the log, and a
            sample sheet `samples-STEP.png`. They do not count as training. None looks at the end only.
        licence: Terms of the training data and of the weights, for the card.
        reference: Paper of the method, for the card.
    """

    name: str
    checkpoint: str = ""
    architecture: str = ""
    arguments: dict[str, Any] = {}
    start: str = ""
    seed: int = 0
    sources: tuple[Source, ...] = (Source(folder="."),)
    scales: tuple[float, float] = (1.0, 1.0)
    copies: int = Field(default=1, ge=1)
    max_side: int | None = Field(default=None, ge=8)
    max_bytes: int | None = Field(default=60_000_000, gt=0)
    test_folder: str = ""
    test_split: Literal["val", "test"] | None = None
    stages: tuple[Stage, ...]
    optimizer: Optimizer = Optimizer()
    ema: float = Field(default=0.999, ge=0, lt=1)
    revive: int | None = Field(default=500, gt=0)
    steps: int | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "bf16", "32"] = "auto"
    compile: bool = False
    log_every: int = Field(default=100, gt=0)
    save_minutes: float = Field(default=5.0, gt=0)
    show_minutes: float | None = Field(default=15.0, gt=0)
    licence: str = "the terms of the images it was trained on"
    reference: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.steps is None and self.minutes is None:
            raise ValueError("a recipe needs steps or minutes; give --minutes M")
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError("stages must end at increasing progress, the last one at 1")
        return self

    def optimizer_of(self, player: str) -> Optimizer:
        """Return how the parameters of one player of the task move."""
        return self.optimizer

    def computes_in_bfloat16(self, device: torch.device) -> bool:
        """Whether convolutions on this device are computed in bfloat16."""
        return self.precision == "bf16" or (self.precision == "auto" and has_matrix_units(device))

    def autocast(self, device: torch.device) -> torch.autocast:
        """Context of convolutions in the precision of this recipe, for networks outside the wrappers of Fabric."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.computes_in_bfloat16(device))

    def stage(self, progress: float) -> Stage:
        """Return the stage that applies at this progress in [0, 1]."""
        return next((stage for stage in self.stages if progress < stage.until), self.stages[-1])


class DenoiserRecipe(Recipe):
    """A denoiser of Gaussian noise whose level it is told.

    Attributes:
        kind: Tells recipes apart in files.
        sigma: Range of noise levels in units of the image range. A pair of equal numbers trains one level.
        sigma_power: Levels are low + (high - low) u^power with u uniform; above 1 low levels are more
            frequent.
        loss: "l1" or "mse", between the denoised and the clean image, or "log-mse": the mean over images of the
            logarithm of their mean squared error, which is what PSNR measures, and which no noise level dominates.
        taught: Share, in what the network is compared with, of the mean over some of the eight flips and turns of
            what the network says before this training; the clean image is the rest. That mean is a little better
            than the network, and tells it in every pixel what to say without the chance of the noise, so that a
            short last training goes further. Needs weights to start from; 0 compares with the clean image alone.
        taught_views: How many of those flips and turns, drawn anew in each step.
        maps: Share of the crops whose noise differs from pixel to pixel: none or less of it on scattered pixels, on
            squares or by a smooth map. It teaches the network to rely on the pixels that are known better, and so to
            fill in missing ones.
        gray: Share of the crops that are gray: three equal channels with one noise in all of them, the square root of
            3 below the level that is told, as `priors.Denoiser` shows gray images to a colour network.
        plugged: Share of the crops that the network sees as plug-and-play would show them to it: measured, and
            restored by half-quadratic splitting with the network itself up to a step drawn at random. What data steps
            leave is no white noise; it teaches the network to remove that too.
        problems: How those crops are measured.
        plugged_steps: Steps of the schedule of that splitting, the more the dearer.
        test_sigmas: Noise levels of the scores.
    """

    kind: Literal["denoiser"] = "denoiser"
    architecture: str = "UNet"
    sigma: tuple[float, float] = (0.0, 75 / 255)
    sigma_power: float = Field(default=1.0, gt=0)
    loss: Literal["l1", "mse", "log-mse"] = "l1"
    taught: float = Field(default=0.0, ge=0, lt=1)
    taught_views: int = Field(default=4, ge=1, le=8)
    maps: float = Field(default=0.0, ge=0, le=1)
    gray: float = Field(default=0.0, ge=0, le=1)
    plugged: float = Field(default=0.0, ge=0, le=1)
    problems: tuple[Degradation, ...] = ()
    plugged_steps: int = Field(default=8, ge=1)
    test_folder: str = "cbsd68"
    test_sigmas: tuple[float, ...] = (15 / 255, 25 / 255, 50 / 255)

    @model_validator(mode="after")
    def _has_a_teacher(self) -> DenoiserRecipe:
        if self.taught and not self.start:
            raise ValueError(
                "a network that is taught by itself needs weights to start from; give --from NAME"
            )
        return self

    @model_validator(mode="after")
    def _kinds_of_crops(self) -> DenoiserRecipe:
        if self.maps + self.gray + self.plugged > 1:
            raise ValueError("maps, gray and plugged are shares of the crops and add up to 1 at most")
        if bool(self.plugged) != bool(self.problems):
            raise ValueError(
                "plugged and problems go together: a share of the crops, and how they are measured"
            )
        if self.gray and self.arguments.get("channels", 3) == 1:
            raise ValueError("every crop of a network of one channel is gray; leave gray at 0")
        return self


class GanStage(Stage):
    """A stage of a generator's training; all stages have one `patch`, the side of the images.

    Attributes:
        adversarial: Whether a discriminator takes part. Without, generator and encoder are trained as an
            autoencoder.
        damaged: Share of the images that the encoder sees damaged: without colours, with holes, reduced, noisy or of
            few levels. Above 0 the encoder alone is trained, without a discriminator, to give the codes of whole
            images, so that a search for a damaged one begins near it.
    """

    adversarial: bool = True
    damaged: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _encoder_alone(self) -> GanStage:
        if self.damaged and self.adversarial:
            raise ValueError("damaged images are for a stage of the encoder alone; set adversarial=False")
        return self


class AdversarialRecipe(Recipe):
    """Anything that is trained against a discriminator.

    Attributes:
        discriminator_optimizer: How the discriminator's parameters move; None: as the others do.
    """

    discriminator_optimizer: Optimizer | None = None

    def optimizer_of(self, player: str) -> Optimizer:
        """Return how the parameters of one player move."""
        own = self.discriminator_optimizer if player == "discriminator" else None
        return own or self.optimizer


class GanRecipe(AdversarialRecipe):
    """A generator of images, with its discriminator and perhaps an encoder.

    The side of the images is the `patch` of the stages and reaches the architecture as `size`. Any power of 2
    will do; the widths of a FaceGAN need one more entry for each doubling.

    Attributes:
        kind: Tells recipes apart in files.
        loss: Key of `losses.ADVERSARIAL`.
        r1: Weight of the gradient penalty on real images.
        r2: Weight of the gradient penalty on generated images.
        penalised: Images of each batch on which the penalties are computed. A few in every step cost as much
            as whole batches now and then, and need no counter.
        augment: Alterations of what the discriminator sees; see `Augment`.
        mirror: Whether images are mirrored left to right at random.
        encoder: "joint" trains encoder and generator together as a variational autoencoder; "inverse" trains
            the encoder beside an adversarial generator that it does not influence, on real and generated
            images; "none" trains no encoder.
        encoded: Share of the generated images of an adversarial step that are reconstructions, with the
            joint encoder; the others come from random codes.
        reconstruction: Weight of the multi-scale L1 distance to the image that was encoded.
        features: Weight of the distance in the discriminator's features, in adversarial stages.
        kl: Weight of the divergence of codes from a standard normal distribution, in nats per image value.
        codes: Weight of the distance between found and true codes of generated images, inverse encoder.
        adversarial: Weight of the adversarial loss of the generator.
    """

    kind: Literal["gan"] = "gan"
    architecture: str = "FaceGAN"
    stages: tuple[GanStage, ...]
    loss: Literal["non-saturating", "relativistic"] = "non-saturating"
    r1: float = Field(default=0.0, ge=0)
    r2: float = Field(default=0.0, ge=0)
    penalised: int = Field(default=4, gt=0)
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ("color", "translation", "cutout")
    mirror: bool = True
    encoder: Literal["joint", "inverse", "none"] = "joint"
    encoded: float = Field(default=0.5, gt=0, lt=1)
    reconstruction: float = Field(default=1.0, ge=0)
    features: float = Field(default=0.0, ge=0)
    kl: float = Field(default=0.1, ge=0)
    codes: float = Field(default=0.1, ge=0)
    adversarial: float = Field(default=1.0, ge=0)
    test_folder: str = "faces64"
    test_split: Literal["val", "test"] | None = "test"

    @property
    def size(self) -> int:
        """Side of the images."""
        return self.stages[0].patch

    @model_validator(mode="after")
    def _fits_together(self) -> GanRecipe:
        if len({stage.patch for stage in self.stages}) > 1:
            raise ValueError("all stages of a generator need the same patch, the side of its images")
        if "size" in self.arguments:
            raise ValueError("the size of the images is the patch of the stages, not an argument")
        if self.encoder != "joint" and not all(s.adversarial or s.damaged for s in self.stages):
            raise ValueError("stages without a discriminator need the joint encoder")
        if self.encoder == "none" and any(stage.damaged for stage in self.stages):
            raise ValueError("damaged images need an encoder that sees them")
        return self
