"""DnCNN: a plain stack of convolutions that estimates the noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invrestore._checks import check_count
from invrestore.networks._blocks import DenoiserNetwork

__all__ = ["DnCNN"]


class DnCNN(DenoiserNetwork):
    """3x3 convolutions with ReLU between them, at full resolution; the output is the noise.

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        depth: Number of convolutions: 17 for one noise level, 20 for a range of levels and for the authors'
            colour networks.
        width: Feature channels.
        normalised: Batch normalisation after all convolutions but the first and the last, as in training.
            Off, each convolution has a bias instead, the form in which published weights are stored.

    Shapes:
        See :class:`DenoiserNetwork`. sigma is checked and otherwise ignored: a DnCNN is trained for one
        level, or finds the level itself.

    Raises:
        RangeError: depth is below 2, or width below 1.

    Example:
        >>> DnCNN(channels=1, depth=5, width=16)(torch.rand(1, 1, 4, 4), 0.1).shape
        torch.Size([1, 1, 4, 4])

    Reference:
        Zhang et al. (2017), Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising.
    """

    def __init__(self, channels: int = 3, depth: int = 17, width: int = 64, normalised: bool = True) -> None:
        super().__init__(channels)
        check_count("DnCNN", "depth", depth, least=2)
        check_count("DnCNN", "width", width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=not normalised))
            if normalised:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Conv2d(width, channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate the noise in x."""
        out: Tensor = self.layers(x)
        return out
