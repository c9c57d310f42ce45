"""Bias-free residual U-Nets: the shipped denoiser, and the small restorer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from invrestore.errors import RangeError
from invrestore.networks._blocks import DenoiserNetwork, ResidualBlock, conv3x3, pad_to_multiple
from invrestore.networks._restorer import RestorerNetwork

__all__ = ["RestorationUNet", "UNet"]


class _Trunk:
    """Residual blocks at several scales, without biases: what both networks here consist of."""

    def _build(self, inputs: int, outputs: int, widths: Sequence[int], blocks: int | Sequence[int]) -> None:
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        if not widths or len(counts) != len(widths) or min(*widths, *counts) < 1:
            raise RangeError(
                type(self).__name__,
                expected="positive widths, and one positive number of blocks or one for each width",
                found=f"widths={tuple(widths)}, blocks={blocks}",
            )
        pairs = list(pairwise(widths))
        self.multiple = 2 ** len(pairs)
        self.head = conv3x3(inputs, widths[0])
        self.encoders = nn.ModuleList(_stage(w, n) for w, n in zip(widths[:-1], counts[:-1], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairs)
        self.body = _stage(widths[-1], counts[-1])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairs)
        self.decoders = nn.ModuleList(_stage(w, n) for w, n in zip(widths[:-1], counts[:-1], strict=True))
        self.tail = conv3x3(widths[0], outputs)
        for resample in (*self.downs, *self.ups):
            nn.init.xavier_normal_(resample.weight)
        nn.init.zeros_(self.tail.weight)

    def _run(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W), with sides that `multiple` divides, to (B, outputs, H, W)."""
        features, skips = self.head(x), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.body(features)
        for decoder, up in zip(reversed(self.decoders), reversed(self.ups), strict=True):
            features = decoder(up(features) + skips.pop())
        out: Tensor = self.tail(features)
        return out


class UNet(_Trunk, DenoiserNetwork):
    """Residual U-Net without biases, conditioned on the noise level by an extra input channel.

    The image and its noise map go through residual blocks at len(widths) scales, halved by 2x2 convolutions
    of stride 2 and doubled by their transposes, with additive skips between equal scales. Without biases the
    network is positively homogeneous, UNet(a x, a sigma) = a UNet(x, sigma) for a > 0, so it carries over to
    contrasts and noise levels that training did not show.

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        widths: Feature channels of each scale, from full resolution down. Cost is dominated by the first
            entries, capacity by the last; multiples of 32 suit matrix units.
        blocks: Residual blocks on the way down and again on the way up, one number for all scales or one for
            each (the coarsest scale is passed once).

    Shapes:
        See :class:`DenoiserNetwork`; sides that 2^(scales - 1) does not divide are reflected inside.

    Example:
        >>> net = UNet(channels=1, widths=(8, 16), blocks=1)
        >>> net(torch.rand(2, 1, 5, 7), 25 / 255).shape
        torch.Size([2, 1, 5, 7])

    Reference:
        Zhang et al. (2021), Plug-and-Play Image Restoration with Deep Denoiser Prior (DRUNet); Mohan et al.
        (2020), Robust and Interpretable Blind Image Denoising via Bias-Free CNNs. Unlike DRUNet: narrower,
        any number of scales and blocks, the network estimates the noise, and residual branches start at zero.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: int | Sequence[int] = 4,
    ) -> None:
        super().__init__(channels)
        self._build(channels + 1, channels, widths, blocks)
        self.to(memory_format=torch.channels_last)

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate the noise in x."""
        height, width = x.shape[-2:]
        return self._run(pad_to_multiple(torch.cat((x, sigma), dim=1), self.multiple))[..., :height, :width]


class RestorationUNet(_Trunk, RestorerNetwork):
    """The small restorer: the U-Net above as a map from image to image.

    It is what one processor core can train: per multiplication it reaches a far lower error than the stacks
    of full-resolution layers of the papers, whose networks remain the default of the recipes for a GPU.

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        widths: Feature channels of each scale, from full resolution down. Each scale doubles the distance
            from which a pixel is informed.
        blocks: Residual blocks on the way down and again on the way up, one number for all scales or one for
            each (the coarsest scale is passed once).
        residual: Add the output to the first image of the input; without, the output is the image.
        informed: See :class:`RestorerNetwork`.

    Shapes:
        See :class:`RestorerNetwork`; sides are reflected to multiples of 2^(scales - 1) inside.

    Example:
        >>> net = RestorationUNet(widths=(8, 16), blocks=1, informed=True)
        >>> net(torch.rand(2, 8, 5, 7)).shape
        torch.Size([2, 3, 5, 7])

    Reference:
        As :class:`UNet`; Ronneberger et al. (2015).
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 192),
        blocks: int | Sequence[int] = 2,
        residual: bool = True,
        informed: bool = False,
    ) -> None:
        super().__init__(channels, informed)
        self.residual = residual
        self._build(self.inputs, channels, widths, blocks)
        self.to(memory_format=torch.channels_last)

    def image(self, x: Tensor) -> Tensor:
        """Restore x."""
        restored = self._run(x)
        return self.start(x) + restored if self.residual else restored


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
