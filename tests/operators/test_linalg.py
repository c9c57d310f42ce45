from __future__ import annotations

import pytest
import torch

from invrestore import ShapeError, operators
from invrestore.operators import Blur, Downsample, Identity
from invrestore.operators._linalg import conjugate_gradient, lanczos_norm_bound, least_squares
from invrestore.operators._noise import estimate_sigma
from tests.catalogue import random_kernel


def positive_matrix(n: int, condition: float, rng: torch.Generator) -> torch.Tensor:
    q = torch.linalg.qr(torch.randn(n, n, generator=rng, dtype=torch.float64)).Q
    return q * torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), n, dtype=torch.float64) @ q.T


def test_conjugate_gradient_equals_a_dense_solve(rng: torch.Generator) -> None:
    M = positive_matrix(40, 1e3, rng)
    b = torch.randn(3, 40, generator=rng, dtype=torch.float64)
    x = conjugate_gradient(lambda v: v @ M, b)
    assert torch.allclose(x, torch.linalg.solve(M, b.T).T, rtol=1e-8, atol=1e-8)
    warm = conjugate_gradient(lambda v: v @ M, b, init=x + 1e-3)
    assert torch.allclose(warm, x, rtol=1e-8, atol=1e-8)


def test_conjugate_gradient_treats_every_image_as_if_alone(rng: torch.Generator) -> None:
    scale = torch.logspace(0, 3, 30, dtype=torch.float64)
    b = torch.randn(4, 30, generator=rng, dtype=torch.float64)
    b[1] = 0
    b[2, 3:] = 0
    together = conjugate_gradient(lambda v: v * scale, b)
    for i in range(4):
        alone = conjugate_gradient(lambda v: v * scale, b[i : i + 1])
        assert torch.equal(together[i], alone[0])
    assert bool((together[1] == 0).all())


def test_conjugate_gradient_is_differentiable_in_matrix_and_right_hand_side(rng: torch.Generator) -> None:
    d = (torch.rand(6, generator=rng, dtype=torch.float64) + 0.5).requires_grad_(True)
    b = torch.randn(2, 6, generator=rng, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda w, r: conjugate_gradient(lambda v: w * v + v.sum(1, True), r), (d, b)
    )


def test_conjugate_gradient_stops_at_a_share_of_the_first_residual(rng: torch.Generator) -> None:
    M = positive_matrix(40, 1e4, rng)
    b = torch.randn(3, 40, generator=rng, dtype=torch.float64)
    start = torch.linalg.solve(M, b.T).T + 0.1 * torch.randn(3, 40, generator=rng, dtype=torch.float64)
    first = (b - start @ M).norm(dim=1)
    left = (b - conjugate_gradient(lambda v: v @ M, b, start, reduction=0.03) @ M).norm(dim=1) / first
    assert bool((left <= 0.03).all())
    assert bool((left > 1e-6).all())


def test_derivatives_are_those_of_the_whole_solution_whatever_the_reduction(rng: torch.Generator) -> None:
    d = (torch.logspace(0, 3, 30, dtype=torch.float64)).requires_grad_(True)
    b = torch.randn(2, 30, generator=rng, dtype=torch.float64)
    x = conjugate_gradient(lambda v: v * d, b, reduction=0.3)
    (found,) = torch.autograd.grad(x.square().sum(), d)
    (expected,) = torch.autograd.grad((b / d).square().sum(), d)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_conjugate_gradient_says_when_it_gives_up(rng: torch.Generator) -> None:
    M = positive_matrix(60, 1e8, rng)
    b = torch.randn(2, 60, generator=rng, dtype=torch.float64)
    with pytest.warns(
        RuntimeWarning, match=r"2 image\(s\) short of a relative residual of 1e-12 after 5 steps"
    ):
        conjugate_gradient(lambda v: v @ M, b, max_steps=5)


def test_conjugate_gradient_lifts_bfloat16_to_float32(rng: torch.Generator) -> None:
    scale = torch.linspace(1, 9, 20)
    b = torch.randn(2, 20, generator=rng)
    x = conjugate_gradient(lambda v: v * scale, b.bfloat16())
    assert x.dtype == torch.bfloat16
    assert torch.allclose(x.float(), b / scale, atol=2e-2)


def test_least_squares_is_the_minimum_norm_solution_of_a_rank_deficient_problem(rng: torch.Generator) -> None:
    import scipy.sparse

    A = torch.randn(30, 12, generator=rng, dtype=torch.float64) @ torch.randn(
        12, 64, generator=rng, dtype=torch.float64
    )
    operator = operators.from_scipy(scipy.sparse.csr_array(A.numpy()), (1, 8, 8))
    y = torch.randn(3, 30, generator=rng, dtype=torch.float64)
    y = y.reshape(3, *operator(torch.zeros(1, 1, 8, 8, dtype=torch.float64)).shape[1:])
    expected = y.reshape(3, -1) @ torch.linalg.pinv(A, rtol=1e-12).T
    assert torch.allclose(least_squares(operator, y).reshape(3, -1), expected, atol=1e-9)
    assert bool((least_squares(operator, torch.zeros_like(y)) == 0).all())


def test_large_least_squares_reaches_the_stated_normal_residual(rng: torch.Generator) -> None:
    blur = Blur(
        torch.tensor([[0.1, 0.2, 0.1], [0.2, 1.4, 0.2], [0.1, 0.2, 0.1]], dtype=torch.float64), "reflect"
    )
    x = torch.rand(2, 3, 20, 24, generator=rng, dtype=torch.float64)
    y = blur(x)
    y[1] *= 0
    solved = least_squares(blur, y)
    assert float(blur.adjoint(blur(solved) - y).norm() / blur.adjoint(y).norm()) < 1e-12
    assert torch.allclose(solved[0], x[0], atol=1e-9)
    assert bool((solved[1] == 0).all())
    assert torch.allclose(solved[:1], least_squares(blur, y[:1]), atol=1e-12)


def test_pinv_gradient_of_a_rank_deficient_operator(rng: torch.Generator) -> None:
    down_taps = torch.tensor([[1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 1, 2, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k, v: Downsample(2, k, "zero").pinv(v), (down_taps, y))


def test_lanczos_bound_lies_above_the_norm_and_close(rng: torch.Generator) -> None:
    for seed in range(5):
        kernel = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        blur = Blur(kernel, "zero")
        A = blur(torch.eye(99, dtype=torch.float64).reshape(99, 1, 9, 11)).reshape(99, -1)
        true = float(torch.linalg.matrix_norm(A, 2))
        bound = lanczos_norm_bound(blur, (1, 9, 11))
        assert bound.shape == ()
        assert true <= float(bound) <= 1.03 * true
        assert torch.equal(bound, lanczos_norm_bound(blur, (1, 9, 11)))


def test_lanczos_bound_for_identity_zero_and_per_image_operators(rng: torch.Generator) -> None:
    assert 1 <= float(lanczos_norm_bound(Identity(), (1, 5, 5))) <= 1.02
    assert float(lanczos_norm_bound(0.0 * Identity(), (1, 5, 5))) == 0
    kernels = random_kernel((3, 1, 3, 3), rng) * torch.tensor([1.0, 2.0, 3.0]).double().view(3, 1, 1, 1)
    bound = lanczos_norm_bound(Blur(kernels), (1, 8, 8))
    assert bound.shape == (3,)
    assert torch.allclose(bound, torch.tensor([1.0, 2.0, 3.0]).double(), rtol=0.03)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 33, 47), (3, 16, 9), (1, 1, 400), (1, 400, 1)], ids=str)
def test_noise_level_is_unbiased_to_a_few_per_cent(shape: tuple[int, int, int], rng: torch.Generator) -> None:
    noise = torch.randn(64, *shape, generator=rng)
    for sigma in (0.01, 0.1):
        estimate = estimate_sigma(0.5 + sigma * noise)
        assert estimate.shape == (64,)
        assert float(estimate.mean()) == pytest.approx(sigma, rel=0.03)


def test_noise_level_ignores_a_smooth_picture_and_few_outliers(rng: torch.Generator) -> None:
    ramp = torch.linspace(0, 1, 64).view(1, 1, 1, 64) * torch.linspace(0, 1, 64).view(1, 1, 64, 1)
    y = ramp + 0.05 * torch.randn(1, 1, 64, 64, generator=rng)
    y[..., 10:12, :] = 1.0
    assert float(estimate_sigma(y)[0]) == pytest.approx(0.05, rel=0.1)
    assert float(estimate_sigma(ramp)[0]) < 1e-3


def test_noise_level_of_each_image_and_of_vectors(rng: torch.Generator) -> None:
    sigmas = torch.tensor([0.02, 0.2])
    y = sigmas.view(2, 1, 1, 1) * torch.randn(2, 3, 64, 64, generator=rng)
    assert torch.allclose(estimate_sigma(y), sigmas, rtol=0.05)
    assert torch.equal(estimate_sigma(y)[1:], estimate_sigma(y[1:]))
    assert torch.allclose(estimate_sigma(y.flatten(1)), sigmas, rtol=0.05)
    with pytest.raises(ShapeError, match=r"two neighbouring samples.*Give sigma="):
        estimate_sigma(torch.ones(2, 1, 1, 1))
