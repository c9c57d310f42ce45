"""Ours against the peers, side by side in one run.

``python -m pytest benchmarks/speed`` prints the table; ``--ratios NAME`` keeps it. Every test is one cell:
a work (the group), and who does it. ``asked`` is the ratio peer / ours we hold ourselves to at 3x256x256 on the CPU.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

import invrestore as ir
from benchmarks.common import add_noise, devices, photo, synchronise

SIZES = (256, 1024)
STEPS = 50


@pytest.fixture(params=[f"{d}-{s}" for d in devices() for s in SIZES])
def setting(request):
    """(device, size, noisy picture)."""
    device, size = request.param.split("-")
    return device, int(size), add_noise(photo("astronaut", int(size)).to(device), 0.1)


def measure(
    benchmark,
    work: str,
    who: str,
    call: Callable[[], object],
    device: str,
    *,
    asked=None,
    per: float = 1,
    rounds: int = 7,
):
    """Time ``call`` as one cell of the table; ``per`` steps, or units of work, are inside one call."""
    benchmark.group = work
    benchmark.extra_info.update(who=who, per=per, **({} if asked is None else {"asked": asked}))

    def timed():
        call()
        synchronise(device)

    with torch.no_grad():
        benchmark.pedantic(timed, rounds=rounds, warmup_rounds=2 if rounds > 3 else 1)


def asked_at(setting, ratio):
    device, size, _ = setting
    return ratio if device == "cpu" and size == 256 else None


# Total variation to a relative gap of 1e-4 ------------------------------------------------------------------------

LAM, GAP = 0.1, 1e-4
_GOAL: dict[tuple[str, int], float] = {}


def tv_objective(x: torch.Tensor, y: torch.Tensor) -> float:
    """1/2 ||x - y||^2 + lam TV(x), channels apart, in float64; belongs to none of the compared codes."""
    x, y = x.double(), y.double()
    v = torch.zeros_like(x)
    h = torch.zeros_like(x)
    v[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    h[..., :-1] = x[..., 1:] - x[..., :-1]
    return float(0.5 * ((x - y) ** 2).sum() + LAM * (v * v + h * h).sqrt().sum())


def tv_gap(setting, x: torch.Tensor) -> float:
    device, size, y = setting
    key = (device, size)
    if key not in _GOAL:
        _GOAL[key] = tv_objective(ir.priors.TV(LAM, coupled=False, tol=1e-7).prox(y.double()), y)
    return (tv_objective(x, y) - _GOAL[key]) / _GOAL[key]


def fewest_steps(setting, run: Callable[[int], torch.Tensor]) -> int:
    """The smallest step count of a coarse grid with which a peer reaches the gap."""
    grid = (100, 150, 200, 300, 400, 500, 600, 800, 1200)
    return next((n for n in grid if tv_gap(setting, run(n)) <= GAP), grid[-1])


def test_tv_invrestore(benchmark, setting):
    device, size, y = setting
    prior = ir.priors.TV(LAM, coupled=False, tol=GAP)
    assert tv_gap(setting, prior.prox(y)) <= 1.2 * GAP
    measure(
        benchmark, f"TV denoise to gap 1e-4, {device}, {size}", "invrestore", lambda: prior.prox(y), device
    )


def test_tv_deepinv(benchmark, setting):
    from deepinv.models import TVDenoiser

    device, size, y = setting

    def run(n):
        return TVDenoiser(crit=0, n_it_max=n).to(device)(y, LAM)

    n = fewest_steps(setting, run)
    asked = asked_at(setting, 20)
    measure(
        benchmark, f"TV denoise to gap 1e-4, {device}, {size}", "deepinv", lambda: run(n), device, asked=asked
    )


def test_tv_scikit_image(benchmark, setting):
    from skimage.restoration import denoise_tv_chambolle

    device, size, y = setting
    if device != "cpu":
        pytest.skip("scikit-image runs on the CPU")
    array = y[0].permute(1, 2, 0).numpy()

    def run(n):
        x = denoise_tv_chambolle(array, weight=LAM, eps=0, max_num_iter=n, channel_axis=-1)
        return torch.from_numpy(x).permute(2, 0, 1)[None]

    n = fewest_steps(setting, run)
    asked = asked_at(setting, 15)
    measure(
        benchmark,
        f"TV denoise to gap 1e-4, {device}, {size}",
        "scikit-image",
        lambda: run(n),
        device,
        asked=asked,
    )


# One plug-and-play step with an FFT blur and a denoiser that does nothing -------------------------------------------


def identity(x: torch.Tensor, sigma: object) -> torch.Tensor:
    return x


def blurred(setting):
    device, size, _ = setting
    kernel = ir.kernels.gaussian(1.6).to(device)
    operator = ir.operators.Blur(kernel)
    return operator, kernel, add_noise(operator(photo("astronaut", size).to(device)), 0.01)


@pytest.mark.parametrize("method", ["hqs", "admm"])
def test_step_invrestore(benchmark, setting, method):
    device, size, _ = setting
    operator, _, y = blurred(setting)
    prior = ir.priors.Denoiser(identity, lam=2e-5)

    def run():
        return ir.solve(y, operator, prior, sigma=0.01, method=method, max_steps=STEPS, tol=0)

    measure(
        benchmark,
        f"one {method.upper()} step, FFT blur, {device}, {size}",
        "invrestore",
        run,
        device,
        per=STEPS,
    )


@pytest.mark.parametrize("method", ["hqs", "admm"])
def test_step_deepinv(benchmark, setting, method):
    import deepinv as dinv

    device, size, _ = setting
    _, kernel, y = blurred(setting)
    physics = dinv.physics.BlurFFT(img_size=tuple(y.shape[1:]), filter=kernel, device=device)

    class Nothing(dinv.models.Denoiser):
        def forward(self, x, sigma, **_):
            return x

    model = dinv.optim.optim_builder(
        method.upper(),
        prior=dinv.optim.PnP(Nothing()),
        data_fidelity=dinv.optim.L2(),
        max_iter=STEPS,
        params_algo={"stepsize": 1.0, "g_param": 0.01, "lambda": 1.0},
    )
    asked = asked_at(setting, 3)
    work = f"one {method.upper()} step, FFT blur, {device}, {size}"
    measure(benchmark, work, "deepinv", lambda: model(y, physics), device, asked=asked, per=STEPS)


def test_step_simple_torch(benchmark, setting):
    device, size, _ = setting
    _, kernel, y = blurred(setting)
    padded = torch.zeros(size, size, device=device)
    padded[: kernel.shape[-2], : kernel.shape[-1]] = kernel[0, 0]
    otf = torch.fft.rfft2(torch.roll(padded, (-(kernel.shape[-2] // 2), -(kernel.shape[-1] // 2)), (0, 1)))
    back, power = otf.conj() * torch.fft.rfft2(y), otf.abs() ** 2

    def run():
        x = y
        for _ in range(STEPS):
            x = torch.fft.irfft2((torch.fft.rfft2(x) + back) / (1 + power), s=y.shape[-2:])
        return x

    measure(benchmark, f"one HQS step, FFT blur, {device}, {size}", "simple torch", run, device, per=STEPS)


# Downsampling by 4 ------------------------------------------------------------------------------------------------


def test_downsample_invrestore(benchmark, setting):
    device, size, y = setting
    operator = ir.operators.Downsample(4)
    measure(benchmark, f"downsample x4 bicubic, {device}, {size}", "invrestore", lambda: operator(y), device)


def test_downsample_deepinv(benchmark, setting):
    import deepinv as dinv

    device, size, y = setting
    physics = dinv.physics.Downsampling(
        img_size=tuple(y.shape[1:]), filter="bicubic", factor=4, device=device
    )
    work, asked = f"downsample x4 bicubic, {device}, {size}", asked_at(setting, 5)
    measure(benchmark, work, "deepinv", lambda: physics.A(y), device, asked=asked)


# Wavelet shrinkage ------------------------------------------------------------------------------------------------

LEVELS = 4


def test_wavelet_invrestore(benchmark, setting):
    device, size, y = setting
    prior = ir.priors.Wavelet("db4", lam=0.1, levels=LEVELS)
    measure(benchmark, f"wavelet db4 shrink, {device}, {size}", "invrestore", lambda: prior.prox(y), device)


def test_wavelet_pywavelets(benchmark, setting):
    import pywt

    device, size, y = setting
    if device != "cpu":
        pytest.skip("PyWavelets runs on the CPU")
    array = y[0].numpy()

    def run():
        approximation, *details = pywt.wavedec2(array, "db4", mode="periodization", level=LEVELS)
        shrunk = [tuple(pywt.threshold(band, 0.1, "soft") for band in level) for level in details]
        return pywt.waverec2([approximation, *shrunk], "db4", mode="periodization")

    work, asked = f"wavelet db4 shrink, {device}, {size}", asked_at(setting, 2)
    measure(benchmark, work, "PyWavelets", run, device, asked=asked)


def test_wavelet_deepinv(benchmark, setting):
    import deepinv as dinv

    device, size, y = setting
    model = dinv.models.WaveletDenoiser(level=LEVELS, wv="db4", device=device)
    work, asked = f"wavelet db4 shrink, {device}, {size}", asked_at(setting, 2)
    measure(benchmark, work, "deepinv (ptwt)", lambda: model(y, 0.1), device, asked=asked)


# Import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["invrestore", "torch", "deepinv"])
def test_import(benchmark, module):
    # Names load on first use: touch what every script touches, or the time would flatter us.
    code = {"invrestore": "import invrestore as ir; ir.solve, ir.priors, ir.operators, ir.load_image"}
    command = [sys.executable, "-W", "ignore", "-c", code.get(module, f"import {module}")]
    benchmark.group = "import"
    benchmark.extra_info.update(who=module, **({"asked": 1 / 1.2} if module == "torch" else {}))
    benchmark.pedantic(lambda: subprocess.run(command, check=True), rounds=5, warmup_rounds=1)
