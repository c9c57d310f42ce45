"""Parts that every architecture shares: the denoiser contract, the noise map and padding to any size."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore._checks import check_count, check_device, check_image
from invrestore.errors import RangeError, ShapeError

__all__ = [
    "DenoiserNetwork",
    "NormalisedBlock",
    "ResidualBlock",
    "conv3x3",
    "initialise_normal",
    "noise_map",
    "pad_to_multiple",
]


class DenoiserNetwork(nn.Module, ABC):
    """A network that maps a noisy image and its noise level to a clean image.

    Subclasses implement :meth:`noise`, which returns the estimated noise; :meth:`forward` checks the
    arguments once, runs the network in the type of its own weights (channels last in memory) and subtracts
    the estimate in the type of the image. A network moved to bfloat16 therefore rounds only its noise
    estimate, never the image.

    Args:
        channels: Image channels C: 1 for gray, 3 for colour.

    Attributes:
        channels: Image channels C.
        sigma_range: Noise levels seen in training, or None when the network was not trained. Other levels in
            [0, 1] are computed too, with a warning.
        maps: Whether training showed noise that differs from pixel to pixel. Maps are computed in any case.

    Shapes:
        x: (B, C, H, W), floating point, nominally in [0, 1]; any H, W >= 1; values are never clamped.
        sigma: float, or tensor of shape (), (B,) or (B, 1, H, W), in units of the image range, in [0, 1].

    Raises:
        ShapeError: x is not (B, channels, H, W), or sigma does not fit x.
        DTypeError: x is not floating point.
        DeviceError: x and the network live on different devices.
        RangeError: sigma is outside [0, 1]. Tensors on an accelerator are not read back, so only floats and
            tensors on the CPU are checked.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = check_count(type(self).__name__, "channels", channels)
        self.sigma_range: tuple[float, float] | None = None
        self.maps = False

    @abstractmethod
    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate the noise in x; sigma has shape (B, 1, H, W) and the type of x."""

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise x of noise level sigma; the result has the shape and type of x."""
        where = type(self).__name__
        weight = next(self.parameters())
        check_image(where, x)
        if x.shape[1] != self.channels:
            raise ShapeError(
                where,
                expected=f"x of shape (B, {self.channels}, H, W)",
                found=str(tuple(x.shape)),
                remedy="Load the network for this number of channels, or convert the image.",
            )
        check_device(where, x=x, network=weight)
        level = noise_map(x, sigma, where=where, trained=self.sigma_range)
        inner = x.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        return x - self.noise(inner, level.to(weight.dtype)).to(x.dtype)


def noise_map(
    x: Tensor, sigma: float | Tensor, *, where: str, trained: tuple[float, float] | None = None
) -> Tensor:
    """Expand a noise level to one value per pixel.

    Args:
        x: Images (B, C, H, W).
        sigma: Level in [0, 1]: float, (), (B,) or (B, 1, H, W).
        where: Name of the caller, for messages.
        trained: Levels seen in training; others raise a warning.

    Returns:
        Tensor (B, 1, H, W) with the type and device of x.

    Raises:
        ShapeError: sigma has another shape.
        RangeError: sigma is outside [0, 1] or not finite; see :class:`DenoiserNetwork` for what is checked.
    """
    batch, _, height, width = x.shape
    if isinstance(sigma, Tensor):
        shapes = {(), *((n, *rest) for n in (1, batch) for rest in ((), (1, 1, 1), (1, height, width)))}
        if sigma.shape not in shapes:
            expected = f"sigma of shape (), ({batch},) or ({batch}, 1, {height}, {width})"
            raise ShapeError(where, expected=expected, found=str(tuple(sigma.shape)))
        # Reading a value back from an accelerator would stall the loop that calls us.
        if sigma.device.type == "cpu" and not torch.compiler.is_compiling():
            _check_level(float(sigma.min()), float(sigma.max()), where, trained)
        level = sigma.to(device=x.device, dtype=x.dtype)
        if level.ndim < 4:
            level = level.reshape(-1, 1, 1, 1)
    else:
        _check_level(float(sigma), float(sigma), where, trained)
        level = x.new_full((1, 1, 1, 1), float(sigma))
    return level.expand(batch, 1, height, width)


def _check_level(low: float, high: float, where: str, trained: tuple[float, float] | None) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 1):
        found = f"sigma={low:g}" if low == high else f"sigma from {low:g} to {high:g}"
        remedy = "Noise levels use the image range; 8-bit level 25 is 25/255 = 0.098."
        raise RangeError(where, expected="sigma in [0, 1]", found=found, remedy=remedy)
    if trained is None or torch.compiler.is_compiling():
        return
    if low < trained[0] - 1e-6 or high > trained[1] + 1e-6:
        warnings.warn(
            f"{where}: sigma {low:g}{'' if low == high else f' to {high:g}'} is outside the trained range "
            f"[{trained[0]:g}, {trained[1]:g}]; the result is an extrapolation.",
            stacklevel=4,
        )


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflect x (B, C, H, W) at its lower and right edge until both sides are a multiple of `multiple`.

    The edge pixel is not repeated. Sides shorter than the padding reflect to and fro, and a side of 1
    repeats, so every size works.
    """
    height, width = x.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not (down or right):
        return x
    if down < height and right < width:
        return F.pad(x, (0, right, 0, down), mode="reflect")
    rows, columns = (_reflected(n, n + extra, x.device) for n, extra in ((height, down), (width, right)))
    return x[..., rows, :][..., columns]


def _reflected(size: int, length: int, device: torch.device) -> Tensor:
    """Indices 0, 1, ..., size-1, size-2, ..., 0, 1, ... of the given length."""
    period = max(2 * (size - 1), 1)
    position = torch.arange(length, device=device) % period
    return torch.minimum(position, period - position) if size > 1 else torch.zeros_like(position)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3 convolution without bias that keeps the size, initialised for a ReLU behind it."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), both 3x3 and without bias; starts as the identity.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv3x3(width, width)
        self.second = conv3x3(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        change: Tensor = self.second(F.relu(self.first(x), inplace=True))
        return change.add_(x)


class NormalisedBlock(nn.Module):
    """x + BN(conv(dropout(relu(BN(conv(x)))))), both convolutions 3x3 and without bias.

    Args:
        width: Channels.
        dropout: Probability that a feature is zeroed in training; None leaves the layer out, which changes the names
            of the weights behind it.
    """

    def __init__(self, width: int, dropout: float | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *([] if dropout is None else [nn.Dropout(dropout)]),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        out: Tensor = x + self.layers(x)
        return out


def initialise_normal(network: nn.Module) -> None:
    """Draw weights from normal distributions of deviation 0.02, as adversarial networks since DCGAN do."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1, std=0.02)
    network.to(memory_format=torch.channels_last)
