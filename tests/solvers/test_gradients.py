"""Gradients flow through ``solve`` to the measurement, the operator and the weight."""

import pytest
import torch

import invrestore as ir


@pytest.fixture
def y(rng):
    return torch.rand(1, 1, 6, 5, generator=rng, dtype=torch.float64)


KERNEL = ir.kernels.gaussian(0.8).double()


def test_gradient_in_the_measurement_through_cg(y):
    y.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: ir.solve(v, ir.operators.Blur(KERNEL), ir.priors.Tikhonov(0.1), sigma=0.1).x, y
    )


def test_gradient_in_the_kernel_through_cg(y):
    def restored(kernel):
        return ir.solve(y, ir.operators.Blur(kernel), ir.priors.Tikhonov(0.1), sigma=0.1).x

    assert torch.autograd.gradcheck(restored, KERNEL.clone().requires_grad_())


def test_gradient_in_the_weight_through_cg(y):
    lam = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w: ir.solve(y, ir.operators.Blur(KERNEL), ir.priors.Tikhonov(w), sigma=0.1).x, lam
    )


@pytest.mark.parametrize("method", ["pdhg", "admm", "fista"])
def test_gradient_in_the_measurement_through_unrolled_tv(y, method):
    y.requires_grad_()

    def restored(v):
        prior = ir.priors.TV(lam=0.02, tol=1e-6)
        solution = ir.solve(
            v, ir.operators.Blur(KERNEL), prior, sigma=0.1, method=method, max_steps=30, tol=0
        )
        return solution.x.square().sum()

    (grad,) = torch.autograd.grad(restored(y), y)
    direction = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
    h = 1e-5
    with torch.no_grad():
        numeric = (restored(y + h * direction) - restored(y - h * direction)) / (2 * h)
    assert float((grad * direction).sum()) == pytest.approx(float(numeric), rel=5e-2)


def test_gradient_in_the_mask_and_kernel_is_not_zero(y):
    mask = torch.ones(1, 1, 6, 5, dtype=torch.float64, requires_grad=True)
    solution = ir.solve(y, ir.operators.Mask(mask), ir.priors.TV(0.02), sigma=0.1, max_steps=20)
    (grad,) = torch.autograd.grad(solution.x.sum(), mask)
    assert float(grad.abs().max()) > 0


def test_no_graph_is_built_when_nothing_asks_for_it(y):
    assert not ir.solve(y, ir.operators.Blur(KERNEL), ir.priors.TV(), sigma=0.1).x.requires_grad
