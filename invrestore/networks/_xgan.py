"""The networks of X-GANs: a generator of residual blocks and discriminators of pairs at several scales."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore._checks import check_count
from invrestore.networks._blocks import NormalisedBlock, initialise_normal
from invrestore.networks._restorer import RestorerNetwork

__all__ = ["MultiScaleDiscriminator", "PatchDiscriminator", "ResidualGenerator"]


class ResidualGenerator(RestorerNetwork):
    """Three convolutions down, residual blocks, deconvolutions up, tanh.

    The convolutions (7x7, then two 3x3 of stride 2, widths w, 2w, 4w) and the deconvolutions that mirror them
    are followed by batch normalisation and leaky ReLU, dropout lies inside the residual blocks, and the last
    layer ends in tanh, moved to [0, 1].

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        width: Feature channels at full resolution; they double with each of the two halvings.
        blocks: Residual blocks of two 3x3 convolutions each.
        dropout: Probability that a feature of a residual block is zeroed in training.
        informed: See :class:`RestorerNetwork`.

    Shapes:
        See :class:`RestorerNetwork`; sides are reflected to multiples of 4 inside.

    Raises:
        RangeError: width or blocks is below 1.

    Example:
        >>> net = ResidualGenerator(width=4, blocks=1).eval()
        >>> net(torch.rand(1, 3, 10, 8)).shape
        torch.Size([1, 3, 10, 8])

    Reference:
        X-GANs: Image Reconstruction Made Easy for Extreme Cases; Johnson et al. (2016), Perceptual Losses for
        Real-Time Style Transfer and Super-Resolution.
    """

    multiple = 4

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        blocks: int = 9,
        dropout: float = 0.5,
        informed: bool = False,
    ) -> None:
        super().__init__(channels, informed)
        check_count("ResidualGenerator", "width", width)
        check_count("ResidualGenerator", "blocks", blocks)
        self.down = nn.Sequential(
            *_normalised(nn.Conv2d(self.inputs, width, 7, padding=3, padding_mode="reflect", bias=False)),
            *_normalised(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)),
            *_normalised(nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False)),
        )
        self.body = nn.Sequential(*(NormalisedBlock(4 * width, dropout) for _ in range(blocks)))
        self.up = nn.Sequential(
            *_normalised(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1, bias=False)),
            *_normalised(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=False)),
            nn.Conv2d(width, channels, 7, padding=3, padding_mode="reflect"),
        )
        initialise_normal(self)

    def image(self, x: Tensor) -> Tensor:
        """Restore x."""
        return 0.5 + 0.5 * torch.tanh(self.up(self.body(self.down(2 * x - 1))))


def _normalised(conv: nn.Conv2d | nn.ConvTranspose2d) -> Iterator[nn.Module]:
    yield from (conv, nn.BatchNorm2d(conv.out_channels), nn.LeakyReLU(0.2, inplace=True))


class PatchDiscriminator(nn.Module):
    """A PatchGAN: one logit for each patch of a pair (input, image).

    4x4 convolutions with leaky ReLU, the first `layers` of stride 2, widths w, 2w, 4w up to 8w, batch
    normalisation in all but the first and the last.

    Args:
        inputs: Channels of the network's input.
        channels: Channels of the image that is judged.
        width: Feature channels of the first layer.
        layers: Layers of stride 2; a logit sees 70 x 70 pixels with 3.

    Shapes:
        s: (N, inputs, H, W), what the generator was given. x: (N, channels, H, W), the image judged; both
        nominally in [0, 1].
        returns: feature maps of every layer, the last of which are the logits (N, 1, h, w).

    Raises:
        RangeError: layers is below 1.

    Reference:
        Isola et al. (2017), Image-to-Image Translation with Conditional Adversarial Networks.
    """

    def __init__(self, inputs: int = 3, channels: int = 3, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        check_count("PatchDiscriminator", "layers", layers)
        widths = [width * 2 ** min(k, 3) for k in range(layers + 1)]
        stages = [
            nn.Sequential(nn.Conv2d(inputs + channels, width, 4, 2, 2), nn.LeakyReLU(0.2, inplace=True))
        ]
        for k in range(1, layers + 1):
            conv = nn.Conv2d(widths[k - 1], widths[k], 4, 2 if k < layers else 1, 2, bias=False)
            stages.append(nn.Sequential(*_normalised(conv)))
        stages.append(nn.Sequential(nn.Conv2d(widths[-1], 1, 4, 1, 2)))
        self.stages = nn.ModuleList(stages)
        initialise_normal(self)

    def forward(self, s: Tensor, x: Tensor) -> list[Tensor]:
        """Judge x as the restoration of s."""
        features = (2 * torch.cat((s, x), dim=1) - 1).contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps


class MultiScaleDiscriminator(nn.Module):
    """Identical discriminators that see the pair at full size, half size, quarter size and so on.

    Args:
        inputs: Channels of the network's input.
        channels: Channels of the image that is judged.
        scales: Number of discriminators.
        width: Feature channels of the first layer of each.
        layers: Layers of stride 2 of each.

    Shapes:
        As :class:`PatchDiscriminator`, which is called once for each scale.

    Raises:
        RangeError: scales or layers is below 1.

    Reference:
        Wang et al. (2018), High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs.
    """

    def __init__(
        self, inputs: int = 3, channels: int = 3, scales: int = 3, width: int = 64, layers: int = 3
    ) -> None:
        super().__init__()
        check_count("MultiScaleDiscriminator", "scales", scales)
        self.discriminators = nn.ModuleList(
            PatchDiscriminator(inputs, channels, width, layers) for _ in range(scales)
        )

    def forward(self, s: Tensor, x: Tensor) -> list[list[Tensor]]:
        """Judge x as the restoration of s at every scale; the feature maps of each discriminator."""
        judged = []
        for k, discriminator in enumerate(self.discriminators):
            if k:
                s, x = (F.avg_pool2d(t, 3, 2, 1, count_include_pad=False) for t in (s, x))
            judged.append(discriminator(s, x))
        return judged
