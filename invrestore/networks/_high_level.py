"""Networks that say what a picture shows: a classifier of whole images, and a segmenter of pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore._checks import check_device, check_image
from invrestore.errors import RangeError, ShapeError
from invrestore.networks._blocks import pad_to_multiple

__all__ = ["Classifier", "HighLevelNetwork", "Segmenter"]

_CENTRE, _SPREAD = 0.5, 0.25  # Mean and deviation that images are moved from before the first layer


class HighLevelNetwork(nn.Module, ABC):
    """A network that maps an image to scores of classes.

    Subclasses implement :meth:`scores`; :meth:`forward` checks the image once and runs the network in the type of
    its own weights, channels last in memory.

    Args:
        classes: Names of the classes, in the order of the scores.
        channels: Image channels C.

    Attributes:
        classes: Names of the K classes.
        channels: Image channels C.

    Shapes:
        x: (B, C, H, W), floating point, nominally in [0, 1]. Returns logits, (B, K) of a classifier and
        (B, K, H, W) of a segmenter.

    Raises:
        RangeError: Fewer than two classes.
        ShapeError: x is not (B, channels, H, W).
        DTypeError: x is not floating point.
        DeviceError: x and the network live on different devices.
    """

    def __init__(self, classes: Sequence[str], channels: int) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.channels = channels
        if len(set(self.classes)) < 2 or len(set(self.classes)) < len(self.classes):
            raise RangeError(
                type(self).__name__,
                expected="at least two classes with names of their own",
                found=str(classes),
            )

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """Logits of centred images x (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x; they have its type."""
        where = type(self).__name__
        weight = next(self.parameters())
        check_image(where, x)
        if x.shape[1] != self.channels:
            raise ShapeError(
                where, expected=f"x of shape (B, {self.channels}, H, W)", found=str(tuple(x.shape))
            )
        check_device(where, x=x, network=weight)
        centred = ((x - _CENTRE) / _SPREAD).to(weight.dtype).contiguous(memory_format=torch.channels_last)
        return self.scores(centred).to(x.dtype)


class Classifier(HighLevelNetwork):
    """A small VGG: stages of 3x3 convolutions, halved by max pooling, then the mean over the image and one layer.

    Each convolution is followed by batch normalisation and ReLU. Layers are named as in VGG, `conv1_1`, `norm1_1`,
    `relu1_1` to `relu4_2`, so that they can be asked for by name, as `training.losses.PerceptualLoss` does.

    Args:
        classes: Names of the classes.
        widths: Channels of each stage.
        depths: Convolutions in each stage, one number for all or one for each.
        dropout: Share of the averaged features that training leaves out.
        channels: Image channels.

    Shapes:
        See :class:`HighLevelNetwork`; any H, W >= 2^(stages - 1).

    Example:
        >>> net = Classifier(("cat", "dog"), widths=(8, 16), depths=1).eval()
        >>> net(torch.rand(1, 3, 9, 10)).shape
        torch.Size([1, 2])

    Reference:
        Simonyan and Zisserman (2015), Very Deep Convolutional Networks for Large-Scale Image Recognition. Unlike
        VGG-16: narrower, normalised, and the mean over the image in place of two fully connected layers.
    """

    def __init__(
        self,
        classes: Sequence[str],
        widths: Sequence[int] = (32, 64, 128, 192),
        depths: int | Sequence[int] = (1, 1, 2, 2),
        dropout: float = 0.2,
        channels: int = 3,
    ) -> None:
        super().__init__(classes, channels)
        counts = [depths] * len(widths) if isinstance(depths, int) else list(depths)
        if not widths or len(counts) != len(widths) or min(*widths, *counts) < 1:
            raise RangeError(
                "Classifier",
                expected="positive widths, and one positive depth or one for each width",
                found=f"widths={tuple(widths)}, depths={depths}",
            )
        self._order: list[str] = []
        inputs = channels
        for stage, (width, count) in enumerate(zip(widths, counts, strict=True), 1):
            for number in range(1, count + 1):
                self._append(f"conv{stage}_{number}", nn.Conv2d(inputs, width, 3, padding=1, bias=False))
                self._append(f"norm{stage}_{number}", nn.BatchNorm2d(width))
                self._append(f"relu{stage}_{number}", nn.ReLU(inplace=True))
                inputs = width
            if stage < len(widths):
                self._append(f"pool{stage}", nn.MaxPool2d(2))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, len(self.classes))
        _initialise(self)

    def _append(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self._order.append(name)

    def scores(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        for name in self._order:
            x = self.get_submodule(name)(x)
        out: Tensor = self.head(self.dropout(x.mean(dim=(2, 3))))
        return out


class Segmenter(HighLevelNetwork):
    """Features at several scales, brought to one size, added and read by two layers.

    The first convolution halves the image, each stage after it halves again; a 1x1 convolution takes every stage to
    one width, coarse maps are enlarged bilinearly and added on the way up, and logits at half resolution are
    enlarged to the image.

    Args:
        classes: Names of the classes.
        widths: Channels of each stage, the first at half resolution.
        depth: 3x3 convolutions in each stage.
        width: Channels on the way up.
        channels: Image channels.

    Shapes:
        See :class:`HighLevelNetwork`; sides that 2^stages does not divide are reflected inside.

    Example:
        >>> net = Segmenter(("road", "sky"), widths=(8, 16), width=8).eval()
        >>> net(torch.rand(1, 3, 9, 10)).shape
        torch.Size([1, 2, 9, 10])

    Reference:
        Lin et al. (2017), Feature Pyramid Networks for Object Detection, with the head of Kirillov et al. (2019),
        Panoptic Feature Pyramid Networks, reduced to a sum.
    """

    def __init__(
        self,
        classes: Sequence[str],
        widths: Sequence[int] = (32, 64, 128, 192),
        depth: int = 2,
        width: int = 48,
        channels: int = 3,
    ) -> None:
        super().__init__(classes, channels)
        if not widths or min(*widths, depth, width) < 1:
            raise RangeError(
                "Segmenter",
                expected="positive widths and depth",
                found=f"widths={tuple(widths)}, depth={depth}",
            )
        self.multiple = 2 ** len(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(_normalised(a, b, stride=2), *(_normalised(b, b) for _ in range(depth - 1)))
            for a, b in pairwise((channels, *widths))
        )
        self.laterals = nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths)
        self.smooth = _normalised(width, width)
        self.head = nn.Conv2d(width, len(self.classes), 1)
        _initialise(self)

    def scores(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)
        size = x.shape[-2:]
        maps = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        total = maps.pop()
        while maps:
            finer = maps.pop()
            total = finer + F.interpolate(total, finer.shape[-2:], mode="bilinear", align_corners=False)
        logits = F.interpolate(self.head(self.smooth(total)), size, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def _normalised(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    network.to(memory_format=torch.channels_last)
