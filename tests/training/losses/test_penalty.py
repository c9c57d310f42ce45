"""The gradient penalty of a quadratic, whose gradient is known, and of a network by finite differences."""

import pytest
import torch
from torch import nn

from invrestore.training import losses


def test_gradient_penalty_of_a_quadratic_is_known() -> None:
    # D(x) = sum of a x^2 / 2 has the gradient a x: the penalty is mean_n 1/2 a^2 norm(x_n)^2.
    a = torch.tensor(3.0, requires_grad=True)
    x = torch.tensor([1.0, 2.0, 0.0, 2.0]).view(2, 1, 1, 2)
    penalty = losses.gradient_penalty(lambda image: (a * image.square() / 2).sum(dim=(1, 2, 3)), x)
    assert float(penalty.detach()) == pytest.approx(0.5 * 9 * (5 + 4) / 2)
    penalty.backward()
    assert a.grad is not None
    assert float(a.grad) == pytest.approx(3 * (5 + 4) / 2)


def test_gradient_penalty_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0)
    ).double()
    x = torch.rand(2, 1, 4, 4).double()
    total = 0.0
    for index in range(x[0].numel()):
        offset = torch.zeros(16).double()
        offset[index] = 1e-5
        slope = (network(x + offset.view(1, 1, 4, 4)) - network(x - offset.view(1, 1, 4, 4))) / 2e-5
        total += float(slope.square().mean().detach()) / 2
    assert float(losses.gradient_penalty(network, x).detach()) == pytest.approx(total, rel=1e-6)


def test_gradient_penalty_works_without_gradients_around_it() -> None:
    with torch.no_grad():
        penalty = losses.gradient_penalty(lambda image: image.sum(dim=(1, 2, 3)), torch.rand(2, 1, 2, 2))
    assert float(penalty) == pytest.approx(2.0)
