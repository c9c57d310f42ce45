"""The plain DCGAN, generator and discriminator, as used for restoration by latent search."""

from __future__ import annotations

import math
from typing import Literal, overload

import torch
from torch import Tensor, nn

from invrestore._checks import check_count
from invrestore.networks._blocks import initialise_normal
from invrestore.networks._latent import LatentModel, check_codes, check_pictures, check_size

__all__ = ["DCGAN", "DCGANDiscriminator", "DCGANGenerator"]


class DCGAN(LatentModel):
    """Deep convolutional GAN: strided 4x4 convolutions with batch normalisation, no encoder.

    Args:
        size: Side of the images in pixels, a power of 2.
        channels: Image channels.
        latent_dim: Length of z.
        width: Feature channels at half the image size; they double with every halving of the sides.

    Shapes:
        z: (N, latent_dim), standard normal.
        returns: (N, channels, size, size), in [0, 1].

    Raises:
        RangeError: size is not a power of 2, or width or latent_dim is below 1.
        ShapeError: z has another shape.

    Example:
        >>> model = DCGAN(size=16, width=4)
        >>> model(torch.randn(2, 100)).shape
        torch.Size([2, 3, 16, 16])

    Reference:
        Radford et al. (2016), Unsupervised Representation Learning with Deep Convolutional Generative
        Adversarial Networks.
    """

    generator: DCGANGenerator
    discriminator: DCGANDiscriminator
    encoder: None

    def __init__(self, size: int = 64, channels: int = 3, latent_dim: int = 100, width: int = 64) -> None:
        super().__init__(
            DCGANGenerator(size, channels, latent_dim, width), DCGANDiscriminator(size, channels, width)
        )
        self.size, self.channels, self.latent_dim = size, channels, latent_dim


class DCGANGenerator(nn.Module):
    """Transposed 4x4 convolutions of stride 2 with batch normalisation and ReLU; tanh moved to [0, 1].

    Args:
        size: Side of the images in pixels, a power of 2, at least 8.
        channels: Image channels.
        latent_dim: Length of z.
        width: Feature channels at half the image size; they double with every halving of the sides.

    Shapes:
        z: (N, latent_dim), standard normal.
        image: (N, channels, size, size), in [0, 1].

    Raises:
        RangeError: size is not a power of 2.
        ShapeError: z has another shape.
    """

    def __init__(self, size: int = 64, channels: int = 3, latent_dim: int = 100, width: int = 64) -> None:
        super().__init__()
        widths = list(reversed(_widths("DCGANGenerator", size, width)))
        self.size, self.channels = size, channels
        self.latent_dim = check_count("DCGANGenerator", "latent_dim", latent_dim)
        layers: list[nn.Module] = []
        inputs = latent_dim
        for index, outputs in enumerate(widths):
            stride, padding = (2, 1) if index else (1, 0)
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.ConvTranspose2d(inputs, channels, 4, 2, 1))
        self.layers = nn.Sequential(*layers)
        initialise_normal(self)

    def forward(self, z: Tensor) -> Tensor:
        """Generate images (N, channels, size, size) in [0, 1] from codes z (N, latent_dim)."""
        check_codes("DCGANGenerator", z, self.latent_dim)
        seed = z[..., None, None].contiguous(memory_format=torch.channels_last)
        return 0.5 + 0.5 * torch.tanh(self.layers(seed).to(z.dtype))


class DCGANDiscriminator(nn.Module):
    """4x4 convolutions of stride 2 with batch normalisation and leaky ReLU.

    Args:
        size: Side of the images in pixels, a power of 2, at least 8.
        channels: Image channels.
        width: Feature channels at half the image size; they double with every halving of the sides.

    Shapes:
        x: (N, channels, size, size), in [0, 1].
        logits: (N,); positive means real.

    Raises:
        RangeError: size is not a power of 2.
        ShapeError: x has another shape.
    """

    def __init__(self, size: int = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = _widths("DCGANDiscriminator", size, width)
        self.size, self.channels = size, channels
        self.stages = nn.ModuleList()
        inputs = channels
        for index, outputs in enumerate(widths):
            layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not index)]
            layers += [nn.BatchNorm2d(outputs)] if index else []
            self.stages.append(nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True)))
            inputs = outputs
        self.out = nn.Conv2d(inputs, 1, 4)
        initialise_normal(self)

    @overload
    def forward(self, x: Tensor, features: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, features: Literal[True]) -> tuple[Tensor, list[Tensor]]: ...

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return the logits (N,), and on request the feature maps of every scale."""
        check_pictures("DCGANDiscriminator", x, self.channels, self.size)
        maps = [self.stages[0]((2 * x - 1).contiguous(memory_format=torch.channels_last))]
        for stage in self.stages[1:]:
            maps.append(stage(maps[-1]))
        logits = self.out(maps[-1]).flatten().to(self.out.weight.dtype)
        return (logits, maps) if features else logits


def _widths(where: str, size: int, width: int) -> list[int]:
    """Feature channels from half the image size down to 4 pixels."""
    check_size(where, size)
    return [check_count(where, "width", width) * 2**k for k in range(round(math.log2(size)) - 2)]
