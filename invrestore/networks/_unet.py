"""The shipped denoiser: a bias-free residual U-Net with a noise-level map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from invrestore.errors import RangeError
from invrestore.networks._blocks import DenoiserNetwork, ResidualBlock, conv3x3, pad_to_multiple

__all__ = ["UNet"]


class UNet(DenoiserNetwork):
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
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        if not widths or len(counts) != len(widths) or min(*widths, *counts) < 1:
            raise RangeError(
                "UNet",
                expected="positive widths, and one positive number of blocks or one for each width",
                found=f"widths={tuple(widths)}, blocks={blocks}",
            )
        pairs = list(pairwise(widths))
        self.multiple = 2 ** len(pairs)
        self.head = conv3x3(channels + 1, widths[0])
        self.encoders = nn.ModuleList(_stage(w, n) for w, n in zip(widths[:-1], counts[:-1], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairs)
        self.body = _stage(widths[-1], counts[-1])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairs)
        self.decoders = nn.ModuleList(_stage(w, n) for w, n in zip(widths[:-1], counts[:-1], strict=True))
        self.tail = conv3x3(widths[0], channels)
        for resample in (*self.downs, *self.ups):
            nn.init.xavier_normal_(resample.weight)
        nn.init.zeros_(self.tail.weight)
        self.to(memory_format=torch.channels_last)

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate the noise in x."""
        height, width = x.shape[-2:]
        features = self.head(pad_to_multiple(torch.cat((x, sigma), dim=1), self.multiple))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.body(features)
        for decoder, up in zip(reversed(self.decoders), reversed(self.ups), strict=True):
            features = decoder(up(features) + skips.pop())
        out: Tensor = self.tail(features)
        return out[..., :height, :width]


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
