"""Box: a projection that leaves admissible images alone."""

from __future__ import annotations

import math

import pytest
import torch

from invrestore.priors import Box


def test_prox_clamps_and_is_a_projection(rng: torch.Generator) -> None:
    v = torch.randn(2, 1, 4, 5, generator=rng)
    x = Box(-0.5, 0.5).prox(v, 3.0)
    assert torch.equal(x, v.clamp(-0.5, 0.5))
    assert torch.equal(Box(-0.5, 0.5).prox(x), x)


def test_value_is_zero_inside_and_infinite_outside_for_each_image() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    x[1, 0, 0, 0] = 1.01
    assert Box().value(x).tolist() == [0.0, math.inf]
    assert Box(upper=math.inf).value(x).tolist() == [0.0, 0.0]


def test_bounds_may_differ_between_pixels() -> None:
    lower = torch.tensor([[[0.0, 0.6]]])
    assert Box(lower, 1.0).prox(torch.full((1, 1, 1, 2), 0.5)).flatten().tolist() == pytest.approx([0.5, 0.6])


def test_it_has_no_weight_to_change() -> None:
    box = Box()
    assert box.lam == 1.0
    assert box.with_lam(7.0) is box
    with pytest.raises(TypeError, match="lam"):
        Box(lam=2.0)  # type: ignore[call-arg]


def test_gradient_passes_inside_and_stops_at_the_bounds() -> None:
    v = torch.tensor([[[[-1.0, 0.5, 2.0]]]], requires_grad=True)
    Box().prox(v).sum().backward()
    assert v.grad is not None
    assert v.grad.flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Box(1.0, 0.0), ValueError, "Box: expected lower <= upper, got bounds that cross, or NaN"),
        (lambda: Box(math.nan, 1.0), ValueError, "expected lower <= upper"),
        (lambda: Box("0", 1.0), TypeError, "expected lower as a number or tensor, got str"),
        (lambda: Box(0.0, True), TypeError, "expected upper as a number or tensor, got bool"),
    ],
)
def test_bad_bounds_are_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
