"""Plug-and-play with the shipped denoiser, end to end, and the rate of convolution that its network reaches.

The peer is deepinv's DPIR on the same weights. It gets the network both as it is, in float32, and as our prior, which
multiplies in bfloat16 where the machine has units for it: then only the loops differ. On a machine that others use too,
``--benchmark-timer=time.process_time`` with one thread counts the time of this process alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import invrestore as ir
from benchmarks.common import add_noise, devices, photo
from benchmarks.speed.test_speed import measure

SIGMA = 7.65 / 255
SIDE, MEGAPIXEL, ROUNDS = 512, 1024, 3
PEERS = {"deepinv": 2.0, "deepinv, our prior": None}
"""Who, and the ratio we hold ourselves to."""


# Deblurring ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=devices())
def blurred(request):
    """(device, true picture, kernel, measurement)."""
    x = photo("astronaut", SIDE).to(request.param)
    kernel = ir.kernels.gaussian(1.6).to(request.param)
    return request.param, x, kernel, add_noise(ir.operators.Blur(kernel)(x), SIGMA)


def work_of(device: str) -> str:
    return f"HQS, 8 steps, Gaussian blur, {device}, {SIDE}"


def prior_on(device: str) -> ir.priors.Denoiser:
    shipped = ir.priors.load("denoiser")
    return ir.priors.Denoiser(shipped.network.to(device))


def restore(blurred) -> torch.Tensor:
    device, _, kernel, y = blurred
    solution = ir.solve(y, ir.operators.Blur(kernel), prior_on(device), sigma=SIGMA)
    assert solution.method == "hqs"
    assert solution.steps.tolist() == [8]
    return solution.x


def test_hqs_invrestore(benchmark, blurred):
    measure(benchmark, work_of(blurred[0]), "invrestore", lambda: restore(blurred), blurred[0], rounds=ROUNDS)


@pytest.mark.parametrize("who", PEERS)
def test_hqs_deepinv(benchmark, blurred, who):
    import deepinv as dinv

    device, x, kernel, y = blurred
    prior = prior_on(device)
    denoise = prior.network if who == "deepinv" else prior.denoise

    class Shipped(dinv.models.Denoiser):
        def forward(self, x, sigma, **_):
            return denoise(x, float(torch.as_tensor(sigma).max()))

    physics = dinv.physics.BlurFFT(img_size=tuple(y.shape[1:]), filter=kernel, device=device)
    algorithm = dinv.optim.DPIR(sigma=SIGMA, denoiser=Shipped(), device=device)
    answers = []
    work, asked = work_of(device), PEERS[who]
    measure(
        benchmark,
        work,
        who,
        lambda: answers.append(algorithm(y, physics)),
        device,
        asked=asked,
        rounds=ROUNDS,
    )
    # A ratio of times says something only of answers that are equally good.
    theirs, ours = (float(ir.psnr(z, x)) for z in (answers[-1], restore(blurred)))
    benchmark.extra_info.update(psnr=theirs, our_psnr=ours)
    assert ours > theirs - 0.05


# One megapixel ------------------------------------------------------------------------------------------------------

PRECISIONS = ("full", "bfloat16")


@pytest.fixture(params=[f"{d}-{p}" for d in devices() for p in PRECISIONS])
def precise(request):
    """(device, precision)."""
    return tuple(request.param.split("-"))


def rate_of(device: str, precision: str) -> str:
    return f"GFLOP of 3x{MEGAPIXEL}x{MEGAPIXEL} denoised, {precision}, {device}"


def gflop(call: Callable[[], object]) -> float:
    """10^9 multiplications and additions of one call, a product and its sum as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def test_denoise_invrestore(benchmark, precise):
    device, precision = precise
    y = add_noise(photo("astronaut", MEGAPIXEL).to(device), 25 / 255)
    prior = ir.priors.Denoiser(prior_on(device).network, precision=precision)

    def run(image):
        return prior.denoise(image, 25 / 255)

    corner = y[..., : MEGAPIXEL // 4, : MEGAPIXEL // 4]
    work = 16 * gflop(lambda: run(corner))
    measure(benchmark, rate_of(*precise), "invrestore", lambda: run(y), device, per=work, rounds=ROUNDS)


def test_convolution(benchmark, precise):
    """The rate that torch reaches here with a layer of 64 to 64 channels, in the same type and layout."""
    device, precision = precise
    dtype = torch.float32 if precision == "full" else torch.bfloat16
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False)
    layer = layer.to(device, dtype, memory_format=torch.channels_last)
    x = torch.rand(1, 64, SIDE, SIDE, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)

    def run():
        return layer(x)

    measure(benchmark, rate_of(*precise), "one convolution", run, device, per=gflop(run))
