"""Tikhonov against dense linear algebra."""

from __future__ import annotations

import pytest
import torch

from invrestore import priors
from invrestore.operators import Gradient, LinearOperator


@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 1, 9), (1, 9, 1), (3, 1, 1), (1, 2, 2)], ids=str)
@pytest.mark.parametrize(
    "operator", [None, "gradient", 3.0 * Gradient()], ids=["identity", "gradient", "operator"]
)
def test_prox_equals_a_dense_solve(
    operator: LinearOperator | str | None, shape: tuple[int, ...], rng: torch.Generator
) -> None:
    v = torch.randn(2, *shape, generator=rng, dtype=torch.float64)
    lam = torch.tensor([0.3, 20.0], dtype=v.dtype)
    prior = priors.Tikhonov(lam, operator=operator)  # type: ignore[arg-type]
    n = v[0].numel()
    eye = torch.eye(n, dtype=v.dtype)
    gram = priors.Tikhonov(1.0, operator=operator).grad(eye.view(n, *shape)).flatten(1)  # type: ignore[arg-type]
    for k in range(2):
        expected = torch.linalg.solve(eye + 0.7 * lam[k] * gram, v[k].flatten()).view(shape)
        torch.testing.assert_close(prior.prox(v, 0.7)[k], expected, rtol=0, atol=1e-10)


def test_values_are_half_squared_norms() -> None:
    x = torch.tensor([[[[0.0, 3.0]]]])
    assert priors.Tikhonov(2.0).value(x).tolist() == [9.0]
    assert priors.Tikhonov(2.0, operator="gradient").value(x + 5).tolist() == [9.0]


@pytest.mark.parametrize(
    "operator", [None, "gradient", 3.0 * Gradient()], ids=["identity", "gradient", "operator"]
)
def test_prox_differentiates_in_image_and_weight(
    operator: LinearOperator | str | None, rng: torch.Generator
) -> None:
    v = torch.randn(2, 1, 3, 4, generator=rng, dtype=torch.float64).requires_grad_()
    lam = torch.tensor([0.3, 2.0], dtype=v.dtype, requires_grad=True)

    def prox(v: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
        return priors.Tikhonov(lam, operator=operator).prox(v, 0.5)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(prox, (v, lam))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: priors.Tikhonov(-1.0), ValueError, r"Tikhonov: expected lam >= 0 and finite, got -1.0"),
        (
            lambda: priors.Tikhonov(operator="gradiant"),
            LookupError,
            r"got 'gradiant'. Did you mean 'gradient'\?",
        ),
        (
            lambda: priors.Tikhonov(operator=torch.eye(3)),
            TypeError,
            r"operator as a LinearOperator.*got Tensor",
        ),
        (
            lambda: priors.Tikhonov().value(torch.zeros(1, 1, 4, 4)),
            TypeError,
            r"expected a weight lam, got lam=None",
        ),
        (
            lambda: priors.Tikhonov(torch.ones(3)).grad(torch.zeros(2, 1, 4, 4)),
            ValueError,
            r"Tikhonov.grad: expected lam of shape \(\) or \(2,\)",
        ),
        (
            lambda: priors.Tikhonov(1.0).prox(torch.zeros(2, 1, 4, 4), torch.ones(3)),
            ValueError,
            r"Tikhonov.prox: expected step of shape \(\) or \(2,\)",
        ),
    ],
)
def test_bad_input_is_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
