"""What keeps a critic 1-Lipschitz: the penalty against a critic of known gradient, and the clipping."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from invrestore.training import losses


class Linear(nn.Module):
    """D(x) = w sum of x^2 / 2, whose gradient w x is known."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.w * x.square().flatten(1).sum(1)


def test_lipschitz_penalty_equals_the_hand_computed_value() -> None:
    critic = Linear()
    real = torch.full((1, 1, 1, 4), 3.0, dtype=torch.float64)
    fake = torch.full((1, 1, 1, 4), 1.0, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    u = torch.rand((1, 1, 1, 1), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).item()
    # The gradient is 2 x, with x = 1 + 2 u at all 4 samples: norm 2 * 2 * (1 + 2 u).
    expected = (4 * (1 + 2 * u) - 1) ** 2
    penalty = losses.lipschitz_penalty(critic, real, fake, rng)
    assert penalty.item() == pytest.approx(expected)
    (grad,) = torch.autograd.grad(penalty, critic.w)
    # d/dw (w a - 1)^2 = 2 a (w a - 1) with a = 2 (1 + 2 u).
    a = 2 * (1 + 2 * u)
    assert grad.item() == pytest.approx(2 * a * (2 * a - 1))


def test_lipschitz_penalty_reaches_the_weights_of_a_network_but_not_the_images() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 1, 3, padding=1).double()
    real = torch.rand(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    fake = torch.rand(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def penalty(weight: Tensor) -> Tensor:
        def critic(x: Tensor) -> Tensor:
            return torch.tanh(nn.functional.conv2d(x, weight, padding=1)).flatten(1).sum(1)

        return losses.lipschitz_penalty(critic, real, fake, torch.Generator().manual_seed(1))

    assert gradcheck(penalty, (conv.weight,))
    assert torch.autograd.grad(penalty(conv.weight), (real, fake), allow_unused=True) == (None, None)


def test_clipping_keeps_every_weight_within_the_limit() -> None:
    critic = nn.Linear(8, 8)
    kept = critic.weight.detach().clone()
    losses.clip_weights(critic, 0.1)
    assert max(float(p.detach().abs().max()) for p in critic.parameters()) <= 0.1 + 1e-6
    torch.testing.assert_close(critic.weight.detach(), kept.clamp(-0.1, 0.1))
    assert critic.weight.requires_grad
