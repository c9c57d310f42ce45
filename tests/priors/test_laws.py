"""The laws every explicit prior obeys, over ``tests/catalogue_priors.py``."""

from __future__ import annotations

import pytest
import torch

from invrestore._types import Shape
from invrestore.priors import Capability, Prior
from tests.catalogue_priors import ACCURACY, PRIORS, SHAPES


def build(name: str, shape: Shape, rng: torch.Generator) -> Prior:
    return PRIORS[name](shape, rng)


def images(shape: Shape, rng: torch.Generator, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, *shape, generator=rng, dtype=torch.float64)


def objective(prior: Prior, x: torch.Tensor, v: torch.Tensor, step: float) -> torch.Tensor:
    return step * prior.value(x) + 0.5 * (x - v).square().flatten(1).sum(1)


every = pytest.mark.parametrize("name", PRIORS)
shaped = pytest.mark.parametrize("shape", SHAPES, ids=str)


@every
@shaped
def test_prox_beats_every_nearby_point(name: str, shape: Shape, rng: torch.Generator) -> None:
    prior, v = build(name, shape, rng), images(shape, rng)
    x = prior.prox(v, 0.7)
    best = objective(prior, x, v, 0.7)
    assert best.isfinite().all()
    # Steps towards v and towards a flat image are the directions a wrong weight would favour.
    moves = [v - x, x - v, x.mean((2, 3), keepdim=True) - x]
    moves += [torch.randn(x.shape, generator=rng, dtype=x.dtype) for _ in range(4)]
    nearby = torch.cat([x + scale * move for scale in (1e-2, 0.3) for move in moves])
    count = len(nearby) // len(v)
    assert (
        best.repeat(count) <= objective(prior, nearby, v.repeat(count, 1, 1, 1), 0.7) + ACCURACY[name]
    ).all()


@every
@shaped
def test_prox_satisfies_the_variational_inequality(name: str, shape: Shape, rng: torch.Generator) -> None:
    # x = prox(v) iff (v - x)/step is a subgradient at x: g(z) >= g(x) + <v - x, z - x>/step for all z.
    prior, v = build(name, shape, rng), images(shape, rng)
    x = prior.prox(v, 0.7)
    for z in (prior.prox(images(shape, rng), 0.3), prior.prox(0.5 * v, 0.7)):
        slack = prior.value(z) - prior.value(x) - ((v - x) * (z - x)).flatten(1).sum(1) / 0.7
        assert (slack >= -2e-4 - 5 * ACCURACY[name]).all(), slack


@every
@shaped
def test_prox_is_firmly_nonexpansive(name: str, shape: Shape, rng: torch.Generator) -> None:
    prior = build(name, shape, rng)
    u, v = images(shape, rng), images(shape, rng)
    d = prior.prox(u, 0.7) - prior.prox(v, 0.7)
    assert (
        d.square().flatten(1).sum(1) <= (d * (u - v)).flatten(1).sum(1) + 1e-4 + 10 * ACCURACY[name]
    ).all()


@every
@shaped
def test_moreau_envelope_has_gradient_v_minus_prox(name: str, shape: Shape, rng: torch.Generator) -> None:
    # Moreau's identity in the form that needs no conjugate: d/dv min_x [...] = v - prox(v).
    prior, v = build(name, shape, rng), images(shape, rng)
    direction = torch.randn(v.shape, generator=rng, dtype=v.dtype)
    h = max(1e-3, 30 * ACCURACY[name])

    def envelope(u: torch.Tensor) -> torch.Tensor:
        return objective(prior, prior.prox(u, 0.7), u, 0.7)

    slope = (envelope(v + h * direction) - envelope(v - h * direction)) / (2 * h)
    expected = ((v - prior.prox(v, 0.7)) * direction).flatten(1).sum(1)
    torch.testing.assert_close(slope, expected, rtol=2e-3, atol=2e-3 + 30 * ACCURACY[name])


@every
def test_an_image_alone_gives_the_same_answer_as_in_a_batch(name: str, rng: torch.Generator) -> None:
    shape = (2, 9, 6)
    prior, v = build(name, shape, rng), images(shape, rng, batch=7)
    # Different contrasts, so that the images stop at different steps.
    v = v * torch.tensor([0.0, 0.01, 0.1, 0.5, 1.0, 3.0, 30.0], dtype=v.dtype).view(-1, 1, 1, 1)
    together, values = prior.prox(v, 0.7), prior.value(v)
    for k in range(7):
        torch.testing.assert_close(prior.prox(v[k : k + 1], 0.7)[0], together[k], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(prior.value(v[k : k + 1])[0], values[k], rtol=1e-9, atol=1e-10)


@every
def test_steps_may_differ_between_images(name: str, rng: torch.Generator) -> None:
    shape = (2, 6, 5)
    prior, v = build(name, shape, rng), images(shape, rng, batch=3)
    steps = torch.tensor([0.0, 0.2, 1.5], dtype=v.dtype)
    together = prior.prox(v, steps)
    for k in range(3):
        torch.testing.assert_close(
            prior.prox(v[k : k + 1], float(steps[k]))[0], together[k], rtol=1e-8, atol=1e-9
        )


@every
@shaped
def test_prox_tends_to_the_nearest_admissible_image_as_the_step_goes_to_zero(
    name: str, shape: Shape, rng: torch.Generator
) -> None:
    prior, v = build(name, shape, rng), images(shape, rng)
    admissible = v if prior.value(v).isfinite().all() else prior.prox(v, 0.0)
    torch.testing.assert_close(prior.prox(v, 0.0), admissible, rtol=0, atol=1e-9)
    torch.testing.assert_close(prior.prox(v, 1e-7), admissible, rtol=0, atol=1e-5)


@every
def test_value_is_one_number_for_each_image(name: str, rng: torch.Generator) -> None:
    shape = (2, 6, 5)
    prior, v = build(name, shape, rng), images(shape, rng, batch=3)
    assert prior.value(v).shape == (3,)
    assert (prior.value(v) >= 0).all()


@every
def test_gradient_matches_finite_differences(name: str, rng: torch.Generator) -> None:
    shape = (2, 4, 3)
    prior, x = build(name, shape, rng), images(shape, rng)
    if not prior.can(Capability.GRAD):
        with pytest.raises(TypeError, match="expected a prior with grad"):
            prior.grad(x)
        return
    direction, h = torch.randn(x.shape, generator=rng, dtype=x.dtype), 1e-5
    slope = (prior.value(x + h * direction) - prior.value(x - h * direction)) / (2 * h)
    torch.testing.assert_close(slope, (prior.grad(x) * direction).flatten(1).sum(1), rtol=1e-7, atol=1e-9)


@every
def test_value_differentiates(name: str, rng: torch.Generator) -> None:
    shape = (2, 5, 4)
    prior, x = build(name, shape, rng), images(shape, rng).requires_grad_()
    value = prior.value(x).sum()
    if not value.requires_grad:  # an indicator is constant where it is finite
        return
    (grad,) = torch.autograd.grad(value, x)
    direction, h = torch.randn(x.shape, generator=rng, dtype=x.dtype), 1e-4
    with torch.no_grad():
        slope = (prior.value(x + h * direction) - prior.value(x - h * direction)).sum() / (2 * h)
    if slope.isfinite():
        torch.testing.assert_close((grad * direction).sum(), slope, rtol=2e-3, atol=1e-4 + 5 * ACCURACY[name])


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_prox_keeps_type_shape_and_input(name: str, dtype: torch.dtype, rng: torch.Generator) -> None:
    shape = (3, 8, 7)
    prior, v = build(name, shape, rng), images(shape, rng)
    before = v.to(dtype)
    given = before.clone()
    x = prior.prox(given, 0.7)
    assert x.dtype == dtype
    assert x.shape == v.shape
    assert torch.equal(given, before)
    exact = prior.prox(before.double(), 0.7)
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=5e-3 if dtype == torch.float32 else 2e-2)


@every
def test_images_without_batch_axis_are_refused(name: str, rng: torch.Generator) -> None:
    prior = build(name, (3, 8, 8), rng)
    v = torch.zeros(3, 8, 8)
    for call in (prior.prox, prior.value):
        with pytest.raises(ValueError, match=r"of shape \(B, any, any, any\), got \(3, 8, 8\)"):
            call(v)


@every
def test_negative_steps_are_refused(name: str, rng: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"prox: expected step >= 0 and finite, got -1.0"):
        build(name, (3, 8, 8), rng).prox(torch.zeros(1, 3, 8, 8), -1.0)
