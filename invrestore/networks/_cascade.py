"""The networks of the deep cascade: inpainting generators, a VGG-like critic, deblurring-denoising."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from invrestore._checks import check_choice, check_count
from invrestore.errors import RangeError
from invrestore.networks._blocks import NormalisedBlock, initialise_normal
from invrestore.networks._restorer import RestorerNetwork

__all__ = ["Cascade", "Critic", "DeblurDenoise", "InpaintingGenerator", "InpaintingResNet"]


class InpaintingGenerator(RestorerNetwork):
    """Encoder and decoder: convolutions of stride 2 and their mirrors, with additive skips.

    Every 4x4 convolution is followed by batch normalisation and leaky ReLU, every transposed one by batch
    normalisation and ReLU, save the last, which ends in tanh, moved to [0, 1]. The output of a transposed
    convolution is added to the output of the convolution of the same size.

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        widths: Feature channels from half resolution down, one for each convolution.
        informed: See :class:`RestorerNetwork`.

    Shapes:
        See :class:`RestorerNetwork`; sides are reflected to multiples of 2^len(widths) inside.

    Raises:
        RangeError: There are no widths, or one is below 1.

    Example:
        >>> net = InpaintingGenerator(widths=(4, 8)).eval()
        >>> net(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 8, 6])

    Reference:
        A Deep Cascade of Neural Networks for Image Inpainting, Deblurring and Denoising, section 3.2; layers
        as in Pathak et al. (2016), Context Encoders.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        informed: bool = False,
    ) -> None:
        super().__init__(channels, informed)
        _check_widths("InpaintingGenerator", widths)
        self.multiple = 2 ** len(widths)
        sizes = list(pairwise((self.inputs, *widths)))
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2, inplace=True)
            )
            for a, b in sizes
        )
        self.deconvs = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(b, a, 4, 2, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU(inplace=True)
            )
            for a, b in reversed(sizes[1:])
        )
        self.tail = nn.ConvTranspose2d(widths[0], channels, 4, 2, 1)
        initialise_normal(self)

    def image(self, x: Tensor) -> Tensor:
        """Restore x."""
        features, kept = 2 * x - 1, []
        for conv in self.convs:
            features = conv(features)
            kept.append(features)
        kept.pop()
        for deconv in self.deconvs:
            features = deconv(features) + kept.pop()
        return 0.5 + 0.5 * torch.tanh(self.tail(features))


class InpaintingResNet(RestorerNetwork):
    """The variant of the paper's figure: residual blocks between convolutions with mirrored skips.

    A 3x3 convolution at full size, two 4x4 of stride 2, `blocks` residual blocks (convolution, batch
    normalisation, ReLU, convolution, batch normalisation, plus the input) and two transposed 4x4 convolutions, to
    the output of each of which that of the convolution of the same size is added; a 3x3 convolution that ends in
    tanh, moved to [0, 1]. Outside the blocks, batch normalisation and leaky ReLU follow the convolutions but the
    last, batch normalisation and ReLU the transposed ones.

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        width: Feature channels at full resolution; they double with each halving.
        blocks: Residual blocks.
        informed: See :class:`RestorerNetwork`.

    Shapes:
        See :class:`RestorerNetwork`; sides are reflected to multiples of 4 inside.

    Raises:
        RangeError: width or blocks is below 1.

    Example:
        >>> net = InpaintingResNet(width=4, blocks=1).eval()
        >>> net(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 8, 6])

    Reference:
        A Deep Cascade of Neural Networks for Image Inpainting, Deblurring and Denoising, figure 3.
    """

    multiple = 4

    def __init__(self, channels: int = 3, width: int = 64, blocks: int = 7, informed: bool = False) -> None:
        super().__init__(channels, informed)
        check_count("InpaintingResNet", "width", width)
        check_count("InpaintingResNet", "blocks", blocks)
        widths = (width, 2 * width, 4 * width)
        self.head = _down(self.inputs, widths[0], 3, 1)
        self.downs = nn.ModuleList(_down(a, b, 4, 2) for a, b in pairwise(widths))
        self.body = nn.Sequential(*(NormalisedBlock(widths[-1]) for _ in range(blocks)))
        self.ups = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(b, a, 4, 2, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU(inplace=True)
            )
            for a, b in reversed(list(pairwise(widths)))
        )
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1)
        initialise_normal(self)

    def image(self, x: Tensor) -> Tensor:
        """Restore x."""
        kept = [self.head(2 * x - 1)]
        for down in self.downs:
            kept.append(down(kept[-1]))
        features = self.body(kept.pop())
        for up in self.ups:
            features = up(features) + kept.pop()
        return 0.5 + 0.5 * torch.tanh(self.tail(features))


def _down(inputs: int, outputs: int, side: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2, inplace=True),
    )


class Critic(nn.Module):
    """VGG-16 without pooling: the last convolution of each of five groups has stride 2; two dense layers.

    The groups have 2, 2, 3, 3 and 3 convolutions 3x3 with leaky ReLU. The output is a number, not a
    probability.

    Args:
        channels: Image channels.
        size: Side of the images, a multiple of 32.
        widths: Feature channels of the groups.
        hidden: Outputs of the first dense layer.
        normalised: Batch normalisation after all convolutions but the first. Clipped weights need it, or the
            signal dies out; a gradient penalty, which is a matter of single images, excludes it.

    Shapes:
        x: (N, channels, size, size), nominally in [0, 1].
        returns: (N,).

    Raises:
        RangeError: size is no multiple of 32, or there are not five positive widths.

    Reference:
        A Deep Cascade of Neural Networks for Image Inpainting, Deblurring and Denoising, section 3.2;
        Simonyan and Zisserman (2015). Batch normalisation and leaky ReLU, which the paper leaves open, are
        the choices of Radford et al. (2016).
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 128,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        hidden: int = 1024,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        check_count("Critic", "size", size)
        _check_widths("Critic", widths)
        if size % 32 or len(widths) != 5:
            raise RangeError(
                "Critic",
                expected="size as a multiple of 32, and 5 widths",
                found=f"size={size}, widths={tuple(widths)}",
            )
        layers: list[nn.Module] = []
        inputs = channels
        for outputs, count in zip(widths, (2, 2, 3, 3, 3), strict=True):
            for number in range(1, count + 1):
                with_norm = normalised and bool(layers)
                layers.append(
                    nn.Conv2d(inputs, outputs, 3, 2 if number == count else 1, 1, bias=not with_norm)
                )
                layers += [nn.BatchNorm2d(outputs)] if with_norm else []
                # Not in place: a gradient penalty differentiates through the activations twice.
                layers.append(nn.LeakyReLU(0.2))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Linear(widths[-1] * (size // 32) ** 2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Rate images; more is better."""
        features = self.layers((2 * x - 1).contiguous(memory_format=torch.channels_last))
        out: Tensor = self.dense(features.flatten(1)).flatten()
        return out


class DeblurDenoise(RestorerNetwork):
    """y = x - M(x): four convolutions to encode, four to decode, all 3x3 of stride 1.

    Batch normalisation follows all convolutions but the first and the last, leaky ReLU of slope 0.001 all but
    the last.

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        width: Feature channels.

    Shapes:
        See :class:`RestorerNetwork`.

    Raises:
        RangeError: width is below 1.

    Example:
        >>> net = DeblurDenoise(width=4).eval()
        >>> net(torch.rand(1, 3, 5, 6)).shape
        torch.Size([1, 3, 5, 6])

    Reference:
        A Deep Cascade of Neural Networks for Image Inpainting, Deblurring and Denoising, section 3.3. The
        last layer starts at zero, so that training begins at the identity.
    """

    def __init__(self, channels: int = 3, width: int = 96) -> None:
        super().__init__(channels)
        check_count("DeblurDenoise", "width", width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.001)]
        for _ in range(6):
            layers += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.001),
            ]
        last = nn.Conv2d(width, channels, 3, padding=1)
        self.layers = nn.Sequential(*layers, last)
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(last.weight)
        self.to(memory_format=torch.channels_last)

    def image(self, x: Tensor) -> Tensor:
        """Restore x."""
        out: Tensor = x - self.layers(x)
        return out


class Cascade(RestorerNetwork):
    """A generator that fills holes, then a network that makes what it filled in sharp and clean.

    Args:
        generator: Class of the first network: "InpaintingGenerator" (encoder and decoder),
            "InpaintingResNet" (residual blocks) or, small and quick to train, "RestorationUNet".
        arguments: Its constructor arguments.
        width: Feature channels of the second network.
        refined: False leaves the second network out (the paper's ablation "only GAN").

    Attributes:
        generator: The first network, from the input of the cascade to an image.
        refiner: The second network, from image to image; None without it.

    Shapes:
        As the generator.

    Raises:
        UnknownNameError: There is no such generator.
        RangeError: width is below 1, or `arguments` are out of the range of the generator.

    Example:
        >>> net = Cascade(arguments={"widths": [4, 8]}, width=4).eval()
        >>> filled, sharp = net.stages(torch.rand(1, 3, 8, 8))
        >>> filled.shape == sharp.shape
        True

    Reference:
        A Deep Cascade of Neural Networks for Image Inpainting, Deblurring and Denoising.
    """

    refiner: DeblurDenoise | None

    def __init__(
        self,
        generator: Literal[
            "InpaintingGenerator", "InpaintingResNet", "RestorationUNet"
        ] = "InpaintingGenerator",
        arguments: dict[str, Any] | None = None,
        width: int = 96,
        refined: bool = True,
    ) -> None:
        from invrestore.networks._unet import RestorationUNet

        known: dict[str, type[RestorerNetwork]] = {
            kind.__name__: kind for kind in (InpaintingGenerator, InpaintingResNet, RestorationUNet)
        }
        check_choice("Cascade", "generator", generator, tuple(known))
        first = known[generator](**(arguments or {}))
        super().__init__(first.channels, first.informed)
        self.generator = first
        self.refiner = DeblurDenoise(first.channels, width) if refined else None

    def image(self, x: Tensor) -> Tensor:
        """Restore x."""
        return self.stages(x)[1]

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image after inpainting, and the final one; the same twice without the second network."""
        filled: Tensor = self.generator(x)
        return filled, filled if self.refiner is None else self.refiner(filled)


def _check_widths(where: str, widths: Sequence[int]) -> None:
    """Raise RangeError unless there are widths and all are positive."""
    if not widths or min(widths) < 1:
        raise RangeError(where, expected="positive widths", found=str(tuple(widths)))
