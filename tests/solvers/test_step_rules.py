"""The step rules of the latent search against PyTorch's optimisers and by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invrestore.solvers._descent import Adam, Nesterov, StepRule

Optimizer = torch.optim.Optimizer
SCALES = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (Adam(0.1), lambda z: torch.optim.Adam([z], lr=0.1)),
        (Adam(0.1, decays=(0.5, 0.9)), lambda z: torch.optim.Adam([z], lr=0.1, betas=(0.5, 0.9))),
        (Nesterov(0.1), lambda z: torch.optim.SGD([z], lr=0.1, momentum=0.9, nesterov=True)),
    ],
    ids=["adam", "adam-decays", "nesterov"],
)
def test_rules_are_the_published_ones(
    rule: StepRule, reference: Callable[[Tensor], Optimizer], rng: torch.Generator
) -> None:
    code = torch.randn(2, 3, dtype=torch.float64, generator=rng)
    twin = code.clone().requires_grad_()
    optimizer, memory = reference(twin), rule.init(code)
    for count in range(1, 8):
        code, memory = rule.step(code, (SCALES * code**2).sum(1) / 2, SCALES * code, memory, count, 0.0)
        twin.grad = SCALES * twin.detach()
        optimizer.step()
        torch.testing.assert_close(code, twin.detach())


def test_first_step_of_adam_has_the_length_of_the_rate_in_every_number() -> None:
    code, grad = torch.zeros(1, 3), torch.tensor([[4.0, -0.01, 100.0]])
    moved, _ = Adam(0.1).step(code, torch.zeros(1), grad, Adam(0.1).init(code), 1, 0.0)
    torch.testing.assert_close(moved, torch.tensor([[-0.1, 0.1, -0.1]]))


def test_second_step_of_nesterov_by_hand() -> None:
    rule, code = Nesterov(0.1, momentum=0.5), torch.zeros(1, 1)
    grad = torch.ones(1, 1)
    first, memory = rule.step(code, torch.zeros(1), grad, rule.init(code), 1, 0.0)
    assert first.item() == pytest.approx(-0.1 * (1 + 0.5 * 1))
    second, _ = rule.step(first, torch.zeros(1), grad, memory, 2, 0.0)
    assert (second - first).item() == pytest.approx(-0.1 * (1 + 0.5 * (0.5 + 1)))


def test_nesterov_shortens_long_gradients_row_by_row() -> None:
    rule, code = Nesterov(0.1), torch.zeros(2, 2)
    grad = torch.tensor([[300.0, 400.0], [30.0, 40.0]])
    moved, _ = rule.step(code, torch.zeros(2), grad, rule.init(code), 1, 0.0)
    # Length 500 becomes 100, length 50 stays; the first step is 1.9 times the gradient.
    torch.testing.assert_close(moved, -0.19 * torch.tensor([[60.0, 80.0], [30.0, 40.0]]))


@pytest.mark.parametrize(("progress", "share"), [(0, 1), (1 / 3, 0.7625), (0.5, 0.525), (1, 0.05), (2, 0.05)])
def test_rates_fall_to_a_twentieth_along_a_cosine(progress: float, share: float) -> None:
    assert Adam(0.4).rate_at(progress) == pytest.approx(0.4 * share)
    assert math.isclose(Nesterov(0.4).rate_at(progress), 0.4 * share, rel_tol=1e-9)
