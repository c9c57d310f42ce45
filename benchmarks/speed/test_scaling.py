"""Cost is linear in pixels, and memory a small multiple of the image."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import pytest
import torch

import invrestore as ir
from benchmarks.common import add_noise, photo, write_result

SIDES = (256, 512, 1024, 2048)


def works(y):
    """Name to call; iteration counts are fixed so that cost, not convergence, is compared."""
    operator = ir.operators.Blur(ir.kernels.gaussian(1.6))
    mask = ir.operators.Mask(
        torch.rand(1, 1, *y.shape[-2:], generator=torch.Generator().manual_seed(0)) < 0.5
    )
    return {
        "TV prox to 1e-3": lambda: ir.priors.TV(0.1, tol=1e-3).prox(y),
        "wavelet prox": lambda: ir.priors.Wavelet("db4", lam=0.1).prox(y),
        "blur by FFT": lambda: operator(y),
        "downsample x4": lambda: ir.operators.Downsample(4)(y),
        "20 PDHG steps, TV deblurring": lambda: ir.solve(
            y, operator, ir.priors.TV(0.01), sigma=0.01, max_steps=20, tol=0
        ),
        "20 PDHG steps, TV filling": lambda: ir.solve(
            mask(y), mask, ir.priors.TV(0.01), sigma=0.0, max_steps=20, tol=0
        ),
    }


def median_seconds(call, rounds):
    call()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[rounds // 2]


def test_cost_is_linear_in_pixels(capsys):
    seconds: dict[str, list[float]] = {}
    for side in SIDES:
        y = add_noise(photo("astronaut", side), 0.1)
        for name, call in works(y).items():
            seconds.setdefault(name, []).append(median_seconds(call, 3 if side > 512 else 7))
    exponents = {
        name: math.log(s[-1] / s[0]) / math.log(SIDES[-1] ** 2 / SIDES[0] ** 2) for name, s in seconds.items()
    }
    write_result("scaling", {"sides": SIDES, "seconds": seconds, "exponents": exponents})
    with capsys.disabled():
        print()
        for name, exponent in exponents.items():
            print(f"{name:<32} cost ~ pixels^{exponent:.2f}")
    # The transforms grow by a logarithm, and larger images leave the cache.
    assert max(exponents.values()) < 1.25


PEAK = """
import resource, sys, torch
import invrestore as ir
side, work = int(sys.argv[1]), sys.argv[2]
y = torch.rand(1, 3, side, side)
small = torch.rand(1, 3, 64, 64)
prior = ir.priors.TV(0.1)
prior.prox(small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if work == "prox":
    prior.prox(y)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / (y.numel() * 4))
"""


def test_tv_denoising_takes_at_most_twelve_image_copies(capsys):
    out = subprocess.run(
        [sys.executable, "-c", PEAK, "2048", "prox"], capture_output=True, text=True, check=True
    ).stdout
    copies = float(out)
    with capsys.disabled():
        print(f"\nTV denoising of 3x2048x2048: {copies:.1f} copies of the image at the peak")
    assert copies <= 12


@pytest.mark.gpu
def test_no_host_synchronisation_inside_a_loop():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    y = add_noise(photo("astronaut", 256).cuda(), 0.1)
    operator = ir.operators.Blur(ir.kernels.gaussian(1.6).cuda())
    ir.solve(y, operator, ir.priors.TV(0.01), sigma=0.01, max_steps=9, tol=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        from invrestore.fidelity import L2
        from invrestore.solvers import PDHG, Problem

        problem = Problem(y, operator, L2(), ir.priors.TV(0.01), torch.full((1,), 0.01).cuda(), (3, 256, 256))
        solver = PDHG()
        state = solver.init(problem, y)
        for _ in range(20):
            state = solver.step(problem, state)
    finally:
        torch.cuda.set_sync_debug_mode("default")
