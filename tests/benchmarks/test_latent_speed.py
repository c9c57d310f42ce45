"""The two searches that are timed do the same work."""

import pytest
import torch

from benchmarks.speed import test_latent_speed as speed
from invrestore import operators, solve
from invrestore.networks import DCGAN


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return DCGAN(16, width=4).eval().requires_grad_(False).generator


def test_backbone_takes_latents_as_csgm_draws_them(generator):
    z = torch.randn(3, 100)
    backbone = speed.Backbone(generator)
    assert backbone.nz == 100
    torch.testing.assert_close(backbone(z.view(3, 100, 1, 1)), generator(z))


def test_every_restart_takes_every_step(generator):
    mask = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    y = generator(torch.randn(2, 100, generator=torch.Generator().manual_seed(1))) * mask
    found = solve(
        y, operators.Mask(mask), speed.searcher(generator), sigma=0.0, max_steps=speed.STEPS, tol=0.0
    )
    assert found.losses.shape == (2, speed.RESTARTS)
    assert found.steps.tolist() == [speed.STEPS] * 2
    assert list(found.stages) == ["raw"]


def test_network_that_does_not_ship_is_replaced_by_an_untrained_one():
    for name, model in speed.MODELS.items():
        generator = speed.generator_of(name)
        assert type(generator) is type(model().generator)
        assert not any(p.requires_grad for p in generator.parameters())
