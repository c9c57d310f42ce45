"""Adversarial losses against values computed by hand, and their gradients against finite differences."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from invrestore.training import losses

REAL = torch.tensor([1.0, -2.0], dtype=torch.float64)
FAKE = torch.tensor([0.5, 3.0], dtype=torch.float64)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


VALUES = {
    "non-saturating": (
        (softplus(-1) + softplus(2)) / 2 + (softplus(0.5) + softplus(3)) / 2,
        (softplus(-0.5) + softplus(-3)) / 2,
    ),
    "minimax": (
        (softplus(-1) + softplus(2)) / 2 + (softplus(0.5) + softplus(3)) / 2,
        -(softplus(0.5) + softplus(3)) / 2,
    ),
    # 1/2 mean (0, 9) + 1/2 mean (.25, 9); mean (.25, 4)
    "least-squares": (0.5 * 4.5 + 0.5 * 4.625, 2.125),
    # mean (.5, 3) - mean (1, -2); -mean (.5, 3)
    "wasserstein": (1.75 + 0.5, -1.75),
    "relativistic": (
        (softplus(-0.5) + softplus(5)) / 2,
        (softplus(0.5) + softplus(-5)) / 2,
    ),
}


def test_every_pair_has_a_value_here() -> None:
    assert VALUES.keys() == losses.ADVERSARIAL.keys()


@pytest.mark.parametrize("name", VALUES)
def test_adversarial_losses_equal_the_hand_computed_values(name: str) -> None:
    pair, (discriminator, generator) = losses.ADVERSARIAL[name], VALUES[name]
    assert float(pair.discriminator(REAL, FAKE)) == pytest.approx(discriminator)
    assert float(pair.generator(REAL, FAKE)) == pytest.approx(generator)


@pytest.mark.parametrize("name", VALUES)
def test_adversarial_gradients_match_finite_differences(name: str) -> None:
    pair = losses.ADVERSARIAL[name]
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    assert gradcheck(pair.discriminator, (real, fake))
    assert gradcheck(lambda f: pair.generator(REAL, f), (fake,))


def test_second_derivatives_of_the_smooth_losses_exist() -> None:
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    assert gradgradcheck(losses.least_squares_discriminator, (real, fake))


@pytest.mark.parametrize("name", VALUES)
def test_updates_that_lower_the_losses_pull_logits_the_right_way(name: str) -> None:
    pair = losses.ADVERSARIAL[name]
    real, fake = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    up, down = torch.autograd.grad(pair.discriminator(real, fake), (real, fake))
    assert bool((up < 0).all())
    assert bool((down >= 0).all())
    (wish,) = torch.autograd.grad(pair.generator(torch.zeros(2), fake), fake)
    assert bool((wish < 0).all())


@pytest.mark.parametrize("name", ["non-saturating", "relativistic"])
def test_both_players_are_content_where_the_other_is_not(name: str) -> None:
    pair = losses.ADVERSARIAL[name]
    far = torch.tensor([8.0])
    assert pair.discriminator(far, -far) < 0.01 < 1 < pair.discriminator(-far, far)
    assert pair.generator(-far, far) < 0.01 < 1 < pair.generator(far, -far)
    differs = pair.generator(far, far) != pair.generator(-far, far)
    assert bool(differs) == pair.generator_sees_real


def test_the_strongest_discriminator_counts_alone() -> None:
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.5, 2.0, 1.0)]
    loss = losses.strongest(values)
    assert loss.item() == 2.0
    grads = torch.autograd.grad(loss, values)
    assert [float(g) for g in grads] == [0.0, 1.0, 0.0]
    assert gradcheck(lambda *v: losses.strongest(v), tuple(values))
