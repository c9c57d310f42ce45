"""The three-scale denoiser of Liu et al. (2018) that is trained jointly with a high-level network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invrestore._checks import check_count
from invrestore.networks._blocks import DenoiserNetwork, pad_to_multiple

__all__ = ["MultiScaleDenoiser"]


class MultiScaleDenoiser(DenoiserNetwork):
    """Encoder and decoder over several scales, fused by concatenation, with the input added to the output.

    At each scale an encoding module (3x3 convolution of 128 channels, then a residual bottleneck 1x1x32,
    3x3x32, 1x1x128) reads the features; all but the coarsest are halved by a convolution of stride 2. On the
    way up the coarser features are doubled by a 4x4 transposed convolution, concatenated with those of the
    scale, and fused by a decoding module of the same form with 256, 64, 64 and 256 channels. Every
    convolution of a module is followed by batch normalisation and ReLU. The bottleneck's last ReLU comes
    before its sum.

    Args:
        channels: Image channels, 3 for colour.
        scales: Number of scales; the paper uses 3.
        conditioned: Give the network the noise map as an extra channel, so that one network serves many
            levels. Off, as in the paper, the network ignores sigma and is right for the level it was trained
            with.

    Shapes:
        See :class:`DenoiserNetwork`; sides that 2^(scales - 1) does not divide are reflected inside.

    Raises:
        RangeError: scales is below 1.

    Example:
        >>> net = MultiScaleDenoiser().eval()
        >>> net(torch.rand(1, 3, 9, 10), 25 / 255).shape
        torch.Size([1, 3, 9, 10])

    Reference:
        Liu et al. (2018), When Image Denoising Meets High-Level Vision Tasks: A Deep Learning Approach,
        figure 2. Left open by the paper and chosen here: the resampling convolutions keep their channels and
        have batch normalisation and ReLU as well; the last layer is a plain 3x3 convolution.
    """

    def __init__(self, channels: int = 3, scales: int = 3, conditioned: bool = False) -> None:
        super().__init__(channels)
        check_count("MultiScaleDenoiser", "scales", scales)
        self.conditioned = conditioned
        self.multiple = 2 ** (scales - 1)
        inputs = [channels + int(conditioned)] + [128] * (scales - 1)
        self.encoders = nn.ModuleList(_Module(n, 128, 32) for n in inputs)
        self.downs = nn.ModuleList(_normalised(nn.Conv2d(128, 128, 3, 2, 1, bias=False)) for _ in inputs[1:])
        coarser = [256] * (scales - 2) + [128] * (scales > 1)
        self.ups = nn.ModuleList(_normalised(nn.ConvTranspose2d(n, n, 4, 2, 1, bias=False)) for n in coarser)
        self.decoders = nn.ModuleList(_Module(128 + n, 256, 64) for n in coarser)
        self.tail = nn.Conv2d(256 if scales > 1 else 128, channels, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate the noise in x."""
        height, width = x.shape[-2:]
        inputs = torch.cat((x, sigma), dim=1) if self.conditioned else x
        features = self.encoders[0](pad_to_multiple(inputs, self.multiple))
        skips = []
        for encoder, down in zip(self.encoders[1:], self.downs, strict=True):
            skips.append(features)
            features = encoder(down(features))
        for decoder, up in zip(reversed(self.decoders), reversed(self.ups), strict=True):
            features = decoder(torch.cat((skips.pop(), up(features)), dim=1))
        out: Tensor = self.tail(features)
        return out[..., :height, :width]


class _Module(nn.Module):
    """Feature encoding or decoding: 3x3 convolution and residual bottleneck."""

    def __init__(self, inputs: int, width: int, narrow: int) -> None:
        super().__init__()
        self.first = _normalised(nn.Conv2d(inputs, width, 3, padding=1, bias=False))
        self.bottleneck = nn.Sequential(
            _normalised(nn.Conv2d(width, narrow, 1, bias=False)),
            _normalised(nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)),
            _normalised(nn.Conv2d(narrow, width, 1, bias=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = x + self.bottleneck(x)
        return out


def _normalised(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))
