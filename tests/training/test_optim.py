import math

import pytest
import torch

from invrestore.training import Muon
from invrestore.training._optim import _orthogonal


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (32, 32)])
def test_orthogonalised_updates_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    stack = _orthogonal([torch.randn(shape), 1e-3 * torch.randn(shape)])
    values = torch.linalg.svdvals(stack)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_orthogonalised_update_keeps_the_singular_vectors() -> None:
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(16, 16))
    right, _ = torch.linalg.qr(torch.randn(24, 24))
    matrix = left @ torch.diag(torch.linspace(1, 2, 16)) @ right[:16]
    turned = left.T @ _orthogonal([matrix])[0] @ right[:16].T
    off_diagonal = turned - torch.diag(turned.diagonal())
    assert off_diagonal.abs().max() < 0.05


def test_zero_gradient_leaves_matrices_alone() -> None:
    weight = torch.nn.Parameter(torch.randn(16, 16, 3, 3))
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    Muon([weight]).step()
    assert torch.equal(weight, before)


def test_numbers_too_small_for_the_normal_range_are_dropped() -> None:
    """They slow a processor down: the momentum of weights without gradient, and products of small entries."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(16, 16))
    optimizer = Muon([weight], lr=1e-6)
    for step in range(1600):
        weight.grad = (
            torch.randn(16, 16) if step == 0 else torch.cat((torch.zeros(4, 16), torch.randn(12, 16)))
        )
        optimizer.step()
    momentum = optimizer.state[weight]["momentum"]
    assert (momentum[:4] == 0).all()
    assert (momentum[4:] != 0).all()
    uneven = torch.randn(16, 40) * torch.logspace(0, -40, 40)
    (found,) = _orthogonal([uneven])
    assert (found[:, -1] == 0).all()


def test_matrix_update_has_the_size_of_an_adam_update() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(32, 32, 3, 3))
    weight.grad = torch.randn_like(weight)
    Muon([weight], lr=1e-3).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.3)


def test_vectors_and_outer_layers_follow_adam() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in [(32,), (32, 3, 3, 3), (3, 32, 3, 3)]]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    muon = Muon(ours, lr=1e-2, betas=(0.9, 0.99))
    adam = torch.optim.Adam(theirs, lr=1e-2, betas=(0.9, 0.99))
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        muon.step()
        adam.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_weight_decay_shrinks_weights_by_the_learning_rate() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    weight.grad = torch.zeros(4)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4,), 0.95))


def test_parameters_without_gradient_are_passed_over_and_closures_are_called() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    assert Muon([weight]).step(lambda: 2.5) == 2.5
    assert torch.equal(weight, torch.ones(4))


def test_least_squares_is_solved() -> None:
    torch.manual_seed(0)
    target = torch.randn(16, 16)
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    optimizer = Muon([weight], lr=0.05)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * step / 200))
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert (weight - target).abs().max() < 0.05
