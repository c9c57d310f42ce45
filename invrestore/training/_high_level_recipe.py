"""Recipes of high-level networks, and of denoisers that are trained to serve them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from invrestore.training._recipe import Recipe

__all__ = ["HighLevelRecipe", "JointRecipe"]


class HighLevelRecipe(Recipe):
    """A classifier or segmenter of clean images.

    Attributes:
        kind: Tells recipes apart in files.
        task: "classification" learns the class of an image, "segmentation" that of every pixel.
        ignore: Number in masks that stands for no class.
        zoom: Range of random enlargements of crops; see `data.LabelledPool.draw`.
        augment: Alterations of what the network sees; see `Augment`. Masks do not move along, so segmentation
            takes "color" only.
        smoothing: Share of each label's weight that is spread over all classes.
        balance: Exponent p of the weights f^-p of classes of frequency f; 0 weighs all pixels or images
            equally, 1 all classes.
    """

    kind: Literal["high-level"] = "high-level"
    task: Literal["classification", "segmentation"]
    ignore: int | None = None
    zoom: tuple[float, float] = (1.0, 1.0)
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ()
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    balance: float = Field(default=0.0, ge=0, le=1)
    test_split: Literal["val", "test"] | None = "test"

    @model_validator(mode="after")
    def _fits_together(self) -> HighLevelRecipe:
        if self.task == "segmentation" and set(self.augment) - {"color"}:
            raise ValueError("translation and cutout would part images from their masks")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError("zoom must be an increasing range of positive factors")
        return self


class JointRecipe(Recipe):
    """A denoiser in front of a frozen high-level network: L = MSE + lam * cross-entropy.

    Each step takes crops of images with labels for the task, as many and as large as the stage says, and, if the
    sources hold other images, crops of those. The squared error counts on all pixels, the cross-entropy on the
    crops with labels.

    Attributes:
        kind: Tells recipes apart in files.
        task: What the high-level network does: "classification" or "segmentation".
        high_level: The network: a name of the catalogue, a `.safetensors` file, or one of torchvision's,
            "vgg16" and "deeplabv3_resnet50", whose weights lie on disk.
        lam: Weight of the cross-entropy; 0 trains the same denoiser without the high-level network.
        unit: Intensity whose square is the unit of the squared error: 1 for images in [0, 1], 1/255 for 8-bit
            values. The paper does not say; see docs/highlevel.md for what was found.
        ignore: Number in masks that stands for no class.
        other_patch: Side of the crops of images without labels; None: as the stage's.
        other_batch: Crops of images without labels in a step; None: as many as the stage's.
        sigmas: Noise levels in units of the image range; each crop gets one of them.
        test_images: Most test images that are scored after training, spread evenly over the set.
    """

    kind: Literal["joint"] = "joint"
    architecture: str = "UNet"
    task: Literal["classification", "segmentation"]
    high_level: str
    lam: float = Field(ge=0)
    unit: float = Field(default=1.0, gt=0)
    ignore: int | None = None
    other_patch: int | None = Field(default=None, gt=0)
    other_batch: int | None = Field(default=None, gt=0)
    sigmas: tuple[float, ...] = Field(default=(15 / 255, 30 / 255, 45 / 255, 60 / 255), min_length=1)
    test_split: Literal["val", "test"] | None = "test"
    test_images: int = Field(default=60, ge=1)

    @model_validator(mode="after")
    def _levels(self) -> JointRecipe:
        if not all(0 < sigma <= 1 for sigma in self.sigmas):
            raise ValueError("sigmas are in units of the image range: 8-bit level 25 is 25/255")
        return self
