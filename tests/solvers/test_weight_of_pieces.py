"""Large measurements are weighed by pieces of them."""

from pathlib import Path

import pytest
import torch

import invrestore as ir
from invrestore.solvers import _weight

PHOTO = sorted(Path(ir.__file__).parent.glob("assets/*.png"))[0]


@pytest.fixture
def small_is_large(monkeypatch):
    """Pieces of 32 x 32 pixels for everything."""
    monkeypatch.setattr(_weight, "_WHOLE_PIXELS", 0)
    monkeypatch.setattr(_weight, "_SIDE", 32)


@pytest.fixture
def photo():
    return ir.load_image(PHOTO)[:, :1, :112, :112]


def blurred(x, padding):
    return ir.operators.Blur(ir.kernels.gaussian(1.0), padding=padding)


OPERATORS = {
    "noise": (lambda x: ir.operators.Identity(), 0.1),
    "missing": (lambda x: ir.operators.SparseSampling(x.shape[1:], keep=0.6), 0.05),
    "reflect": (lambda x: blurred(x, "reflect"), 0.03),
    "valid": (lambda x: blurred(x, "valid"), 0.03),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_weight_of_pieces_is_as_good_as_that_of_the_whole(name, photo, rng, small_is_large, monkeypatch):
    make, sigma = OPERATORS[name]
    A = make(photo)
    clean = A(photo)
    y = clean + sigma * torch.randn(clean.shape, generator=rng)
    if name == "missing":
        y = y * A.mask
    of_pieces = ir.solve(y, A, "tv", sigma=sigma)
    assert any("9 pieces of 32 x 32 pixels" in choice for choice in of_pieces.choices)
    monkeypatch.setattr(_weight, "_WHOLE_PIXELS", 2**20)
    of_whole = ir.solve(y, A, "tv", sigma=sigma)
    assert not any("pieces" in choice for choice in of_whole.choices)
    assert not torch.equal(of_pieces.lam, of_whole.lam)
    assert float(ir.psnr(of_pieces.x, photo)) > float(ir.psnr(of_whole.x, photo)) - 0.15


def test_every_image_of_a_batch_has_the_weight_it_has_alone(photo, rng, small_is_large):
    x = torch.cat([photo, photo.flip(-1) * 0.5])
    sigma = torch.tensor([0.05, 0.15])
    y = x + sigma[:, None, None, None] * torch.randn(x.shape, generator=rng)
    together = ir.solve(y, ir.operators.Identity(), "tv", sigma=sigma)
    for i in range(2):
        alone = ir.solve(y[i : i + 1], ir.operators.Identity(), "tv", sigma=sigma[i : i + 1])
        assert torch.equal(together.lam[i : i + 1], alone.lam)
        assert torch.equal(together.x[i : i + 1], alone.x)


def test_priors_made_for_one_size_or_one_image_are_weighed_as_a_whole(photo, rng, small_is_large):
    y = torch.cat([photo, photo]) + 0.1 * torch.randn((2, *photo.shape[1:]), generator=rng)
    K = ir.operators.Mask(torch.rand(photo.shape[-2:], generator=rng))
    weights = torch.tensor([0.1, 0.2])
    for prior in (
        ir.priors.Tikhonov(operator=K),
        ir.priors.Tikhonov(operator=K) + ir.priors.Box(0, 1),
        ir.priors.Tikhonov() + ir.priors.Tikhonov(weights, operator="gradient"),
        ir.priors.Tikhonov() + ir.priors.Box(torch.zeros(photo.shape[-2:]), 1),
    ):
        solution = ir.solve(y, ir.operators.Identity(), prior, sigma=0.1)
        assert not any("pieces" in choice for choice in solution.choices)


def test_sums_and_wavelets_are_weighed_by_pieces(photo, rng, small_is_large):
    y = photo + 0.1 * torch.randn(photo.shape, generator=rng)
    for prior in (ir.priors.TV() + ir.priors.Box(0, 1), ir.priors.Wavelet()):
        solution = ir.solve(y, ir.operators.Identity(), prior, sigma=0.1)
        assert any("pieces" in choice for choice in solution.choices)
