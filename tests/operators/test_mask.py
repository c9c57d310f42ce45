"""Masks: closed forms, missing pixels left alone, noise from known pixels, exact and guided sampling."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.operators import Gradient, Mask, SparseSampling


def _image(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def test_every_documented_mask_shape_gives_the_product(rng: torch.Generator) -> None:
    x = _image(rng, 4, 3, 5, 6)
    for shape in ((5, 6), (1, 5, 6), (3, 5, 6), (1, 1, 5, 6), (1, 3, 5, 6), (4, 1, 5, 6), (4, 3, 5, 6)):
        m = torch.rand(shape, generator=rng, dtype=torch.float64) + 0.1
        torch.testing.assert_close(Mask(m)(x), m * x)


def test_numpy_and_zero_one_integer_masks_mean_the_same_as_boolean_ones(rng: torch.Generator) -> None:
    m = torch.rand(4, 5, generator=rng) < 0.5
    x = _image(rng, 1, 1, 4, 5)
    expected = torch.where(m, x, 0.0)
    for same in (m, m.numpy(), m.to(torch.uint8), m.long().numpy(), m.float()):
        assert torch.equal(Mask(same)(x), expected)


def test_prox_of_a_real_mask_solves_the_normal_equations(rng: torch.Generator) -> None:
    m = _image(rng, 2, 3, 4, 5) * (torch.rand(2, 3, 4, 5, generator=rng) < 0.6)
    z, y = _image(rng, 2, 3, 4, 5), _image(rng, 2, 3, 4, 5)
    step = torch.tensor([0.3, 20.0], dtype=torch.float64)
    x = Mask(m).prox(z, y, step)
    residual = x - z + step.view(-1, 1, 1, 1) * m * (m * x - y)
    assert float(residual.abs().max()) < 1e-13


def test_prox_and_projection_keep_unknown_pixels_bit_for_bit(rng: torch.Generator) -> None:
    m = torch.rand(6, 7, generator=rng) < 0.5
    z, y = torch.rand(2, 3, 6, 7, generator=rng), torch.rand(2, 3, 6, 7, generator=rng)
    A = Mask(m)
    hidden = ~m.expand(2, 3, 6, 7)
    assert torch.equal(A.prox(z, y, 7.0)[hidden], z[hidden])
    projected = A.project(z, y)
    assert torch.equal(projected[hidden], z[hidden])
    assert torch.equal(projected[~hidden], y[~hidden])


def test_pseudo_inverse_is_that_of_the_dense_diagonal(rng: torch.Generator) -> None:
    m = _image(rng, 1, 1, 3, 4)
    m[0, 0, 1, 2] = 0
    y = _image(rng, 1, 2, 3, 4)
    dense = torch.linalg.pinv(torch.diag(m.flatten()))
    expected = (dense @ y.view(2, -1).T).T.view(1, 2, 3, 4)
    torch.testing.assert_close(Mask(m).pinv(y), expected, rtol=1e-12, atol=1e-12)


def test_norm_is_the_largest_weight_per_image(rng: torch.Generator) -> None:
    m = torch.tensor([[[[0.5, -3.0]]], [[[2.0, 0.0]]]], dtype=torch.float64)
    assert Mask(m).norm().tolist() == [3.0, 2.0]
    assert Mask(m[:1]).norm().shape == ()
    assert float(Mask(m != 0).norm().max()) == 1.0


def test_gradients_reach_the_image_and_a_real_mask(rng: torch.Generator) -> None:
    m = (torch.rand(1, 1, 2, 3, generator=rng, dtype=torch.float64) + 0.2).requires_grad_()
    x = _image(rng, 2, 2, 2, 3).requires_grad_()
    y = _image(rng, 2, 2, 2, 3).requires_grad_()

    def everything(m: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        A = Mask(m)
        return A(x), A.adjoint(y), A.prox(x, y, 0.7), A.pinv(y), A.project(x, y)

    assert torch.autograd.gradcheck(everything, (m, x, y))


def test_gradient_of_projection_is_finite_where_the_mask_is_zero(rng: torch.Generator) -> None:
    m = torch.tensor([[1.0, 0.0]], requires_grad=True)
    Mask(m).pinv(torch.ones(1, 1, 1, 2)).sum().backward()
    assert m.grad is not None
    assert bool(torch.isfinite(m.grad).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_of_the_image_is_kept(rng: torch.Generator, dtype: torch.dtype) -> None:
    x = torch.rand(1, 1, 3, 3, generator=rng).to(dtype)
    for m in (torch.eye(3, dtype=torch.bool), torch.eye(3, dtype=torch.float64) + 0.5):
        A = Mask(m)
        for result in (A(x), A.adjoint(x), A.prox(x, x, 1.0), A.pinv(x), A.project(x, x)):
            assert result.dtype == dtype


@pytest.mark.parametrize("sigma", [0.01, 0.1])
@pytest.mark.parametrize("keep", [1.0, 0.5, 0.05])
def test_noise_level_is_read_from_known_pixels_alone(rng: torch.Generator, sigma: float, keep: float) -> None:
    ramp = torch.linspace(0, 1, 96, dtype=torch.float64)
    x = (0.6 * ramp[:, None] + 0.4 * ramp).expand(2, 1, 96, 96)
    mask = torch.rand(96, 96, generator=rng) < keep
    y = torch.where(mask, x + sigma * torch.randn(x.shape, generator=rng, dtype=x.dtype), 0.0)
    estimate = Mask(mask).estimate_sigma(y)
    assert estimate.shape == (2,)
    assert bool(((estimate / sigma - 1).abs() < 0.15).all()), estimate


def test_noise_level_accounts_for_the_weights_of_a_real_mask(rng: torch.Generator) -> None:
    m = torch.rand(64, 64, generator=rng, dtype=torch.float64) + 0.2
    x = torch.full((1, 1, 64, 64), 0.5, dtype=torch.float64)
    y = m * x + 0.05 * torch.randn(x.shape, generator=rng, dtype=x.dtype)
    assert abs(float(Mask(m).estimate_sigma(y)) / 0.05 - 1) < 0.1


def test_noise_level_of_a_lonely_pixel_is_zero_and_of_scattered_ones_positive(rng: torch.Generator) -> None:
    lonely = torch.zeros(5, 5, dtype=torch.bool)
    lonely[2, 2] = True
    y = torch.rand(1, 1, 5, 5, generator=rng)
    assert float(Mask(lonely).estimate_sigma(y)) == 0
    assert float(Mask(torch.eye(5, dtype=torch.bool)).estimate_sigma(y)) > 0


@pytest.mark.parametrize("tension", [0.0, 0.5, 20.0])
def test_interpolation_is_the_dense_minimiser_among_images_with_the_known_pixels(
    rng: torch.Generator, tension: float
) -> None:
    m = torch.rand(7, 6, generator=rng) < 0.4
    x = _image(rng, 2, 1, 7, 6)
    found = Mask(m).interpolate(Mask(m)(x), tension, rtol=1e-12, max_steps=2000)
    D = Gradient()
    eye = torch.eye(42, dtype=torch.float64).view(42, 1, 7, 6)
    L = D.gram(eye).flatten(1)
    M = L @ L + tension * L
    hole = ~m.flatten()
    known = x.flatten(1)[:, ~hole]
    filled = -torch.linalg.solve(M[hole][:, hole], M[hole][:, ~hole] @ known.T).T
    torch.testing.assert_close(found.flatten(1)[:, hole], filled)
    torch.testing.assert_close(found.flatten(1)[:, ~hole], known)


def test_interpolation_divides_by_the_mask_and_fills_each_image_alone(rng: torch.Generator) -> None:
    m = torch.where(torch.rand(3, 1, 9, 8, generator=rng) < 0.5, 2.0, 0.0)
    x = _image(rng, 3, 3, 9, 8).float()
    together = Mask(m).interpolate(Mask(m)(x))
    torch.testing.assert_close(together[m.expand_as(x) != 0], x[m.expand_as(x) != 0])
    for i in range(3):
        alone = Mask(m[i : i + 1]).interpolate(Mask(m[i : i + 1])(x[i : i + 1]))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-4)
    flat = torch.full((1, 1, 9, 8), 0.3)
    torch.testing.assert_close(Mask(m[:1]).interpolate(Mask(m[:1])(flat)), flat)


def test_interpolation_of_whole_images_and_of_large_holes_ends_quietly(rng: torch.Generator) -> None:
    x = torch.rand(1, 1, 64, 64, generator=rng)
    assert torch.equal(Mask(torch.ones(64, 64)).interpolate(x), x)
    lonely = torch.zeros(64, 64)
    lonely[3, 5] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Mask(lonely).interpolate(lonely * x, max_steps=3)
    torch.testing.assert_close(found, x[0, 0, 3, 5].expand_as(found))
    with pytest.raises(RangeError, match="tension >= 0"):
        Mask(lonely).interpolate(x, -1.0)
    with pytest.raises(ShapeError, match="y to fit the mask"):
        Mask(lonely).interpolate(x[..., 1:])


def test_a_mask_of_another_size_names_both_sizes() -> None:
    A = Mask(torch.ones(8, 8, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"fit the mask \(any, any, 8, 8\), got \(1, 3, 8, 9\)"):
        A(torch.zeros(1, 3, 8, 9))
    with pytest.raises(ShapeError, match=r"Mask.adjoint: expected y to fit the mask"):
        A.adjoint(torch.zeros(1, 3, 9, 8))
    with pytest.raises(ShapeError, match=r"fit the mask \(2, any, 4, 4\)"):
        Mask(torch.ones(2, 1, 4, 4))(torch.zeros(3, 1, 4, 4))
    with pytest.raises(ShapeError, match="x of shape"):
        Mask(torch.ones(1, 3, 4, 4))(torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.zeros(3, 3), RangeError, "keeps at least one pixel, got an empty mask"),
        (torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)]), RangeError, "empty mask for image 1"),
        (torch.full((2, 2), float("nan")), RangeError, "mask with finite values only"),
        (torch.full((2, 2), float("inf")), RangeError, "infinite"),
        (torch.tensor([[0, 255]], dtype=torch.uint8), RangeError, "0 and 1 only"),
        (torch.ones(3), ShapeError, r"got \(3,\)"),
        (torch.ones(1, 1, 1, 2, 2), ShapeError, r"mask of shape"),
        (torch.ones(0, 4), ShapeError, "at least one pixel"),
        (torch.ones(2, 2, dtype=torch.complex64), DTypeError, "real mask"),
        ("mask.png", DTypeError, "mask as a torch.Tensor, got str"),
    ],
)
def test_unusable_masks_are_refused(mask: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Mask(mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [0.01, 0.1, 1 / 3, 1.0])
def test_sparse_sampling_keeps_the_exact_number_of_pixels(rng: torch.Generator, keep: float) -> None:
    A = SparseSampling((3, 17, 23), keep=keep, rng=rng)
    assert int(A.mask.sum()) == max(1, round(keep * 17 * 23))
    assert A.input_shape == (3, 17, 23)
    assert A(torch.ones(2, 3, 17, 23)).sum() == 6 * A.mask.sum()


def test_sparse_sampling_without_a_generator_repeats_itself_and_ignores_the_global_seed() -> None:
    first = SparseSampling((1, 20, 20)).mask
    torch.manual_seed(5)
    assert torch.equal(SparseSampling((1, 20, 20)).mask, first)
    other = SparseSampling((1, 20, 20), rng=torch.Generator().manual_seed(1)).mask
    assert not torch.equal(other, first)


def test_uniform_sampling_is_spread_evenly(rng: torch.Generator) -> None:
    counts = sum(SparseSampling((1, 8, 8), keep=0.25, rng=rng).mask[0, 0].double() for _ in range(2000))
    # Binomial spread: 500 +- 19 per pixel; five standard deviations.
    assert isinstance(counts, torch.Tensor)
    assert float((counts - 500).abs().max()) < 100


def test_guided_sampling_prefers_edges(rng: torch.Generator) -> None:
    guide = torch.zeros(1, 40, 40)
    guide[:, :, 20:] = 1
    mask = SparseSampling((1, 40, 40), keep=0.05, guide=guide, rng=rng).mask[0, 0]
    assert int(mask.sum()) == 80
    assert int(mask[:, 19:21].sum()) > 60


def test_a_flat_guide_means_uniform_sampling_and_a_batch_of_guides_one_mask_each(
    rng: torch.Generator,
) -> None:
    flat = SparseSampling((3, 10, 10), keep=0.3, guide=torch.zeros(3, 10, 10), rng=rng)
    assert int(flat.mask.sum()) == 30
    batch = SparseSampling((3, 10, 10), keep=0.3, guide=torch.rand(4, 3, 10, 10, generator=rng), rng=rng)
    assert batch.mask.shape == (4, 1, 10, 10)
    assert batch.mask.flatten(1).sum(1).tolist() == [30] * 4
    assert not torch.equal(batch.mask[0], batch.mask[1])


def test_moving_a_sampling_keeps_its_pixels(rng: torch.Generator) -> None:
    A = SparseSampling((1, 9, 9), keep=0.2, rng=rng)
    assert torch.equal(A.to(torch.float64).mask, A.mask)
    moved = A.to("cpu")
    assert torch.equal(moved.mask, A.mask)
    assert (moved.shape, moved.keep) == (A.shape, A.keep)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"keep": 0.0}, RangeError, r"keep in \(0, 1\], got 0"),
        ({"keep": 10}, RangeError, "10 % of the pixels is 0.1"),
        ({"keep": "half"}, DTypeError, "keep as a number"),
        ({"guide": np.zeros((3, 8, 8))}, DTypeError, "guide as a floating-point torch.Tensor, got ndarray"),
        ({"guide": torch.zeros(3, 8, 8, dtype=torch.uint8)}, DTypeError, "got torch.uint8"),
        ({"guide": torch.zeros(3, 8, 9)}, ShapeError, r"guide of shape \(C, 8, 8\)"),
        ({"guide": torch.full((3, 8, 8), float("nan"))}, RangeError, "guide with finite values"),
        ({"rng": 3}, DTypeError, "rng as a torch.Generator, got int"),
    ],
)
def test_bad_sampling_arguments_are_refused(
    kwargs: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SparseSampling((3, 8, 8), **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(8, 8), (3, 0, 8), (3, 8.0, 8)])
def test_sampling_needs_an_image_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"shape \(C, H, W\)"):
        SparseSampling(shape)
