"""What ``solve`` chooses, reports and returns."""

import pytest
import torch

import invrestore as ir
from invrestore.solvers import HQS, METHODS


@pytest.fixture
def photo():
    """A piecewise smooth picture with edges, (1, 3, 48, 40)."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 40), indexing="ij")
    x = torch.stack([0.3 + 0.4 * rows, 0.6 - 0.3 * columns, 0.5 + 0.2 * rows * columns])[None]
    x[..., 10:30, 8:24] += 0.25
    x[..., 20:40, 20:34] -= 0.2
    return x.clamp(0, 1)


def noisy(x, sigma, rng):
    return x + sigma * torch.randn(x.shape, generator=rng)


def gain(solution, y, x):
    return float(ir.psnr(solution.x, x) - ir.psnr(y, x))


@pytest.mark.parametrize("prior", ["tv", "tgv", "wavelet", "tikhonov"])
def test_named_priors_denoise_without_any_parameter(photo, rng, prior):
    y = noisy(photo, 0.1, rng)
    solution = ir.solve(y, ir.operators.Identity(), prior)
    assert gain(solution, y, photo) > (1.0 if prior == "tikhonov" else 4.0)
    assert float(solution.sigma) == pytest.approx(0.1, rel=0.15)
    assert "sigma: estimated" in str(solution)
    assert "lam:" in str(solution)


@pytest.mark.parametrize("prior", ["tv", "tgv", "wavelet"])
def test_blur_and_holes_are_undone_without_any_parameter(photo, rng, prior):
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    y = noisy(blur(photo), 0.01, rng)
    assert gain(ir.solve(y, blur, prior), y, photo) > 2
    mask = ir.operators.Mask(torch.rand(1, 1, 48, 40, generator=rng) < 0.5)
    y = mask(photo)
    assert float(ir.psnr(ir.solve(y, mask, prior, sigma=0.0).x, photo)) > (20 if prior == "wavelet" else 30)


def test_the_chosen_weight_is_near_the_best_one(photo, rng):
    y = noisy(photo, 0.08, rng)
    identity = ir.operators.Identity()
    chosen = ir.solve(y, identity, ir.priors.TV(), sigma=0.08)
    best = max(
        float(ir.psnr(ir.solve(y, identity, ir.priors.TV(lam), sigma=0.08).x, photo))
        for lam in torch.logspace(-2.5, 0, 20).tolist()
    )
    assert float(ir.psnr(chosen.x, photo)) > best - 0.3


def test_quantised_pictures_get_better_inside_their_intervals(photo):
    quantise = ir.operators.Quantize(5)
    y = quantise(photo)
    solution = ir.solve(y, quantise, ir.priors.TV())
    lower, upper = quantise.interval(y)
    assert gain(solution, y, photo) > 1.0
    assert bool(((solution.x >= lower - 1e-5) & (solution.x <= upper + 1e-5)).all())


def test_no_noise_on_rounded_data_means_rounding_error_only(photo):
    for operator in (ir.operators.Quantize(5), ir.operators.JPEG(10)):
        y = operator(photo)
        silent, told = ir.solve(y, operator, "tv"), ir.solve(y, operator, "tv", sigma=0.0)
        assert torch.equal(silent.x, told.x)
        assert "rounding error" in str(told)


def test_small_and_gray_measurements_become_full_images(photo, rng):
    down = ir.operators.Downsample(2)
    solution = ir.solve(noisy(down(photo), 0.01, rng), down, "tv")
    assert solution.x.shape == photo.shape
    gray = ir.operators.Grayscale()
    solution = ir.solve(gray(photo), gray, "tv", sigma=0.0)
    assert solution.x.shape == photo.shape
    assert torch.allclose(gray(solution.x), gray(photo), atol=1e-5)


def test_jpeg_artifacts_are_smoothed(photo):
    jpeg = ir.operators.JPEG(10)
    y = jpeg(photo)
    assert gain(ir.solve(y, jpeg, "tv"), y, photo) > 0.5


def test_a_denoiser_plugs_in_and_reports_no_objective(photo, rng):
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    y = noisy(blur(photo), 0.02, rng)

    def smooth(x, sigma):
        return ir.priors.TV(lam=sigma, tol=1e-3).prox(x)

    for method in ("hqs", "admm", "red", "fista"):
        solution = ir.solve(y, blur, ir.priors.Denoiser(smooth), sigma=0.02, method=method)
        assert gain(solution, y, photo) > 0.5, method
        assert "objective" not in solution.history


def test_denoising_with_a_denoiser_is_one_call_at_the_noise_level(photo):
    levels = []

    def spy(x, sigma):
        levels.append(sigma)
        return x

    ir.solve(photo, ir.operators.Identity(), ir.priors.Denoiser(spy), sigma=0.07)
    assert len(levels) == 1
    assert float(levels[0]) == pytest.approx(0.07)


def test_hqs_strengths_fall_from_the_first_to_the_noise_level(photo):
    levels = []

    def spy(x, sigma):
        levels.append(float(sigma))
        return x

    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    ir.solve(blur(photo), blur, ir.priors.Denoiser(spy), sigma=0.02, method=HQS(steps=5), max_steps=5)
    assert levels[0] == pytest.approx(49 / 255)
    assert levels[-1] == pytest.approx(0.02)
    assert levels == sorted(levels, reverse=True)
    assert len(levels) == 5


def test_hqs_of_noisy_pixels_ends_below_the_noise_level(photo):
    levels = []

    def spy(x, sigma):
        levels.append(float(sigma))
        return x

    mask = ir.operators.Mask(torch.ones_like(photo[:, :1]))
    ir.solve(mask(photo), mask, ir.priors.Denoiser(spy), sigma=0.05)
    assert len(levels) == 12
    assert levels[-1] == pytest.approx(0.6 * 0.05)


def test_momentum_of_hqs_adds_a_share_of_the_last_change_before_the_data_step(photo):
    seen = []

    def towards_gray(x, sigma):
        seen.append(x)
        return x + 0.5 * (0.5 - x)

    mask = ir.operators.Mask(
        torch.rand(photo[:1, :1].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    )
    y = mask(photo)
    start = torch.rand(photo.shape, generator=torch.Generator().manual_seed(1))
    prior = ir.priors.Denoiser(towards_gray, flip=())
    method = HQS(first=0.2, last=0.2, steps=4, momentum=0.6)
    found = ir.solve(y, mask, prior, sigma=0.0, method=method, init=start).x
    before = x = start
    for fitted in seen:
        torch.testing.assert_close(fitted, torch.where(mask.mask != 0, y, x + 0.6 * (x - before)))
        before, x = x, fitted + 0.5 * (0.5 - fitted)
    assert len(seen) == 4
    torch.testing.assert_close(found, torch.where(mask.mask != 0, y, x))


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_momentum_fills_missing_pixels_in_fewer_steps(photo, keep):
    mask = ir.operators.Mask(
        torch.rand(photo[:1, :1].shape, generator=torch.Generator().manual_seed(0)) < keep
    )
    scores = {}
    for momentum in (0.0, 0.5):
        method = HQS(first=30 / 255, floor=2 / 255, steps=9, momentum=momentum)
        scores[momentum] = float(
            ir.psnr(ir.solve(mask(photo), mask, "denoiser", sigma=0.0, method=method).x, photo).mean()
        )
    assert scores[0.5] > scores[0.0] + 0.1


def test_an_object_with_restore_is_a_prior(photo):
    class Half(ir.Restorer):
        def restore(self, y, operator):
            return 0.5 * y

    solution = ir.solve(photo, ir.operators.Identity(), Half())
    assert solution.method == "restorer"
    assert torch.equal(solution.x, 0.5 * photo)


def test_truth_records_psnr_at_every_step(photo, rng):
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    y = noisy(blur(photo), 0.02, rng)
    solution = ir.solve(y, blur, ir.priors.TV(0.01), sigma=0.02, truth=photo, max_steps=25, tol=0)
    assert solution.history["psnr"].shape == (25, 1)
    assert solution.history["objective"].shape == solution.history["step"].shape == (3, 1)
    assert float(solution.history["psnr"][-1]) == pytest.approx(float(ir.psnr(solution.x, photo)))


def test_the_callback_sees_every_step_and_may_stop(photo):
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    seen = []
    solution = ir.solve(
        blur(photo),
        blur,
        ir.priors.TV(0.01),
        sigma=0.02,
        tol=0,
        callback=lambda k, x: seen.append(k) or k == 7,
    )
    assert seen == list(range(1, 8))
    assert solution.status is ir.Status.STOPPED
    assert int(solution.steps) == 7


def test_reaching_max_steps_is_a_status_and_not_an_error(photo):
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    solution = ir.solve(blur(photo), blur, ir.priors.TV(0.01), sigma=0.02, max_steps=3, tol=1e-12)
    assert solution.status is ir.Status.MAX_STEPS
    assert not bool(solution.converged)
    assert "Raise max_steps" in str(solution)


def test_divergence_raises_with_the_last_finite_images(photo):
    def explode(x, sigma):
        return x * torch.inf

    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    y = blur(photo)
    with pytest.raises(ir.ConvergenceError, match="throw=False") as caught:
        ir.solve(y, blur, ir.priors.Denoiser(explode), sigma=0.02)
    assert caught.value.solution is not None
    assert bool(torch.isfinite(caught.value.solution.x).all())
    assert (
        ir.solve(y, blur, ir.priors.Denoiser(explode), sigma=0.02, throw=False).status is ir.Status.DIVERGED
    )


def test_the_report_names_method_noise_weight_and_reasons(photo, rng):
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    text = str(ir.solve(noisy(blur(photo), 0.02, rng), blur, "tv", truth=photo))
    for word in ("pdhg", "because", "sigma =", "lam =", "PSNR", "misfit", "converged"):
        assert word in text


def test_a_solution_is_saved_whole_and_never_over_another(photo, tmp_path):
    from safetensors.torch import load_file

    solution = ir.solve(photo, ir.operators.Identity(), ir.priors.TV(0.1), sigma=0.1)
    path = tmp_path / "solution.safetensors"
    solution.save(path)
    assert torch.equal(load_file(path)["x"], solution.x)
    with pytest.raises(ir.ImageFileError, match="force=True"):
        solution.save(path)
    solution.save(path, force=True)
    with pytest.raises(ir.ImageFileError, match="an existing folder"):
        solution.save(tmp_path / "missing" / "s.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["solution.safetensors"]


def test_a_solution_plots_its_history(photo, tmp_path):
    pytest.importorskip("matplotlib")
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    solution = ir.solve(blur(photo), blur, ir.priors.TV(0.01), sigma=0.02)
    solution.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000


def test_every_method_name_is_a_solver_class():
    for name, cls in METHODS.items():
        assert cls.name == name
        assert issubclass(cls, ir.Solver)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_floating_type_is_kept(photo, dtype):
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2))
    for prior in ("tv", "wavelet"):
        assert ir.solve(blur(photo.to(dtype)), blur.to(dtype), prior, max_steps=20).x.dtype == dtype


@pytest.mark.parametrize("shape", [(1, 1, 1, 9), (1, 1, 1, 1), (2, 3, 5, 7), (1, 1, 2, 2)])
def test_tiny_images_are_restored_like_others(shape, rng):
    y = torch.rand(shape, generator=rng)
    for prior in ("tv", "wavelet", "tgv", "tikhonov"):
        solution = ir.solve(y, ir.operators.Identity(), prior, sigma=0.1)
        assert solution.x.shape == y.shape
        assert bool(torch.isfinite(solution.x).all())
