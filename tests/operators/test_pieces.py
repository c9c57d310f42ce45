"""Pieces of a measurement and the operators they came from."""

from __future__ import annotations

import pytest
import torch

from invrestore.operators import Blur, Downsample, Identity, Mask, SparseSampling
from invrestore.operators._pieces import pieces_of
from tests.catalogue import PADDINGS, random_kernel


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sides", [(1, 1), (5, 3), (4, 8)])
def test_a_blurred_piece_is_a_valid_blur_of_the_image_around_it(
    padding: str, sides: tuple[int, int], rng: torch.Generator
) -> None:
    x = torch.rand(2, 3, 60, 75, generator=rng, dtype=torch.float64)
    kernel = random_kernel(sides, rng).double()
    y = Blur(kernel, padding)(x)
    pieces = pieces_of(Blur(kernel, padding), y, side=16, per_axis=2)
    assert pieces is not None
    assert pieces.y.shape == (8, 3, 16, 16)
    assert pieces.count == 4
    kh, kw = sides
    assert pieces.input_shape == (3, 15 + kh, 15 + kw)
    # The first piece of the second image: where its first sample came from.
    top, left = ((n - 16) // 4 for n in y.shape[-2:])
    if padding != "valid":
        top, left = top - (kh - 1 - kh // 2), left - (kw - 1 - kw // 2)
    behind = x[1:, :, top : top + 15 + kh, left : left + 15 + kw]
    assert torch.allclose(pieces.operator(behind), pieces.y[4:5], atol=1e-12)


def test_kernels_and_masks_of_single_images_stay_with_their_pieces(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 40, 40, generator=rng)
    kernels = torch.rand(2, 1, 3, 3, generator=rng)
    mask = torch.rand(2, 1, 40, 40, generator=rng) < 0.7
    for operator in (Blur(kernels, "reflect"), Mask(mask)):
        together = pieces_of(operator, operator(x), side=16, per_axis=2)
        assert together is not None
        for i in range(2):
            alone = (
                Blur(kernels[i : i + 1], "reflect") if isinstance(operator, Blur) else Mask(mask[i : i + 1])
            )
            expected = pieces_of(alone, alone(x[i : i + 1]), side=16, per_axis=2)
            assert expected is not None
            probe = torch.rand(8, *together.input_shape, generator=rng)
            mine = slice(4 * i, 4 * i + 4)
            assert torch.equal(together.y[mine], expected.y)
            found = together.operator(probe)[mine]
            assert torch.allclose(found, expected.operator(probe[mine]), atol=1e-6)


def test_masked_pieces_are_those_of_the_masked_image(rng: torch.Generator) -> None:
    x = torch.rand(1, 3, 50, 41, generator=rng)
    for operator in (SparseSampling((3, 50, 41), keep=0.4), Mask(torch.rand(50, 41, generator=rng))):
        pieces, clean = (pieces_of(A, A(x), side=20, per_axis=2) for A in (operator, Identity()))
        assert pieces is not None
        assert clean is not None
        assert torch.equal(pieces.operator(clean.y), pieces.y)


def test_where_pieces_do_not_stand_for_the_whole_there_are_none(rng: torch.Generator) -> None:
    y = torch.rand(1, 3, 40, 40, generator=rng)
    hole = torch.ones(40, 40, dtype=torch.bool)
    hole[:24, :24] = False
    for operator in (
        Downsample(2),
        Mask(hole),
        Blur(torch.full((1, 11), 1 / 11)),
        Identity() + Identity(),
    ):
        assert pieces_of(operator, y, side=20, per_axis=2) is None
    assert pieces_of(Identity(), y, side=41, per_axis=1) is None
    assert pieces_of(Identity(), y[0, 0], side=20, per_axis=2) is None
