"""Training of classifiers and segmenters."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from invrestore.data import LabelledPool, read_labelled
from invrestore.errors import TrainingError, WeightsError
from invrestore.networks import HighLevelNetwork, load, load_file
from invrestore.training._augment import Augment
from invrestore.training._high_level_recipe import HighLevelRecipe
from invrestore.training._label_scores import label_loss, score_labels
from invrestore.training._recipe import Recipe, Stage
from invrestore.training._task import FEW, RecipeTask

__all__ = ["HighLevelTask", "colour_map", "load_high_level", "read_tests"]

_COLUMNS = 8
_TORCHVISION = {
    "vgg16": ("vgg16-397923af.pth", "vgg16"),
    "deeplabv3_resnet50": ("deeplabv3_resnet50_coco-cd0a2569.pth", "segmentation.deeplabv3_resnet50"),
}


class HighLevelTask(RecipeTask):
    """One network learns the classes of clean images, or of their pixels, by cross-entropy.

    Args:
        network: Maps images (B, 3, H, W) to logits.
        recipe: Augmentation and loss.
        pool: Training images with labels, on the device that trains.
        test_images: Held-out images (1, 3, H, W) in [0, 1].
        test_labels: Their class numbers, or maps (H, W).
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: HighLevelRecipe,
        pool: LabelledPool,
        test_images: Sequence[Tensor] = (),
        test_labels: Sequence[int | Tensor] = (),
    ) -> None:
        self.players = {"network": network}
        self.averaged = ("network",)
        self.recipe, self.pool = recipe, pool
        self.augment = Augment(recipe.augment)
        self.test_images, self.test_labels = test_images, test_labels
        self.weight = _class_weights(pool.labels, recipe.ignore, recipe.balance) if recipe.balance else None
        score = (
            "top1: share of the images whose class is found"
            if not pool.maps
            else ("miou: mean over the classes of intersection over union, of all pixels that have a class")
        )
        self.protocol = (
            f"{score}, in percent, on the {recipe.test_split or 'held-out'} images of {recipe.test_folder} "
            f"({len(self.test_images)}), clean, at their own size; float32"
            if self.test_images
            else ""
        )

    @classmethod
    def create(
        cls, network: nn.Module, recipe: Recipe, train: Path, test: Path | None, device: torch.device
    ) -> Self:
        """Decode packed images and labels."""
        if not isinstance(network, HighLevelNetwork) or not isinstance(recipe, HighLevelRecipe):
            raise TrainingError(
                "training.train", expected="a high-level architecture", found=recipe.architecture
            )
        maps = recipe.task == "segmentation"
        found = read_labelled(train, maps, network.classes, recipe.ignore)
        pool = LabelledPool(found.images, found.labels, device)
        return cls(network, recipe, pool, *read_tests(test, maps, network.classes, recipe.ignore))

    def losses(
        self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the cross-entropy of a batch."""
        x, labels = self.pool.draw(stage.batch, stage.patch, rng, self.recipe.zoom)
        x = self.augment.draw(x, rng)(x)
        logits = players["network"](x)
        recipe = self.recipe
        yield (
            "network",
            label_loss(logits, labels, ignore=recipe.ignore, weight=self.weight, smoothing=recipe.smoothing),
        )

    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        """Return the accuracy or mean intersection over union on the test images, in percent."""
        if not self.test_images:
            return {}
        name = "miou" if self.pool.maps else "top1"
        # Images of one class follow each other.
        every = max(1, len(self.test_images) // FEW) if few else 1
        images, labels = self.test_images[::every], self.test_labels[::every]
        score = score_labels(players["network"], images, labels, self.recipe.ignore)
        return {name: round(score, 2)}

    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        """Show test images by the class that was found, a row for each; or images, found and true maps."""
        if not self.test_images:
            return None
        with torch.no_grad():
            found = [players["network"](x).argmax(1)[0] for x in self.test_images]
        return (
            _maps(self.test_images, found, self.test_labels)
            if self.pool.maps
            else _by_class(self.test_images, found)
        )


def _maps(images: Sequence[Tensor], found: Sequence[Tensor], true: Sequence[int | Tensor]) -> Tensor:
    """A few images, each beside the map that was found and the true one."""
    shown = range(0, len(images), max(1, len(images) // 4))
    rows = [(images[i][0], colour_map(found[i]), colour_map(torch.as_tensor(true[i]))) for i in shown]
    return torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)


def _by_class(images: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """A row of images for each class that was found."""
    side = min(min(x.shape[-2:]) for x in images)
    rows = []
    for number in sorted({int(k) for k in found}):
        these = [x[0, :, :side, :side] for x, k in zip(images, found, strict=True) if int(k) == number]
        row = these[:: max(1, len(these) // _COLUMNS)][:_COLUMNS]
        rows.append(torch.cat(row + [torch.zeros(3, side, side)] * (_COLUMNS - len(row)), dim=2))
    return torch.cat(rows, dim=1)


def read_tests(
    path: Path | None, maps: bool, classes: Sequence[str] | None, ignore: int | None
) -> tuple[list[Tensor], list[int | Tensor]]:
    """Decode packed test images (1, 3, H, W) in [0, 1] and their class numbers or maps; two empty lists for None."""
    if path is None:
        return [], []
    found = read_labelled(path, maps, classes, ignore)
    images = [torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() / 255 for x in found.images]
    labels = [k if isinstance(k, int) else torch.from_numpy(k.astype(np.int64)) for k in found.labels]
    return images, labels


def load_high_level(name: str) -> nn.Module:
    """Load a high-level network that maps images in [0, 1] to logits.

    Args:
        name: A name of the catalogue, a `.safetensors` file with its card, or "vgg16" or "deeplabv3_resnet50",
            whose weights are read from where torchvision keeps them. Nothing is downloaded. Classes of
            torchvision's networks are those of ImageNet and of Pascal VOC, in their usual order.

    Raises:
        WeightsError: The weights are not on disk, or damaged.
        UnknownNameError: There is no such network.
        TrainingError: The name belongs to a network of another kind.
    """
    if name in _TORCHVISION:
        return _Pretrained(name).eval()
    network = load_file(name) if name.endswith(".safetensors") else load(name)
    if not isinstance(network, HighLevelNetwork):
        raise TrainingError(
            "training.load_high_level",
            expected="a classifier or segmenter",
            found=f"{name}, a {type(network).__name__}",
        )
    return network


class _Pretrained(nn.Module):
    """A network of torchvision behind its own normalisation."""

    def __init__(self, name: str) -> None:
        super().__init__()
        file, maker = _TORCHVISION[name]
        path = Path(torch.hub.get_dir()) / "checkpoints" / file
        if not path.is_file():
            raise WeightsError(
                "training.load_high_level",
                expected=f"the weights of {name} in {file}",
                found=f"none in {path.parent}",
                remedy="torchvision fetches them when the model is built with weights='DEFAULT'.",
            )
        from torchvision import models

        module = models
        for part in maker.split("."):
            module = getattr(module, part)
        extra = {"weights_backbone": None, "aux_loss": True} if "." in maker else {}
        self.network: nn.Module = module(weights=None, **extra)
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.mean = nn.Buffer(torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.network((x - self.mean) / self.std)
        logits: Tensor = out["out"] if isinstance(out, Mapping) else out
        return logits


def colour_map(labels: Tensor, classes: int = 12) -> Tensor:
    """Colour a map of class numbers (H, W): an image (3, H, W) in [0, 1], hues spread over the classes.

    The last of the classes, and any number beyond, is black.
    """
    hues = [
        colorsys.hsv_to_rgb((0.61 + k * 0.382) % 1, 0.75 - 0.3 * (k % 2), 0.95 - 0.3 * (k % 3))
        for k in range(classes - 1)
    ]
    table = torch.tensor([*hues, (0.0, 0.0, 0.0)])
    return table[labels.long().clamp(max=classes - 1)].permute(2, 0, 1)


def _class_weights(labels: Tensor, ignore: int | None, power: float) -> Tensor:
    """Weights f^-power of classes of frequency f, 1 on average over the labels."""
    kept = labels[labels != (-1 if ignore is None else ignore)].long()
    counts = torch.bincount(kept).float()
    weight = torch.where(counts > 0, (counts / counts.sum()).clamp(min=1e-12) ** -power, 0.0)
    return weight / (weight * counts).sum() * counts.sum()
