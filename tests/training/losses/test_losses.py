"""Losses against values computed by hand."""

import math

import pytest
import torch
from torch import nn

from invrestore.training import losses


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


REAL, FAKE = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])


def test_non_saturating_losses() -> None:
    expected = (softplus(-1) + softplus(2)) / 2 + (softplus(0.5) + softplus(3)) / 2
    assert float(losses.non_saturating_discriminator(REAL, FAKE)) == pytest.approx(expected)
    expected = (softplus(-0.5) + softplus(-3)) / 2
    assert float(losses.non_saturating_generator(REAL, FAKE)) == pytest.approx(expected)


def test_relativistic_losses_compare_pairs() -> None:
    expected = (softplus(0.5 - 1) + softplus(3 + 2)) / 2
    assert float(losses.relativistic_discriminator(REAL, FAKE)) == pytest.approx(expected)
    expected = (softplus(1 - 0.5) + softplus(-2 - 3)) / 2
    assert float(losses.relativistic_generator(REAL, FAKE)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["non-saturating", "relativistic"])
def test_both_players_are_content_where_the_other_is_not(name: str) -> None:
    pair = losses.ADVERSARIAL[name]
    far = torch.tensor([8.0])
    assert pair.discriminator(far, -far) < 0.01 < 1 < pair.discriminator(-far, far)
    assert pair.generator(-far, far) < 0.01 < 1 < pair.generator(far, -far)
    differs = pair.generator(far, far) != pair.generator(-far, far)
    assert bool(differs) == pair.generator_sees_real


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


def test_divergence_of_codes() -> None:
    mean, log_variance = (
        torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[0.0, math.log(4)], [0.0, 0.0]]),
    )
    expected = (0.5 * 1 + 0.5 * (4 - math.log(4) - 1)) / 2
    assert float(losses.kl_to_normal(mean, log_variance)) == pytest.approx(expected)


def test_distance_of_codes_ignores_their_length() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert float(losses.code_distance(3 * z, z)) == pytest.approx(0)
    assert float(losses.code_distance(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), z)) == pytest.approx(0.5)


def test_multiscale_distance_averages_over_scales() -> None:
    x = torch.zeros(1, 1, 4, 4)
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 0, :2] = torch.tensor([4.0, -4.0])
    # Full size: 8 / 16. Half size: the two cancel.
    assert float(losses.multiscale_l1(x, target, scales=1)) == pytest.approx(0.5)
    assert float(losses.multiscale_l1(x, target, scales=2)) == pytest.approx(0.25)
    assert float(losses.multiscale_l1(x, x + 0.5, scales=3)) == pytest.approx(0.5)


def test_feature_distance_is_relative_and_leaves_the_target_alone() -> None:
    features = [torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)]
    target = [torch.tensor([2.0, 2.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)]
    distance = losses.feature_distance(features, target)
    assert float(distance.detach()) == pytest.approx((1 / 2 + 4 / 2) / 2)
    distance.backward()
    assert features[0].grad is not None
    assert target[0].grad is None
