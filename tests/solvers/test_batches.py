"""Every image of a batch is solved on its own."""

import pytest
import torch

import invrestore as ir


@pytest.fixture
def seven(rng):
    """Seven different images with seven noise levels, and the blur they went through."""
    x = torch.rand(7, 3, 6, 5, generator=rng, dtype=torch.float64)
    x = torch.nn.functional.interpolate(x, (24, 20), mode="bilinear")
    sigma = torch.tensor([0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1], dtype=torch.float64)
    operator = ir.operators.Blur(ir.kernels.gaussian(1.2).double())
    y = operator(x) + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    return y, operator, sigma


@pytest.mark.parametrize("method", ["pdhg", "admm", "fista"])
def test_a_batch_equals_its_images_solved_alone_with_different_step_counts(seven, method):
    y, operator, sigma = seven
    prior = ir.priors.TV(lam=0.01)
    tol = {"pdhg": 1e-5, "admm": 1e-5, "fista": 1e-4}[method]
    together = ir.solve(y, operator, prior, sigma=sigma, method=method, tol=tol)
    alone = [
        ir.solve(y[i : i + 1], operator, prior, sigma=float(sigma[i]), method=method, tol=tol)
        for i in range(7)
    ]
    assert torch.allclose(together.x, torch.cat([s.x for s in alone]), atol=1e-6, rtol=0)
    assert together.steps.tolist() == [int(s.steps) for s in alone]
    assert len(set(together.steps.tolist())) > 1


@pytest.fixture
def two_threads():
    """Two threads, which cut a batch in the middle of an image and add up long rows together."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("padding", ["circular", "reflect", "valid"])
def test_threads_round_an_image_of_a_batch_as_they_do_alone(padding, two_threads, rng):
    x = torch.nn.functional.interpolate(torch.rand(3, 3, 12, 11, generator=rng), (122, 123), mode="bilinear")
    operator = ir.operators.Blur(ir.kernels.motion(15, rng=rng), padding=padding)
    y = operator(x)
    y = y + 0.02 * torch.randn(y.shape, generator=rng)
    prior = ir.priors.Wavelet("db4", lam=0.01)
    together, *alone = (ir.solve(v, operator, prior, sigma=0.02, max_steps=20) for v in (y, *y.split(1)))
    assert torch.equal(together.x, torch.cat([s.x for s in alone]))


def test_chosen_weights_do_not_depend_on_the_neighbours(seven):
    y, operator, sigma = seven
    together = ir.solve(y, operator, ir.priors.TV(), sigma=sigma)
    alone = [ir.solve(y[i : i + 1], operator, ir.priors.TV(), sigma=float(sigma[i])) for i in range(7)]
    assert torch.allclose(together.lam, torch.cat([s.lam for s in alone]), rtol=1e-6)
    assert torch.allclose(together.x, torch.cat([s.x for s in alone]), atol=1e-6, rtol=0)


def test_weights_and_noise_levels_may_differ_within_a_batch(seven):
    y, operator, _ = seven
    lam = torch.linspace(0.005, 0.05, 7, dtype=torch.float64)
    together = ir.solve(y, operator, ir.priors.TV(lam=lam), sigma=0.02)
    third = ir.solve(y[2:3], operator, ir.priors.TV(lam=float(lam[2])), sigma=0.02)
    assert torch.allclose(together.x[2:3], third.x, atol=1e-6, rtol=0)
    assert torch.equal(together.lam, lam)


def test_the_same_call_gives_the_same_answer(seven):
    y, operator, _ = seven
    first, second = (ir.solve(y, operator, ir.priors.TV()) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.lam, second.lam)


def test_one_image_that_fails_leaves_the_others_whole(rng):
    y = torch.rand(3, 1, 8, 8, generator=rng)

    def broken(x, sigma):
        out = x.clone()
        out[1] = torch.nan
        return out

    prior = ir.priors.Denoiser(broken, lam=0.01)
    operator = ir.operators.Blur(ir.kernels.gaussian(1.0))
    solution = ir.solve(y, operator, prior, sigma=0.05, throw=False)
    assert solution.status is ir.Status.DIVERGED
    assert solution.converged.tolist() == [True, False, True]
    assert bool(torch.isfinite(solution.x).all())
