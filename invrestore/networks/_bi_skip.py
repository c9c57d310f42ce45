"""The generator of the unified conditional GAN: convolutions, deconvolutions and symmetric skips."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore._checks import check_count
from invrestore.networks._restorer import RestorerNetwork

__all__ = ["BiSkipGenerator"]


class BiSkipGenerator(RestorerNetwork):
    """`depth` convolutions and `depth` transposed convolutions, linked by skips at two levels.

    All layers are 3x3 with stride 1 and ReLU. The output of every second convolution, the 2nd, 4th and so on,
    is added to the output of the mirrored transposed convolution before its ReLU, and the input image to the
    output of the last layer, which therefore learns what is wrong with the image.

    Args:
        channels: Image channels, 3 for colour, 1 for gray.
        width: Feature channels of every layer.
        depth: Convolutions, and again transposed convolutions.
        informed: See :class:`RestorerNetwork`.

    Shapes:
        See :class:`RestorerNetwork`.

    Raises:
        RangeError: width or depth is below 1.

    Example:
        >>> net = BiSkipGenerator(width=8, depth=4)
        >>> net(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 3, 9, 7])

    Reference:
        The unified conditional GAN for denoising, deblurring and compressed images with bi-skip connections;
        layers as in Mao et al. (2016), Image Restoration Using Very Deep Convolutional Encoder-Decoder
        Networks with Symmetric Skip Connections (RED30). The last layer starts at zero, so that training
        begins at the identity.
    """

    def __init__(self, channels: int = 3, width: int = 64, depth: int = 15, informed: bool = False) -> None:
        super().__init__(channels, informed)
        check_count("BiSkipGenerator", "width", width)
        check_count("BiSkipGenerator", "depth", depth)
        sizes = [self.inputs] + [width] * depth
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.deconvs = nn.ModuleList(nn.ConvTranspose2d(width, width, 3, padding=1) for _ in range(depth - 1))
        last = nn.ConvTranspose2d(width, channels, 3, padding=1)
        self.deconvs.append(last)
        for layer in (*self.convs, *self.deconvs):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)
        self.to(memory_format=torch.channels_last)

    def image(self, x: Tensor) -> Tensor:
        """Restore x."""
        features, kept = x, []
        for number, conv in enumerate(self.convs, 1):
            features = F.relu(conv(features))
            if number % 2 == 0 and number < len(self.convs):
                kept.append((number, features))
        # Counted from the end, transposed convolution k undoes convolution k and ends where that one began.
        for number, deconv in zip(range(len(self.deconvs), 1, -1), self.deconvs, strict=False):
            features = deconv(features)
            if kept and kept[-1][0] == number - 1:
                features = features + kept.pop()[1]
            features = F.relu(features)
        out: Tensor = self.start(x) + self.deconvs[-1](features)
        return out
