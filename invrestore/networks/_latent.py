"""What the latent-variable models share: a generator with its discriminator and encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from invrestore._checks import check_count, check_image
from invrestore.errors import RangeError, ShapeError

__all__ = ["LatentModel", "check_codes", "check_pictures", "check_size", "check_widths"]


class LatentModel(nn.Module):
    """A generator with the networks that were trained beside it, in one checkpoint.

    Calling the model calls its generator.

    Args:
        generator: Maps codes z (N, latent_dim), standard normal, to images (N, C, size, size) in [0, 1].
        discriminator: Maps images in [0, 1] to one logit each, (N,); positive means real. Called with
            `features=True` it returns the logits and a list of its feature maps, by which images can be
            compared.
        encoder: Maps images in [0, 1] to the mean and the log-variance of their code, two tensors
            (N, latent_dim); None for models without.

    Attributes:
        size: Side of the images in pixels.
        channels: Image channels.
        latent_dim: Length of a code.
    """

    generator: nn.Module
    discriminator: nn.Module
    encoder: nn.Module | None
    size: int
    channels: int
    latent_dim: int

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.encoder = generator, discriminator, encoder

    def forward(self, z: Tensor) -> Tensor:
        """Generate images (N, C, size, size) in [0, 1] from codes (N, latent_dim)."""
        images: Tensor = self.generator(z)
        return images


def check_codes(where: str, z: Tensor, length: int) -> None:
    """Raise ShapeError unless z is (N, length)."""
    if z.ndim != 2 or z.shape[1] != length:
        raise ShapeError(where, expected=f"z of shape (N, {length})", found=str(tuple(z.shape)))


def check_pictures(where: str, x: Tensor, channels: int, size: int) -> None:
    """Raise unless x is a floating-point tensor (N, channels, size, size)."""
    check_image(where, x)
    if tuple(x.shape[1:]) != (channels, size, size):
        raise ShapeError(
            where,
            expected=f"x of shape (N, {channels}, {size}, {size})",
            found=str(tuple(x.shape)),
            remedy="Crop the image to the subject and resize it to the size the network was trained on.",
        )


def check_size(where: str, size: int) -> None:
    """Raise RangeError unless the side of the images is a power of 2, 8 at least."""
    check_count(where, "size", size, least=8)
    if size & (size - 1):
        raise RangeError(where, expected="size as a power of 2", found=str(size), remedy="Take 64 or 128.")


def check_widths(where: str, name: str, size: int, widths: Sequence[int]) -> None:
    """Raise RangeError unless there is one width for each scale from size / 2 down to 4 pixels."""
    check_size(where, size)
    scales = round(math.log2(size)) - 2
    if len(widths) != scales or min(widths) < 1:
        raise RangeError(
            where,
            expected=f"{scales} positive {name}, one for each scale from {size // 2} to 4 pixels",
            found=str(tuple(widths)),
        )
