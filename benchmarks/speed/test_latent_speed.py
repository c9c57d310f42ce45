"""Latent search: ours, all restarts of all images side by side, against deepinv's CSGM looped over the images.

The unit is one step of one latent. Both search the same masked faces with the same generator, whose weights need no
gradient in either; ours without the parts that CSGM does not have. ``asked`` is the ratio we hold ourselves to.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import invrestore as ir
from benchmarks.common import devices, synchronise
from invrestore import networks, operators, priors

STEPS = 25
RESTARTS = 4
IMAGES = {"cpu": 16, "cuda": 128}
ASKED = {"cpu": 3, "cuda": 100}
MODELS = {"faces64": networks.FaceGAN, "dcgan64": networks.DCGAN}


class Backbone(nn.Module):
    """A generator as CSGM calls it: latents (N, nz, 1, 1)."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator, self.nz = generator, generator.latent_dim

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.generator(z.flatten(1))
        return images


def generator_of(name: str) -> nn.Module:
    """The shipped generator, or an untrained one of the same shape: its time is the same."""
    if name in networks.available():
        model = networks.load(name)
    else:
        torch.manual_seed(0)
        model = MODELS[name]().eval().requires_grad_(False)
    return model.generator


def searcher(generator: nn.Module) -> priors.Latent:
    """The search that CSGM makes: z alone, Adam, random starts, the squared residual."""
    return priors.Latent(
        generator,
        space="z",
        candidates=1,
        restarts=RESTARTS,
        prune=False,
        importance=0.0,
        adapt=0,
        consistency=False,
        blend="none",
    )


@pytest.fixture(params=[f"{d}-{n}" for d in devices() for n in MODELS])
def setting(request):
    """(device, name, generator, mask, measurements)."""
    device, name = request.param.split("-")
    generator = generator_of(name).to(device)
    rng = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, 1, 64, 64, generator=rng) < 0.5).to(device)
    with torch.no_grad():
        z = torch.randn(IMAGES[device], generator.latent_dim, generator=rng)
        y = generator(z.to(device)) * mask
    return device, name, generator, mask, y


def measure(benchmark, setting, who, call, latents):
    """Time ``call``, in which ``latents`` latents take STEPS steps, as one cell of the table."""
    device, name, *_ = setting
    benchmark.group = f"a step of a latent, {name}, {device}"
    asked = {} if who == "invrestore" else {"asked": ASKED[device]}
    benchmark.extra_info.update(who=who, per=latents * STEPS, latents=latents, steps=STEPS, **asked)

    def timed():
        call()
        synchronise(device)

    benchmark.pedantic(timed, rounds=3, warmup_rounds=1)


def test_latent_invrestore(benchmark, setting):
    _, _, generator, mask, y = setting
    operator, prior = operators.Mask(mask), searcher(generator)

    def run():
        return ir.solve(y, operator, prior, sigma=0.0, max_steps=STEPS, tol=0.0)

    assert int(run().steps.min()) == STEPS
    measure(benchmark, setting, "invrestore", run, len(y) * RESTARTS)


def test_latent_deepinv(benchmark, setting):
    dinv = pytest.importorskip("deepinv")
    device, _, generator, mask, y = setting
    physics = dinv.physics.Inpainting(
        img_size=tuple(y.shape[1:]), mask=mask[0].float().expand(y.shape[1:]), device=device
    )
    model = dinv.models.gan.CSGMGenerator(Backbone(generator), inf_max_iter=STEPS, inf_tol=0.0).eval()

    def run():
        # One latent serves a whole batch there, so the images go in one by one.
        return [model(one[None], physics) for one in y]

    measure(benchmark, setting, "deepinv", run, len(y))
