from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from invrestore import DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.operators import Blur, Downsample
from tests.catalogue import random_kernel

PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}


def random_image(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("filter", list(PILLOW))
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 6, 8])
def test_equals_pillow_away_from_the_border(filter: str, factor: int, rng: torch.Generator) -> None:
    x = random_image(rng, 1, 1, 48, 72)
    picture = Image.fromarray(x[0, 0].numpy().astype(np.float32))
    small = picture.resize((72 // factor, 48 // factor), PILLOW[filter])
    expected = torch.from_numpy(np.array(small)).double()
    y = Downsample(factor, filter=filter)(x)[0, 0]
    margin = 2
    inside = (slice(margin, -margin), slice(margin, -margin))
    assert float((y - expected)[inside].abs().max()) < 1e-5
    if filter == "area":
        assert float((y - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("filter", list(PILLOW))
def test_trap_pixel_centres_are_aligned(factor: int, filter: str) -> None:
    # A linear ramp is its own reduction: pixel i of y must show the ramp at the centre of block i.
    rows = torch.arange(48, dtype=torch.float64).view(1, 1, 48, 1).expand(1, 1, 48, 48)
    y = Downsample(factor, filter=filter)(rows)[0, 0, :, 0]
    centres = torch.arange(48 // factor, dtype=torch.float64) * factor + (factor - 1) / 2
    assert torch.allclose(y[2:-2], centres[2:-2], atol=1e-10)


def test_trap_sizes_the_factor_does_not_divide(rng: torch.Generator) -> None:
    x = random_image(rng, 1, 3, 17, 23)
    with pytest.raises(ShapeError, match=r"17 x 23.*Downsample\(4, input_shape=\(3, 17, 23\)\)"):
        Downsample(4)(x)
    down = Downsample(4, input_shape=(3, 17, 23))
    y = down(x)
    assert y.shape == (1, 3, 5, 6)
    assert down.output_shape == (3, 5, 6)
    assert down.adjoint(y).shape == x.shape
    assert down.pinv(y).shape == x.shape


def test_trap_prox_of_an_own_or_trivial_filter(rng: torch.Generator) -> None:
    x = random_image(rng, 1, 1, 8, 12)
    down = Downsample(2, filter=torch.ones(1, 1, dtype=torch.float64))
    y = random_image(rng, 1, 1, 4, 6)
    p = down.prox(x, y, 3.0)
    expected = x.clone()
    expected[..., ::2, ::2] = (x[..., ::2, ::2] + 3.0 * y) / 4.0
    assert torch.allclose(p, expected, atol=1e-10)


def test_factor_one_changes_nothing(rng: torch.Generator) -> None:
    x = random_image(rng, 1, 3, 7, 5)
    for filter in PILLOW:
        assert torch.allclose(Downsample(1, filter=filter)(x), x, atol=1e-14)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero", "circular"])
@pytest.mark.parametrize("sides", [(1, 1), (2, 4), (3, 5), (13, 11)], ids=str)
def test_an_own_kernel_is_a_sampled_blur(padding: str, sides: tuple[int, int], rng: torch.Generator) -> None:
    kernel = random_kernel(sides, rng)
    x = random_image(rng, 2, 3, 12, 24)
    for factor in (1, 2, 3, 4):
        first = (factor - 1) // 2
        expected = Blur(kernel, padding)(x)[..., first::factor, first::factor]
        assert torch.allclose(Downsample(factor, filter=kernel, padding=padding)(x), expected, atol=1e-13)


def test_every_filter_keeps_a_constant_picture() -> None:
    x = torch.full((1, 1, 24, 24), 0.7, dtype=torch.float64)
    for factor in (1, 2, 3, 4, 8):
        for filter in PILLOW:
            for padding in ("reflect", "replicate", "circular"):
                y = Downsample(factor, filter=filter, padding=padding)(x)
                assert torch.allclose(y, torch.full_like(y, 0.7), atol=1e-14)


def test_prox_with_zhao_fourier_form_and_eigenvectors_agree(rng: torch.Generator) -> None:
    down = Downsample(3, filter="bicubic", padding="circular")
    bound = Downsample(3, filter="bicubic", padding="circular", input_shape=(1, 15, 21))
    x, y = random_image(rng, 1, 1, 15, 21), random_image(rng, 1, 1, 5, 7)
    fourier = down.prox(x, y, 2.0)
    u, v, values = bound._eigen((5, 7), y) or pytest.fail("no decomposition")
    solved = u @ ((u.mT @ (y - down(x)) @ v) / (1 + 2.0 * values)) @ v.mT
    assert torch.allclose(fourier, x + 2.0 * down.adjoint(solved), atol=1e-12)


def test_large_measurements_fall_back_to_conjugate_gradients(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = random_image(rng, 2, 1, 12, 16), random_image(rng, 2, 1, 3, 4)
    step = torch.tensor([0.5, 40.0], dtype=torch.float64)
    exact = Downsample(4).prox(x, y, step)
    inverse = Downsample(4).pinv(y)
    norm = float(Downsample(4).norm((1, 12, 16)))
    monkeypatch.setattr("invrestore.operators._downsample._EIGEN_LIMIT", 2)
    assert torch.allclose(Downsample(4).prox(x, y, step), exact, atol=1e-10)
    assert torch.allclose(Downsample(4).pinv(y), inverse, atol=1e-9)
    assert norm <= float(Downsample(4).norm((1, 12, 16))) <= 1.02 * norm


def test_low_precision_is_computed_in_float32(rng: torch.Generator) -> None:
    x = random_image(rng, 1, 3, 16, 16)
    y = Downsample(4)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, Downsample(4)(x.bfloat16().float()).bfloat16())
    assert Downsample(4).prox(x.bfloat16(), y, 1.0).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Downsample(0), RangeError, "factor >= 1"),
        (lambda: Downsample(2.5), DTypeError, "factor as an int"),  # type: ignore[arg-type]
        (lambda: Downsample(2, filter="lanczos"), UnknownNameError, "filter out of"),
        (lambda: Downsample(2, padding="valid"), UnknownNameError, "padding out of"),
        (lambda: Downsample(2, filter=torch.ones(2, 1, 3, 3)), ShapeError, "one kernel"),
        (lambda: Downsample(2, filter=torch.tensor([[1.0, -1.0]])), RangeError, "sum other than 0"),
        (lambda: Downsample(2, input_shape=(8, 8)), ShapeError, "input_shape"),
        (lambda: Downsample(2).adjoint(torch.ones(3, 4)), ShapeError, "y of shape"),
        (lambda: Downsample(2, input_shape=(3, 8, 8))(torch.ones(1, 3, 8, 6)), ShapeError, r"\(B, 3, 8, 8\)"),
    ],
    ids=[
        "factor-0",
        "factor-float",
        "filter",
        "padding",
        "kernels",
        "edge-filter",
        "shape",
        "adjoint",
        "bound",
    ],
)
def test_bad_arguments_are_named(make: object, error: type[Exception], message: str) -> None:
    assert callable(make)
    with pytest.raises(error, match=message):
        make()
