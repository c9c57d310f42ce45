"""All convex methods reach one minimum, and it is the right one."""

import numpy as np
import pytest
import torch

import invrestore as ir
from invrestore.solvers import ADMM, FISTA, PDHG

LAM = 0.02


@pytest.fixture
def deblurring(rng):
    """A small TV deblurring problem in float64: (y, operator)."""
    x = torch.zeros(1, 1, 12, 10, dtype=torch.float64)
    x[..., 3:8, 2:7] = 0.8
    x[..., 5:, 6:] += 0.2
    operator = ir.operators.Blur(ir.kernels.gaussian(1.0).double())
    y = operator(x) + 0.02 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    return y, operator


def objective(x, y, operator, lam):
    """1/2 ||A x - y||^2 + lam TV(x), written out once more."""
    v = x[..., 1:, :] - x[..., :-1, :]
    h = x[..., :, 1:] - x[..., :, :-1]
    v = torch.nn.functional.pad(v, (0, 0, 0, 1))
    h = torch.nn.functional.pad(h, (0, 1))
    return float(0.5 * ((operator(x) - y) ** 2).sum() + lam * (v**2 + h**2).sum(1).sqrt().sum())


def dense_reference(y, operator, lam, steps=6000):
    """Minimiser by ADMM on the gradient with dense numpy matrices; shares no code with the package."""
    h, w = y.shape[-2:]
    n = h * w
    A = operator(torch.eye(n, dtype=torch.float64).view(n, 1, h, w)).reshape(n, n).numpy().T
    D = np.zeros((2 * n, n))
    for i in range(h):
        for j in range(w):
            k = i * w + j
            if i + 1 < h:
                D[k, k], D[k, k + w] = -1, 1
            if j + 1 < w:
                D[n + k, k], D[n + k, k + 1] = -1, 1
    b = y.reshape(-1).numpy()
    rho = 5 * lam
    inverse = np.linalg.inv(A.T @ A + rho * D.T @ D)
    v = np.zeros(2 * n)
    u = np.zeros(2 * n)
    for _ in range(steps):
        x = inverse @ (A.T @ b + rho * D.T @ (v - u))
        d = D @ x + u
        size = np.sqrt(d[:n] ** 2 + d[n:] ** 2)
        shrink = np.maximum(1 - (lam / rho) / np.maximum(size, 1e-300), 0)
        v = d * np.concatenate([shrink, shrink])
        u = d - v
    return torch.from_numpy(x).view(1, 1, h, w)


@pytest.mark.parametrize(
    "method",
    [
        PDHG(),
        PDHG(balance=0.02, relaxation=1.0),
        ADMM(),
        ADMM(rho=1.0, adapt=False),
        FISTA(),
        FISTA(accelerate=False),
    ],
    ids=["pdhg", "pdhg-plain", "admm", "admm-fixed", "fista", "ista"],
)
def test_every_convex_method_reaches_the_minimum_of_an_independent_solver(deblurring, method):
    y, operator = deblurring
    best = objective(dense_reference(y, operator, LAM), y, operator, LAM)
    prior = ir.priors.TV(lam=LAM, tol=1e-8)
    solution = ir.solve(y, operator, prior, sigma=0.02, method=method, max_steps=800, tol=1e-9)
    reached = objective(solution.x, y, operator, LAM)
    assert reached == pytest.approx(best, rel=1e-6)
    assert float(solution.history["objective"][-1]) == pytest.approx(reached, rel=1e-9)


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_data_step_by_conjugate_gradients_reaches_the_same_minimum(deblurring, padding):
    y, _ = deblurring
    operator = ir.operators.Blur(ir.kernels.gaussian(1.0).double(), padding=padding)
    best = objective(dense_reference(y, operator, LAM), y, operator, LAM)
    solution = ir.solve(
        y,
        operator,
        ir.priors.TV(lam=LAM),
        sigma=0.02,
        method=PDHG(inner_reduction=0.0),
        max_steps=1500,
        tol=1e-10,
    )
    assert objective(solution.x, y, operator, LAM) == pytest.approx(best, rel=1e-6)


def test_conjugate_gradients_that_stop_early_cost_less_and_reach_the_same_minimum(deblurring, monkeypatch):
    y, _ = deblurring
    operator = ir.operators.Blur(ir.kernels.gaussian(1.0).double(), padding="reflect")
    best = objective(dense_reference(y, operator, LAM), y, operator, LAM)
    blurred, apply = [], ir.operators.Blur._apply
    monkeypatch.setattr(ir.operators.Blur, "_apply", lambda self, x: blurred.append(1) or apply(self, x))
    counts = []
    for method in (PDHG(inner_reduction=0.0), PDHG()):
        blurred.clear()
        solution = ir.solve(
            y, operator, ir.priors.TV(lam=LAM), sigma=0.02, method=method, max_steps=1500, tol=1e-9
        )
        assert objective(solution.x, y, operator, LAM) == pytest.approx(best, rel=1e-6)
        counts.append(len(blurred))
    assert counts[1] < 0.6 * counts[0]


def test_general_fidelity_goes_through_the_dual_and_reaches_the_l2_minimum(deblurring):
    y, operator = deblurring
    best = objective(dense_reference(y, operator, LAM), y, operator, LAM)
    ones = ir.fidelity.Weighted(torch.ones_like(y))
    solution = ir.solve(
        y,
        operator,
        ir.priors.TV(lam=LAM),
        sigma=0.02,
        fidelity=ones,
        method="pdhg",
        max_steps=6000,
        tol=1e-11,
    )
    assert objective(solution.x, y, operator, LAM) == pytest.approx(best, rel=1e-6)


def test_a_start_at_the_minimiser_stays_there(deblurring):
    y, operator = deblurring
    prior = ir.priors.TV(lam=LAM, tol=1e-8)
    first = ir.solve(y, operator, prior, sigma=0.02, method="fista", max_steps=1500, tol=1e-10)
    again = ir.solve(y, operator, prior, sigma=0.02, method="fista", max_steps=20, tol=0, init=first.x)
    assert float((again.x - first.x).abs().max()) < 1e-5


def test_tikhonov_equals_the_normal_equations(deblurring):
    y, operator = deblurring
    n = y.numel()
    A = operator(torch.eye(n, dtype=torch.float64).view(n, 1, *y.shape[-2:])).reshape(n, n).T
    expected = torch.linalg.solve(A.T @ A + 0.1 * torch.eye(n, dtype=torch.float64), A.T @ y.reshape(-1))
    solution = ir.solve(y, operator, ir.priors.Tikhonov(lam=0.1), sigma=0.02)
    assert solution.method == "cg"
    assert torch.allclose(solution.x.reshape(-1), expected, atol=1e-9)


def test_gradient_descent_reaches_the_tikhonov_minimum(deblurring):
    y, operator = deblurring
    prior = ir.priors.Tikhonov(lam=0.1)
    direct = ir.solve(y, operator, prior, sigma=0.02)
    descent = ir.solve(y, operator, prior, sigma=0.02, method="gradient", max_steps=2000, tol=1e-12)
    assert torch.allclose(descent.x, direct.x, atol=1e-7)


def test_exact_data_are_a_constraint(rng):
    x = torch.rand(2, 3, 16, 13, generator=rng, dtype=torch.float64)
    mask = torch.rand(1, 1, 16, 13, generator=rng) < 0.6
    operator = ir.operators.Mask(mask)
    y = operator(x)
    solution = ir.solve(y, operator, ir.priors.TV(), sigma=0.0)
    assert torch.allclose(operator(solution.x), y, atol=1e-12)
    assert solution.lam is None


def test_l1_fidelity_ignores_outliers_that_l2_does_not(rng):
    x = torch.full((1, 1, 24, 24), 0.5, dtype=torch.float64)
    x[..., 8:16, 8:16] = 0.9
    y, _ = ir.corruptions.SaltPepper(0.2)(x, rng)
    identity = ir.operators.Identity()
    robust = ir.solve(
        y, identity, ir.priors.TV(lam=0.8), sigma=0.1, fidelity="l1", tol=1e-7, max_steps=3000
    ).x
    plain = ir.solve(y, identity, ir.priors.TV(lam=0.8), sigma=0.1).x
    assert float(ir.psnr(robust, x)) > 30
    assert float(ir.psnr(robust, x)) > float(ir.psnr(plain, x)) + 10


def test_poisson_fidelity_minimises_the_negative_log_likelihood(rng):
    x = torch.rand(1, 1, 6, 6, generator=rng, dtype=torch.float64) + 0.2
    operator = ir.operators.Blur(ir.kernels.gaussian(0.8).double())
    y = operator(x)
    prior = ir.priors.TV(lam=1e-4)
    loss = ir.fidelity.Poisson(background=0.01)
    solution = ir.solve(
        y, operator, prior, sigma=0.05, fidelity=loss, method="pdhg", max_steps=6000, tol=1e-10
    )
    best = loss.value(operator(solution.x), y) + prior.value(solution.x)
    for _ in range(20):
        nearby = solution.x + 1e-3 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
        assert float(loss.value(operator(nearby), y) + prior.value(nearby)) > float(best) - 1e-9


def test_nonlinear_operator_is_inverted_by_its_gradient(rng):
    x = 0.2 + 0.6 * torch.rand(1, 1, 8, 8, generator=rng, dtype=torch.float64)

    def gamma(image):
        return image.clamp_min(1e-6) ** 2.2

    solution = ir.solve(gamma(x), gamma, ir.priors.TV(lam=1e-6), sigma=0.001, max_steps=3000, tol=1e-9)
    assert solution.method == "fista"
    assert float((solution.x - x).abs().max()) < 1e-2
