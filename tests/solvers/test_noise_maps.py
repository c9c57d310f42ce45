"""Half-quadratic splitting under a mask tells a denoiser that was trained for it which pixels are sure."""

import dataclasses

import pytest
import torch

import invrestore as ir
from invrestore.operators import Blur, Mask
from invrestore.priors import Denoiser
from invrestore.solvers import HQS

SIZE = (9, 11)


class Listener:
    """A denoiser that remembers the levels it was told and pulls towards a gray."""

    def __init__(self, maps: bool = True) -> None:
        self.maps = maps
        self.levels: list[torch.Tensor] = []
        self.images: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.levels.append(torch.as_tensor(sigma))
        self.images.append(x)
        return x + (0.5 - x) * torch.as_tensor(sigma).view(-1, 1, *getattr(sigma, "shape", ())[2:] or (1, 1))


@pytest.fixture
def known() -> torch.Tensor:
    return torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0)) < 0.4


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


METHOD = HQS(first=0.2, last=0.05, steps=3)
STRENGTHS = (0.2, 0.1, 0.05)


def test_exact_pixels_have_no_noise_and_missing_ones_that_of_the_schedule(
    x: torch.Tensor, known: torch.Tensor
) -> None:
    network = Listener()
    found = ir.solve(known * x, Mask(known), Denoiser(network, flip=()), sigma=0.0, method=METHOD)
    for level, strength in zip(network.levels, STRENGTHS, strict=True):
        assert level.shape == (2, 1, *SIZE)
        assert torch.allclose(level, strength * (~known).float().expand_as(level))
    assert torch.equal((known * found.x), known * x)


def test_noisy_pixels_are_told_what_the_data_step_leaves(x: torch.Tensor, known: torch.Tensor) -> None:
    """Its error for an image whose error is Gaussian of the strength of the step, drawn many times."""
    sigma, gain, lam = 0.03, 0.5, 0.0006
    network = Listener()
    operator = Mask(gain * known)
    prior = Denoiser(network, flip=(), lam=lam)
    ir.solve(operator(x), operator, prior, sigma=sigma, method=METHOD)
    rng = torch.Generator().manual_seed(2)
    truth = torch.rand(4000, 1, 1, 2, generator=rng)
    pair = Mask(torch.tensor([[gain, 0.0]]))
    for level, strength in zip(network.levels, STRENGTHS, strict=True):
        near = truth + strength * torch.randn(truth.shape, generator=rng)
        y = pair(truth + sigma / gain * torch.randn(truth.shape, generator=rng))
        weight = strength**2 / lam
        fitted = (near + weight * pair.adjoint(y)) / (1 + weight * pair.mask**2)
        error = (fitted - truth).std(dim=0).flatten()
        expand = known.expand_as(level)
        assert float(level[expand].std()) < 1e-6
        assert float(level[expand][0]) == pytest.approx(float(error[0]), rel=0.05)
        assert float(level[~expand][0]) == pytest.approx(float(error[1]), rel=0.05)


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_a_batch_gives_what_its_images_give_alone(x: torch.Tensor, sigma: float) -> None:
    known = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(3)) < 0.5
    levels = torch.tensor([1.0, 0.5]) * sigma
    both = ir.solve(known * x, Mask(known), Denoiser(Listener()), sigma=levels)
    for k in range(2):
        one = slice(k, k + 1)
        alone = ir.solve((known * x)[one], Mask(known[one]), Denoiser(Listener()), sigma=levels[one])
        assert torch.allclose(both.x[one], alone.x, atol=1e-6)


def test_others_are_told_one_level(x: torch.Tensor, known: torch.Tensor) -> None:
    coloured = Mask(torch.cat((known, known, ~known), dim=1))
    plain = Listener(maps=False)
    for network, operator in (
        (plain, Mask(known)),
        (Listener(), coloured),
        (Listener(), Blur(torch.full((1, 1, 3, 3), 1 / 9))),
    ):
        ir.solve(operator(x), operator, Denoiser(network), sigma=0.02)
        assert {level.ndim for level in network.levels} == {1}


def test_the_schedule_goes_by_what_the_network_was_trained_for(x: torch.Tensor, known: torch.Tensor) -> None:
    from invrestore.solvers._plug_and_play import SCHEDULES

    for sigma, kind in ((0.0, "exact pixels"), (0.05, "noisy pixels")):
        for network, told in ((Listener(maps=False), ""), (Listener(), ", told")):
            ir.solve(known * x, Mask(known), Denoiser(network, flip=()), sigma=sigma)
            wanted = SCHEDULES[kind + told]
            assert len(network.levels) == wanted.steps
            assert float(network.levels[0].max()) == pytest.approx(wanted.first, rel=1e-4)


def test_double_precision_stays(x: torch.Tensor, known: torch.Tensor) -> None:
    network = Listener()
    found = ir.solve((known * x).double(), Mask(known), Denoiser(network), sigma=0.0)
    assert found.x.dtype == torch.float64
    assert {level.dtype for level in network.levels} == {torch.float64}


def test_a_method_of_ones_own_is_told_levels_too(x: torch.Tensor, known: torch.Tensor) -> None:
    network = Listener()
    method = dataclasses.replace(METHOD, steps=1)
    ir.solve(known * x, Mask(known), Denoiser(network, flip=()), sigma=0.0, method=method)
    assert network.levels[0].ndim == 4
