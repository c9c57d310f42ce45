"""Quantisation: levels, gradients that help, and the box of values behind a level."""

from __future__ import annotations

import math

import pytest
import torch

from invrestore.errors import DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.fidelity import Interval
from invrestore.operators import Quantize


def test_five_levels_are_the_quarters(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 9, 9, generator=rng)
    y = Quantize(5)(x)
    assert set(y.unique().tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert float((y - x).abs().max()) <= 0.125


def test_every_value_goes_to_its_nearest_level_and_halves_go_up() -> None:
    x = torch.tensor([-1.0, 0.0, 0.124, 0.125, 0.3, 0.875, 1.0, 7.0], dtype=torch.float64).view(1, 1, 1, -1)
    expected = [0.0, 0.0, 0.0, 0.25, 0.25, 1.0, 1.0, 1.0]
    assert Quantize(5)(x).flatten().tolist() == expected


@pytest.mark.parametrize("levels", [2, 3, 5, 17, 256])
def test_quantising_twice_changes_nothing(rng: torch.Generator, levels: int) -> None:
    y = Quantize(levels)(torch.rand(1, 3, 16, 16, generator=rng))
    assert torch.equal(Quantize(levels)(y), y)


def test_both_gradients_leave_the_value_alone(rng: torch.Generator) -> None:
    x = torch.rand(1, 1, 32, 32, generator=rng)
    hard = Quantize(7)(x)
    assert torch.equal(Quantize(7, gradient="soft")(x), hard)
    assert torch.equal(hard, (x * 6 + 0.5).floor() / 6)


def test_straight_through_passes_the_gradient_unchanged_even_outside_the_range(rng: torch.Generator) -> None:
    x, v = torch.randn(1, 1, 4, 4, generator=rng), torch.randn(1, 1, 4, 4, generator=rng)
    assert torch.equal(Quantize(5).vjp(x, v), v)


def test_descent_through_the_quantiser_reaches_the_measurement(rng: torch.Generator) -> None:
    A = Quantize(5)
    y = A(torch.rand(1, 1, 8, 8, generator=rng))
    x = torch.randn(1, 1, 8, 8, generator=rng)
    for _ in range(200):
        x = x - 0.1 * A.vjp(x, A(x) - y)
    assert torch.equal(A(x), y)


def test_soft_staircase_is_smooth_and_its_gradient_is_the_one_used(rng: torch.Generator) -> None:
    A = Quantize(4, gradient="soft", temperature=0.3)
    x = (0.05 + 0.9 * torch.rand(1, 1, 3, 5, generator=rng, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(A.soft, (x,))
    v = torch.ones(1, 1, 3, 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad(A.soft(x), x, v)
    torch.testing.assert_close(A.vjp(x, v), expected)


def test_soft_staircase_rises_one_step_per_level_and_sharpens_as_it_cools() -> None:
    x = torch.linspace(0, 1, 2001, dtype=torch.float64).view(1, 1, 1, -1)
    for temperature in (0.01, 0.2, 5.0):
        s = Quantize(5, temperature=temperature).soft(x).flatten()
        assert bool((s.diff() >= 0).all())
        assert float(s.diff().max()) < 0.25 / 4, "a jump"
        assert (s[0], s[-1]) == (pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-9))
    cold = (Quantize(5, temperature=0.01).soft(x) - Quantize(5)(x)).abs()
    warm = (Quantize(5, temperature=0.2).soft(x) - Quantize(5)(x)).abs()
    assert float(cold.mean()) < 0.1 * float(warm.mean())


def test_interval_holds_the_image_and_only_what_quantises_to_the_same(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 16, 16, generator=rng, dtype=torch.float64)
    for levels in (2, 5, 11):
        A = Quantize(levels)
        y = A(x)
        lower, upper = A.interval(y)
        assert bool(((lower <= x) & (x <= upper)).all())
        inside = lower + (upper - lower) * (0.01 + 0.98 * torch.rand(x.shape, generator=rng, dtype=x.dtype))
        assert torch.equal(A(inside), y)
        assert Interval(lower, upper).value(x, y).tolist() == [0.0, 0.0]


def test_outer_bins_end_at_the_limits() -> None:
    A = Quantize(5)
    y = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    lower, upper = A.interval(y)
    assert (lower.flatten().tolist(), upper.flatten().tolist()) == ([0.0, 0.375, 0.875], [0.125, 0.625, 1.0])
    lower, upper = A.interval(y, limits=None)
    assert (lower.flatten()[0].item(), upper.flatten()[2].item()) == (-math.inf, math.inf)
    with pytest.raises(RangeError, match=r"limits \(low <= 0.125, high >= 0.875\)"):
        A.interval(y, limits=(0.2, 1.0))


def test_two_levels_have_two_outer_bins_only() -> None:
    lower, upper = Quantize(2).interval(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    assert (lower.flatten().tolist(), upper.flatten().tolist()) == ([0.0, 0.5], [0.5, 1.0])


def test_the_interval_bounds_the_image_itself(rng: torch.Generator) -> None:
    x = torch.rand(1, 3, 4, 4, generator=rng)
    assert torch.equal(Quantize(5).transform((3, 4, 4))(x), x)


def test_noise_level_is_that_of_uniform_rounding(rng: torch.Generator) -> None:
    x = torch.rand(3, 1, 128, 128, generator=rng, dtype=torch.float64)
    A = Quantize(9)
    y = A(x)
    estimate = A.estimate_sigma(y)
    assert estimate.shape == (3,)
    torch.testing.assert_close(estimate, (y - x).flatten(1).std(1), rtol=0.03, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    x = torch.full((1, 1, 2, 2), 0.3, dtype=dtype)
    A = Quantize(5, gradient="soft")
    assert {t.dtype for t in (A(x), A.soft(x), *A.interval(x), A.estimate_sigma(x))} == {dtype}


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((1,), {}, RangeError, "levels >= 2, got 1"),
        ((2.5,), {}, DTypeError, "levels as an int"),
        ((5,), {"gradient": "sfot"}, UnknownNameError, "Did you mean 'soft'"),
        ((5,), {"temperature": 0.0}, RangeError, "temperature > 0"),
    ],
)
def test_bad_arguments_are_refused(
    args: tuple[object], kwargs: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Quantize(*args, **kwargs)  # type: ignore[arg-type]


def test_interval_needs_an_image_batch() -> None:
    with pytest.raises(ShapeError, match=r"Quantize.interval: expected y of shape"):
        Quantize(5).interval(torch.zeros(3, 4, 4))
