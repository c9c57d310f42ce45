"""Sums: what they can do, how weights combine, and their joint prox."""

from __future__ import annotations

import pytest
import torch

from invrestore.operators import Gradient
from invrestore.priors import TGV, TV, Box, Capability, Prior, PriorSum, Tikhonov, _sum


def test_plus_makes_a_flat_sum() -> None:
    total = TV(0.1) + Box() + Tikhonov(0.2)
    assert isinstance(total, PriorSum)
    assert [p.name for p in total.priors] == ["TV", "Box", "Tikhonov"]
    with pytest.raises(TypeError):
        TV(0.1) + 1.0  # type: ignore[operator]


def test_a_sum_can_do_what_all_terms_can() -> None:
    assert (TV(0.1) + Box()).capabilities == {Capability.VALUE, Capability.PROX}
    assert (Tikhonov(0.1) + Tikhonov(0.1)).can(Capability.GRAD)
    assert not (TV(0.1) + Tikhonov(0.1)).can(Capability.GRAD)
    with pytest.raises(
        TypeError, match=r"PriorSum.grad: expected a prior with grad, got one with prox, value"
    ):
        (TV(0.1) + Tikhonov(0.1)).grad(torch.zeros(1, 1, 4, 4))


def test_a_term_that_is_not_convex_takes_the_prox_away() -> None:
    class Nonconvex(Box):
        is_convex = False

    total = TV(0.1) + Nonconvex()
    assert not total.is_convex
    assert not total.can(Capability.PROX)
    with pytest.raises(TypeError, match=r"PriorSum.prox: expected a prior with prox"):
        total.prox(torch.zeros(1, 1, 4, 4))


def test_terms_without_weight_share_the_one_that_is_set(rng: torch.Generator) -> None:
    x = torch.rand(2, 1, 5, 4, generator=rng, dtype=torch.float64)
    total = TV() + Tikhonov(0.3) + Box()
    assert total.lam is None
    with pytest.raises(TypeError, match=r"PriorSum: expected a weight lam, got lam=None"):
        total.value(x)
    lam = torch.tensor([0.2, 0.5], dtype=x.dtype)
    torch.testing.assert_close(total.with_lam(lam).value(x), TV(lam).value(x) + Tikhonov(0.3).value(x))
    assert total.with_lam(0.4).lam == 0.4


def test_a_weighted_sum_takes_a_common_factor(rng: torch.Generator) -> None:
    x = torch.rand(2, 1, 5, 4, generator=rng, dtype=torch.float64)
    total = Tikhonov(0.3) + Tikhonov(0.2, operator="gradient")
    assert total.lam == 1.0
    torch.testing.assert_close(total.with_lam(3.0).value(x), 3 * total.value(x))
    torch.testing.assert_close(total.with_lam(3.0).grad(x), 3 * total.grad(x))
    torch.testing.assert_close(total.with_lam(3.0).prox(x, 0.1), total.prox(x, 0.3), rtol=0, atol=1e-5)


def test_prox_of_two_quadratics_is_one_linear_solve(rng: torch.Generator) -> None:
    v = torch.randn(1, 1, 4, 5, generator=rng, dtype=torch.float64)
    total = PriorSum((Tikhonov(0.3), Tikhonov(0.8, operator="gradient")), tol=1e-13)
    eye = torch.eye(20, dtype=v.dtype)
    gram = 0.3 * eye + 0.8 * Gradient().gram(eye.view(20, 1, 4, 5)).flatten(1)
    expected = torch.linalg.solve(eye + 0.7 * gram, v.flatten()).view_as(v)
    torch.testing.assert_close(total.prox(v, 0.7), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [0, 1])
def test_tv_in_a_box_matches_dykstra(order: int, rng: torch.Generator) -> None:
    v = 0.5 + torch.randn(2, 2, 5, 4, generator=rng, dtype=torch.float64)
    terms: list[Prior] = [TV(0.2, tol=1e-9), Box(0.1, 0.9)]
    together = PriorSum(tuple(terms[::-1] if order else terms)).prox(v, 0.7)
    # A second, empty box sends the same problem down the general path.
    general = PriorSum((TV(0.2, tol=1e-9), Box(0.1, 0.9), Box(-9.0, 9.0)), tol=1e-4).prox(v, 0.7)
    torch.testing.assert_close(together, general, rtol=0, atol=2e-3)
    assert together.min() >= 0.1
    assert together.max() <= 0.9


def test_tv_in_a_box_differentiates(rng: torch.Generator) -> None:
    v = (0.5 + torch.randn(1, 1, 4, 5, generator=rng, dtype=torch.float64)).requires_grad_()
    lam = torch.tensor(0.15, dtype=v.dtype, requires_grad=True)

    def prox(v: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
        return (TV(lam, tol=1e-15) + Box(0.1, 0.9)).prox(v)

    assert torch.autograd.gradcheck(prox, (v, lam), eps=1e-5, atol=2e-3, fast_mode=True)


def test_one_term_is_that_term(rng: torch.Generator) -> None:
    v = torch.rand(1, 1, 5, 4, generator=rng)
    assert torch.equal(PriorSum((TV(0.2),), lam=2.0).prox(v, 0.5), TV(0.2).prox(v, 1.0))


def test_tensors_of_the_terms_are_found() -> None:
    lam = torch.tensor(0.1, requires_grad=True)
    assert any(t is lam for t in (TV(lam) + Box()).tensors())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PriorSum(()), ValueError, "PriorSum: expected at least one prior, got none"),
        (lambda: PriorSum((TV(0.1), 3)), TypeError, "expected priors as Prior objects, got int"),
        (lambda: PriorSum((TV(0.1),), tol=0.0), ValueError, "expected tol > 0"),
        (lambda: PriorSum((TV(0.1),), lam=-1.0), ValueError, "expected lam >= 0 and finite, got -1.0"),
        (
            lambda: PriorSum((TGV(0.1), Box()), lam=torch.ones(3)).value(torch.zeros(2, 1, 4, 4)),
            ValueError,
            r"PriorSum.value: expected lam of shape \(\) or \(2,\)",
        ),
        (
            lambda: (Tikhonov(0.1) + Box()).prox(torch.zeros(2, 1, 4, 4), torch.ones(3)),
            ValueError,
            r"PriorSum.prox: expected step of shape \(\) or \(2,\)",
        ),
    ],
)
def test_bad_input_is_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_giving_up_is_announced(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sum, "_LIMIT", 2)
    total = PriorSum((Tikhonov(9.0, operator="gradient"), Box(0.4, 0.5)))
    with pytest.warns(RuntimeWarning, match=r"PriorSum.prox: relative change 1e-06 not reached in 2 rounds"):
        total.prox(torch.rand(1, 1, 9, 9, generator=rng, dtype=torch.float64))
