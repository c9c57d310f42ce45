"""deepinv's physics, denoisers and priors go into ``solve``; our operators go into deepinv's algorithms."""

import pytest
import torch
import torch.nn.functional as F

import invrestore as ir

dinv = pytest.importorskip("deepinv")


@pytest.fixture
def x():
    """A picture with edges, (1, 3, 32, 32)."""
    image = torch.full((1, 3, 32, 32), 0.3)
    image[..., 8:24, 6:18] = 0.8
    image[:, 1, 14:28, 14:28] = 0.55
    return F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)


def test_tomography_is_inverted(x, rng):
    gray = x.mean(1, keepdim=True)
    physics = dinv.physics.Tomography(angles=24, img_width=32, normalize=True)
    y = physics(gray)
    solution = ir.solve(y + 0.005 * torch.randn(y.shape, generator=rng), physics, ir.priors.TV())
    assert float(ir.psnr(solution.x, gray)) > 25


def test_mri_is_inverted(x):
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., ::2] = 1
    mask[..., 12:20] = 1
    physics = dinv.physics.MRI(mask=mask, img_size=(2, 32, 32))
    image = torch.cat([x[:, :1], torch.zeros_like(x[:, :1])], 1)
    solution = ir.solve(physics(image), physics, ir.priors.TV(), sigma=0.005)
    assert float(ir.psnr(solution.x, image)) > 28


def test_blur_and_decolorize_are_inverted(x, rng):
    blur = dinv.physics.BlurFFT(img_size=(3, 32, 32), filter=ir.kernels.gaussian(1.0))
    y = blur(x) + 0.01 * torch.randn(x.shape, generator=rng)
    assert float(ir.psnr(ir.solve(y, blur, ir.priors.TV()).x, x)) > float(ir.psnr(y, x)) + 2
    gray = dinv.physics.Decolorize()
    solution = ir.solve(gray(x), gray, ir.priors.TV(), sigma=0.0)
    assert torch.allclose(gray.A(solution.x), gray.A(x), atol=1e-4)


def test_a_deepinv_physics_is_not_changed_by_a_solve(x):
    physics = dinv.physics.BlurFFT(img_size=(3, 32, 32), filter=ir.kernels.gaussian(1.0))
    before = {k: v.clone() for k, v in physics.state_dict().items()}
    ir.solve(physics(x), physics, ir.priors.TV(0.01), sigma=0.02, max_steps=10)
    for key, value in physics.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_deepinv_denoiser_and_prior_are_priors(x, rng):
    y = x + 0.05 * torch.randn(x.shape, generator=rng)
    denoiser = dinv.models.TVDenoiser(n_it_max=50)
    assert float(ir.psnr(ir.solve(y, ir.operators.Identity(), denoiser, sigma=0.05).x, x)) > float(
        ir.psnr(y, x)
    )
    prior = ir.priors.from_deepinv(dinv.optim.TVPrior(n_it_max=100), lam=0.05)
    ours = ir.solve(y, ir.operators.Identity(), ir.priors.TV(0.05, coupled=False), sigma=0.05).x
    assert torch.allclose(ir.solve(y, ir.operators.Identity(), prior, sigma=0.05).x, ours, atol=2e-2)


def test_a_plug_and_play_prior_gives_its_denoiser():
    denoiser = dinv.models.TVDenoiser()
    assert ir.priors.from_deepinv(dinv.optim.PnP(denoiser)).network is denoiser
    with pytest.raises(ir.errors.DTypeError, match="deepinv Denoiser or Prior"):
        ir.priors.from_deepinv(3)


@pytest.mark.parametrize("iteration", ["PGD", "HQS", "ADMM"])
def test_deepinv_algorithms_run_on_our_operators(x, rng, iteration):
    operator = ir.operators.Blur(ir.kernels.gaussian(1.0))
    y = operator(x) + 0.01 * torch.randn(x.shape, generator=rng)
    model = dinv.optim.optim_builder(
        iteration,
        prior=dinv.optim.TVPrior(n_it_max=20),
        data_fidelity=dinv.optim.L2(),
        max_iter=20,
        params_algo={"stepsize": 1.0, "lambda": 0.003},
    )
    assert float(ir.psnr(model(y, operator), x)) > float(ir.psnr(y, x)) + 1


def test_deepinv_dpir_runs_on_our_operator(x, rng):
    operator = ir.operators.Blur(ir.kernels.gaussian(1.0))
    y = operator(x) + 0.03 * torch.randn(x.shape, generator=rng)
    model = dinv.optim.DPIR(sigma=0.03, denoiser=dinv.models.TVDenoiser(n_it_max=30), device="cpu")
    assert float(ir.psnr(model(y, operator), x)) > 15
