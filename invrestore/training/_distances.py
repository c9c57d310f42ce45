"""How near generated images are to real ones, as a set and one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore.errors import ShapeError

__all__ = ["RandomFeatures", "kernel_distance", "nearest_distances"]


class RandomFeatures(nn.Module):
    """Statistics of an image under convolutions with fixed random weights.

    Four 3x3 convolutions of stride 2 with leaky ReLU; mean and standard deviation over the pixels of each of
    the feature maps, and of the image's own values. Random filters of several scales tell textures, colours
    and coarse shapes apart, need no download, and are the same for every model that is compared.

    Args:
        channels: Image channels.
        width: Channels of each convolution.
        seed: Of the weights.

    Shapes:
        x: (N, channels, H, W), in [0, 1], sides of at least 16.
        features: (N, 2 channels + 8 width).
    """

    def __init__(self, channels: int = 3, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.weights: list[Tensor] = []
        for inputs in (channels, width, width, width):
            weight = torch.randn(width, inputs, 3, 3, generator=rng)
            # Filters of zero mean answer to structure; brightness and colour are counted apart.
            weight -= weight.mean(dim=(1, 2, 3), keepdim=True)
            self.weights.append(weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Return the statistics of each image."""
        parts = []
        for weight in (None, *self.weights):
            if weight is not None:
                x = F.leaky_relu(F.conv2d(x, weight.to(x), stride=2, padding=1), 0.2) * 2
            parts += [x.mean(dim=(2, 3)), x.flatten(2).std(dim=2, correction=0)]
        return torch.cat(parts, dim=1)


def kernel_distance(
    generated: Sequence[Tensor], real: Sequence[Tensor], features: Callable[[Tensor], Tensor]
) -> float:
    """Kernel distance: squared maximum mean discrepancy with k(a, b) = (a.b / D + 1)^3, unbiased.

    Features are first brought to mean 0 and standard deviation 1 over the real images. Zero for sets of one
    distribution up to chance, where it may be negative.

    Args:
        generated: Batches of images.
        real: Batches of images.
        features: Maps a batch of images to vectors (N, D).

    Raises:
        ShapeError: One of the sets has fewer than two images.

    Reference:
        Binkowski et al. (2018), Demystifying MMD GANs. Unlike the paper's KID, the feature network is
        given, so values of different networks cannot be compared.
    """
    with torch.no_grad():
        x = torch.cat([features(batch) for batch in generated]).double()
        y = torch.cat([features(batch) for batch in real]).double()
    if min(len(x), len(y)) < 2:
        raise ShapeError(
            "kernel_distance", expected="two images or more in each set", found=f"{len(x)} and {len(y)}"
        )
    mean, deviation = y.mean(dim=0), y.std(dim=0) + 1e-8
    x, y = (x - mean) / deviation, (y - mean) / deviation

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / a.shape[1] + 1) ** 3

    def off_diagonal_mean(matrix: Tensor) -> Tensor:
        count = len(matrix)
        return (matrix.sum() - matrix.trace()) / (count * (count - 1))

    cross = kernel(x, y).mean()
    return float(off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2 * cross)


def nearest_distances(images: Tensor, known: Tensor, chunk: int = 2048) -> tuple[Tensor, Tensor]:
    """Root-mean-square distance of each image to the nearest of a known set, and which one it is.

    Args:
        images: Images (N, C, H, W) in [0, 1].
        known: uint8 images (M, C, H, W), on the same device.
        chunk: Known images compared at a time.

    Returns:
        Distances in units of the image range (N,), and indices into the known set (N,).
    """
    flat = images.flatten(1)
    best = torch.full((len(flat),), torch.inf, device=flat.device)
    index = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
    for start in range(0, len(known), chunk):
        part = known[start : start + chunk].flatten(1).to(flat) / 255
        distances = torch.cdist(flat, part) / flat.shape[1] ** 0.5
        nearest, which = distances.min(dim=1)
        closer = nearest < best
        best, index = torch.where(closer, nearest, best), torch.where(closer, which + start, index)
    return best, index
