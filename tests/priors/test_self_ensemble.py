"""A denoiser averaged over the eight symmetries of the square, on a filter whose average is known."""

import torch
from torch import Tensor
from torch.nn import functional as F

from invrestore.priors import Denoiser


def filtered(kernel: Tensor, x: Tensor) -> Tensor:
    return F.conv2d(x, kernel[None, None], padding=2)


def test_eightfold_ensemble_averages_over_quarter_turns_and_mirror_images(rng: torch.Generator) -> None:
    kernel = torch.zeros(5, 5)
    # A knight's move from the middle, a neighbour, a corner and the middle itself.
    kernel[0, 1], kernel[2, 3], kernel[4, 4], kernel[2, 2] = 8.0, 4.0, 12.0, 1.0
    average = torch.tensor(
        [
            [3.0, 1.0, 0.0, 1.0, 3.0],
            [1.0, 0.0, 1.0, 0.0, 1.0],
            [0.0, 1.0, 1.0, 1.0, 0.0],
            [1.0, 0.0, 1.0, 0.0, 1.0],
            [3.0, 1.0, 0.0, 1.0, 3.0],
        ]
    )
    sigmas = []

    def network(x: Tensor, sigma: float) -> Tensor:
        sigmas.append(sigma)
        return filtered(kernel, x)

    x = torch.rand(2, 1, 6, 9, generator=rng)
    torch.testing.assert_close(Denoiser(network, ensemble=8).denoise(x, 0.1), filtered(average, x))
    assert sigmas == 8 * [0.1]


def test_ensemble_is_equivariant_whatever_the_network(rng: torch.Generator) -> None:
    def network(x: Tensor, sigma: float) -> Tensor:
        return x * torch.linspace(0, 1, x[0].numel()).square().view(x[0].shape)

    prior = Denoiser(network, ensemble=8)
    x = torch.rand(1, 3, 5, 7, generator=rng)
    expected = prior.denoise(x, 0.1)
    for change in (lambda v: v.flip(-1), lambda v: v.flip(-2), lambda v: v.mT):
        torch.testing.assert_close(prior.denoise(change(x), 0.1), change(expected))
