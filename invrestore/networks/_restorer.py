"""The contract of networks that map a degraded image straight to a restored one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from invrestore._checks import check_count, check_device, check_image
from invrestore.errors import ShapeError
from invrestore.networks._blocks import pad_to_multiple

__all__ = ["RestorerNetwork"]


class RestorerNetwork(nn.Module, ABC):
    """A network that maps a degraded image to a restored image in one pass, without being told a noise level.

    Subclasses implement :meth:`image`; :meth:`forward` checks the input once, reflects it to sides that
    :attr:`multiple` divides, runs the network in the type of its own weights (channels last in memory) and
    crops. An informed network sees what is known about the degradation as well, stacked along the channels:

        first image (C), measurement (C), known (1), sigma (1)

    The first image is a cheap restoration (holes filled, blur undone by a regularised inverse), known is 1 on
    measured pixels and 0 in holes, sigma the noise level. `priors.FeedForward` makes this input from a
    measurement and its operator.

    Args:
        channels: Image channels C: 1 for gray, 3 for colour.
        informed: Take 2 C + 2 channels as above instead of the degraded image alone.

    Attributes:
        channels: Image channels C.
        informed: Whether the input carries the first image, the mask and the noise level.
        inputs: Channels of the input.
        multiple: Sides are reflected inside to multiples of this number.

    Shapes:
        x: (B, inputs, H, W), floating point, nominally in [0, 1]; any H, W >= 1.
        returns: (B, channels, H, W), in [0, 1] where the network ends in tanh, else nominally.

    Raises:
        ShapeError: x is not (B, inputs, H, W).
        DTypeError: x is not floating point.
        DeviceError: x and the network live on different devices.
    """

    multiple: int = 1

    def __init__(self, channels: int, informed: bool = False) -> None:
        super().__init__()
        self.channels = check_count(type(self).__name__, "channels", channels)
        self.informed = informed
        self.inputs = 2 * channels + 2 if informed else channels

    @abstractmethod
    def image(self, x: Tensor) -> Tensor:
        """Restore checked x, whose sides are multiples of :attr:`multiple`."""

    def forward(self, x: Tensor) -> Tensor:
        """Restore x; the result has the type of x."""
        height, width = x.shape[-2:]
        restored: Tensor = self.image(self._prepared(x))
        return restored[..., :height, :width].to(x.dtype)

    def _prepared(self, x: Tensor) -> Tensor:
        where = type(self).__name__
        weight = next(self.parameters())
        check_image(where, x)
        if x.shape[1] != self.inputs:
            raise ShapeError(
                where,
                expected=f"x of shape (B, {self.inputs}, H, W)",
                found=str(tuple(x.shape)),
                remedy="priors.FeedForward makes the input of a network from a measurement."
                if self.informed
                else "Load the network for this number of channels, or convert the image.",
            )
        check_device(where, x=x, network=weight)
        padded = pad_to_multiple(x.to(weight.dtype), self.multiple)
        return padded.contiguous(memory_format=torch.channels_last)

    def start(self, x: Tensor) -> Tensor:
        """The first `channels` channels of the input: the image that networks with a global skip correct."""
        return x[:, : self.channels]
