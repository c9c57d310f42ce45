"""Filtering by the real FFT in two passes, rows and then columns."""

from __future__ import annotations

import torch

from invrestore._types import Tensor

__all__ = ["fast_size", "filtered", "image_of", "spectrum_of"]


def fast_size(n: int) -> int:
    """Smallest even 2^a 3^b 5^c at or above ``n``: other lengths cost the FFT up to several times more."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and (n % 2 == 0 or n == 1):
            return n
        n += 1


def spectrum_of(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """``rfft2`` of ``x`` with zeros up to ``grid``; columns are contiguous, of images and kernels alike."""
    spectrum: Tensor = torch.fft.fft(torch.fft.rfft(x, n=grid[1]), n=grid[0], dim=-2)
    return spectrum


def image_of(spectrum: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The first ``size`` pixels of ``irfft2``, which in one pass would copy the spectrum first, at twice the cost."""
    rows = torch.fft.ifft(spectrum, dim=-2)[..., : size[0], :]
    x: Tensor = torch.fft.irfft(rows, n=grid[1])[..., : size[1]]
    return x


def filtered(spectrum: Tensor, transfer: Tensor) -> Tensor:
    """A fresh ``spectrum`` times a transfer function (B or 1, C or 1, ...), in its memory where autograd allows.

    On the CPU one image after the other: where torch cuts a batch into threads it rounds products of complex numbers
    otherwise than elsewhere, and an image must not depend on its neighbours.
    """
    if spectrum.requires_grad or transfer.requires_grad:
        return spectrum * transfer
    if spectrum.device.type != "cpu":
        return spectrum.mul_(transfer)
    for image, response in zip(spectrum, transfer.expand(len(spectrum), -1, -1, -1), strict=True):
        image.mul_(response)
    return spectrum
