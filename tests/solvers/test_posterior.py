"""Posterior samples: ``solve(..., samples=S)`` with a denoiser prior."""

import dataclasses

import pytest
import torch

import invrestore as ir
from invrestore.solvers import DiffPIR

VARIANCE, MEAN = 0.04, 0.5


def gaussian_denoiser(x, sigma):
    """The exact denoiser of pixels that are independent N(0.5, 0.2^2): their posterior is known in closed form."""
    s = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)
    return MEAN + VARIANCE / (VARIANCE + s**2) * (x - MEAN)


@pytest.fixture
def prior():
    return ir.priors.Denoiser(gaussian_denoiser)


@pytest.fixture
def images(rng):
    return MEAN + VARIANCE**0.5 * torch.randn(3, 3, 12, 10, generator=rng, dtype=torch.float64)


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def operators(rng):
    return {
        "identity": ir.operators.Identity(),
        "mask": ir.operators.Mask(torch.rand(12, 10, generator=rng) < 0.5),
        "blur": ir.operators.Blur(ir.kernels.gaussian(0.8).double()),
        "downsample": ir.operators.Downsample(2),
        "grayscale": ir.operators.Grayscale(),
        "quantize": ir.operators.Quantize(5),
        "jpeg": ir.operators.JPEG(30),
        "no closed form": ir.operators.Blur(ir.kernels.gaussian(0.8).double(), padding="reflect"),
    }


def test_denoising_samples_the_known_posterior_of_a_gaussian_image(prior, rng):
    sigma = 0.1
    x = MEAN + VARIANCE**0.5 * torch.randn(1, 1, 40, 40, generator=rng, dtype=torch.float64)
    y = x + sigma * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    ancestral = 1 - (2 / 255 / sigma) ** (2 / 59)
    sampler = DiffPIR(steps=60, zeta=ancestral)
    solution = ir.solve(y, ir.operators.Identity(), prior, sigma=sigma, method=sampler, samples=64)
    expected = gaussian_denoiser(y, sigma)
    std = (VARIANCE * sigma**2 / (VARIANCE + sigma**2)) ** 0.5
    assert torch.allclose(solution.x, expected, atol=5 * std / 8)
    assert float((solution.x - expected).mean().abs()) < 0.1 * std
    assert float(solution.std.mean()) == pytest.approx(std, rel=0.05)


def test_lost_pixels_get_the_spread_of_the_prior_and_known_ones_none(prior, rng):
    mask = ir.operators.Mask(torch.rand(40, 40, generator=rng) < 0.5)
    x = MEAN + VARIANCE**0.5 * torch.randn(1, 1, 40, 40, generator=rng, dtype=torch.float64)
    sampler = DiffPIR(steps=100, first=1.0, zeta=1 - (2 / 255) ** (2 / 99))
    solution = ir.solve(mask(x), mask, prior, sigma=0.0, method=sampler, samples=32)
    known = mask.mask.expand_as(x)
    assert torch.equal(solution.samples[:, 3][known], x[known])
    assert float(solution.std[known].max()) < 1e-12
    assert float(solution.std[~known].mean()) == pytest.approx(VARIANCE**0.5, rel=0.05)
    assert float(solution.x[~known].mean()) == pytest.approx(MEAN, abs=0.01)


@pytest.mark.parametrize(
    "name", ["identity", "mask", "blur", "downsample", "grayscale", "quantize", "jpeg", "no closed form"]
)
@pytest.mark.parametrize("sigma", [0.05, 0.0])
def test_every_operator_can_be_sampled(operators, prior, images, name, sigma):
    y = operators[name](images.clamp(0, 1))
    solution = ir.solve(y, operators[name], prior, sigma=sigma, samples=3, max_steps=4)
    assert solution.method == "diffpir"
    assert solution.samples.shape == (3, 3, *images.shape[1:])
    assert solution.std.shape == solution.x.shape == images.shape
    assert torch.allclose(solution.samples.mean(1), solution.x)
    assert solution.steps.tolist() == [4, 4, 4]
    assert bool(torch.isfinite(solution.samples).all())
    assert "3 samples, standard deviation" in str(solution)


def test_exact_data_hold_in_every_sample(operators, prior, images):
    down = operators["downsample"]
    solution = ir.solve(down(images), down, prior, sigma=0.0, samples=3, max_steps=4)
    for sample in solution.samples.unbind(1):
        assert torch.allclose(down(sample), down(images), atol=1e-9)


@pytest.mark.parametrize("name", ["identity", "mask", "blur"])
def test_a_batch_equals_its_images_sampled_alone(operators, prior, images, name):
    operator, sigma = operators[name], torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
    y = operator(images)
    together = ir.solve(y, operator, prior, sigma=sigma, samples=3, max_steps=5, rng=seeded())
    for i in range(3):
        alone = ir.solve(
            y[i : i + 1], operator, prior, sigma=float(sigma[i]), samples=3, max_steps=5, rng=seeded()
        )
        assert torch.allclose(together.samples[i : i + 1], alone.samples, atol=1e-9, rtol=0)


def test_the_generator_decides_the_samples(operators, prior, images):
    def draw(rng):
        return ir.solve(images, operators["blur"], prior, sigma=0.05, samples=2, max_steps=3, rng=rng).samples

    assert torch.equal(draw(seeded(1)), draw(seeded(1)))
    assert torch.equal(draw(None), draw(None))
    assert not torch.allclose(draw(seeded(1)), draw(seeded(2)))
    rng = seeded(1)
    assert not torch.allclose(draw(rng), draw(rng))


def test_samples_differ_from_each_other(operators, prior, images):
    samples = ir.solve(images, operators["blur"], prior, sigma=0.05, samples=4, max_steps=6).samples
    for i in range(4):
        for j in range(i):
            assert float((samples[:, i] - samples[:, j]).std()) > 0.01


def test_network_calls_are_bounded_in_size_and_give_the_same(operators, images, monkeypatch):
    sizes = []

    def watched(x, sigma):
        sizes.append((x.shape[0], sigma.shape[0]))
        return gaussian_denoiser(x, sigma)

    def draw():
        sizes.clear()
        y = operators["mask"](images)
        return ir.solve(y, operators["mask"], ir.priors.Denoiser(watched), sigma=0.0, samples=5, max_steps=2)

    whole = draw().samples
    assert sizes == [(15, 15)] * 2
    monkeypatch.setattr("invrestore.solvers._diffpir.PIXELS_AT_ONCE", 4 * 120 + 7)
    assert torch.allclose(draw().samples, whole)
    assert sizes == [(4, 4), (4, 4), (4, 4), (3, 3)] * 2
    monkeypatch.setattr("invrestore.solvers._diffpir.PIXELS_AT_ONCE", 1)
    draw()
    assert sizes == [(1, 1)] * 30


def test_a_plain_answer_has_no_samples(operators, prior, images):
    solution = ir.solve(images, operators["blur"], prior, sigma=0.05)
    assert solution.samples is None
    assert solution.std is None


def test_half_precision_comes_back_in_its_own_type(operators, prior, images):
    y = images.to(torch.bfloat16)
    solution = ir.solve(y, operators["mask"], prior, sigma=0.0, samples=2, max_steps=2)
    assert solution.x.dtype == solution.samples.dtype == solution.std.dtype == torch.bfloat16


def test_samples_are_saved(operators, prior, images, tmp_path):
    from safetensors.torch import load_file

    solution = ir.solve(images, operators["blur"], prior, sigma=0.05, samples=2, max_steps=2)
    solution.save(tmp_path / "s.safetensors")
    assert torch.equal(load_file(tmp_path / "s.safetensors")["samples"], solution.samples)


def test_a_sampler_object_carries_its_own_settings(operators, prior, images):
    y, A = images, operators["blur"]
    by_object = ir.solve(y, A, prior, sigma=0.05, method=DiffPIR(samples=2, steps=3, seed=7))
    assert by_object.samples.shape[1] == 2
    assert by_object.steps.tolist() == [3, 3, 3]
    more = ir.solve(y, A, prior, sigma=0.05, method=DiffPIR(samples=2, steps=3, seed=7), samples=4)
    assert torch.equal(more.samples[:, :2], by_object.samples)


def test_a_nan_from_the_network_is_an_error_and_not_an_answer(operators, images):
    prior = ir.priors.Denoiser(lambda x, sigma: x * torch.nan)
    with pytest.raises(ir.ConvergenceError, match="diffpir"):
        ir.solve(images, operators["blur"], prior, sigma=0.05, samples=2)


def uncalled(x, sigma):
    raise AssertionError("the network ran before the arguments were checked")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"samples": 1}, ir.RangeError, "samples >= 2"),
        ({"samples": 2.0}, ir.DTypeError, "samples as an int"),
        ({"prior": "tv"}, ir.CapabilityError, "denoiser prior"),
        ({"method": "hqs"}, ir.CapabilityError, "a method that samples: 'diffpir'"),
        ({"method": ir.solvers.HQS()}, ir.CapabilityError, "a method that samples: 'diffpir'"),
        ({"method": "diffpri"}, ir.UnknownNameError, "diffpir"),
        ({"operator": ir.operators.Value()}, ir.CapabilityError, "linear operator"),
        ({"fidelity": "l1"}, ir.CapabilityError, "L2 fidelity"),
        ({"rng": 3}, ir.DTypeError, "rng"),
        ({"restarts": 2}, ir.CapabilityError, "restarts"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_work_starts(operators, images, change, error, message):
    call = {
        "operator": operators["blur"],
        "prior": ir.priors.Denoiser(uncalled),
        "sigma": 0.05,
        "samples": 4,
    } | change
    y = call["operator"](images)
    with pytest.raises(error, match=message):
        ir.solve(y, call.pop("operator"), call.pop("prior"), **call)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "samples >= 2"),
        ({"steps": 0}, "steps >= 1"),
        ({"zeta": 1.5}, r"zeta in \[0, 1\]"),
        ({"zeta": -0.5}, "zeta >= 0"),
        ({"first": 0.01, "last": 0.1}, "last <= first"),
        ({"last": 0.0}, "0 < last"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ir.RangeError, match=message):
        dataclasses.replace(DiffPIR(), **settings)
