"""Plug-and-play restoration on 500 random problems: sane ones get better, senseless ones end in words, never in NaN."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
import torch

import invrestore as ir
from invrestore.networks import UNet
from invrestore.priors import Denoiser
from invrestore.solvers import ADMM, FISTA, HQS, RED

SANE, SENSELESS, PART = 140, 360, 60
"""Problems of either kind, and problems in one test."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement with its truth, and a call of ``solve`` yet to make."""

    x: torch.Tensor
    operator: ir.Operator
    y: torch.Tensor
    network: Callable[..., torch.Tensor]
    lam: Any
    method: Callable[[], Any]
    options: dict[str, Any]

    def solve(self) -> ir.Solution:
        prior = Denoiser(self.network, lam=self.lam)
        return ir.solve(self.y, self.operator, prior, method=self.method(), **self.options)


@functools.cache
def shipped() -> torch.nn.Module:
    prior = ir.priors.load("denoiser")
    assert isinstance(prior, Denoiser)
    network = prior.network
    assert isinstance(network, torch.nn.Module)
    return network


@functools.cache
def photos() -> torch.Tensor:
    """The bundled photos at half their size, one below the other on 128 x 128 each."""
    folder = resources.files("invrestore") / "assets"
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return torch.cat([ir.load_image(folder / f"{n}.png")[..., :256:2, :256:2] for n in names])


def stranger(r: random.Random, channels: int, size: float) -> UNet:
    """A tiny network of random weights whose noise estimate has about the given size."""
    torch.manual_seed(r.randrange(2**31))
    network = UNet(channels=channels, widths=(4, 8), blocks=1).eval().requires_grad_(False)
    torch.nn.init.normal_(network.tail.weight, std=size)
    return network


def operators(
    r: random.Random, rng: torch.Generator, shape: tuple[int, int, int]
) -> dict[str, Callable[[], ir.Operator]]:
    """One of each kind that plug-and-play takes, for images of the given shape."""
    channels, height, width = shape
    ops = ir.operators
    found: dict[str, Callable[[], ir.Operator]] = {
        "identity": ops.Identity,
        "blur": lambda: ops.Blur(ir.kernels.gaussian(r.uniform(0.5, 2.0))),
        "motion": lambda: ops.Blur(ir.kernels.motion(5, rng=rng), padding="reflect"),
        "mask": lambda: ops.Mask(torch.rand(1, 1, height, width, generator=rng) < r.uniform(0.2, 0.9)),
        "downsample": lambda: ops.Downsample(r.choice((2, 3, 4)), input_shape=shape),
        "quantize": lambda: ops.Quantize(r.randint(2, 9)),
        "jpeg": lambda: ops.JPEG(r.randint(5, 60)),
        "square": lambda: ops.Callable(torch.square, input_shape=shape, output_shape=shape),
    }
    if channels == 3:
        found["grayscale"] = ops.Grayscale
        found["value"] = ops.Value
    return found


def power(r: random.Random, low: float, high: float) -> float:
    """10 to a random power."""
    return float(10 ** r.uniform(low, high))


def draw(seed: int, kinds: tuple[str, ...] | None = None) -> tuple[random.Random, torch.Generator, Case]:
    """A random measurement, with the settings that ``solve`` takes by itself."""
    r, rng = random.Random(seed), torch.Generator().manual_seed(seed)
    channels, batch, height, width = r.choice((1, 3)), r.randint(1, 2), r.randint(9, 24), r.randint(9, 24)
    top, left = r.randrange(100), r.randrange(100)
    first = r.randrange(3)
    x = photos()[first : first + batch, :channels, top : top + height, left : left + width].contiguous()
    found = operators(r, rng, (channels, *x.shape[-2:]))
    kind = r.choice([k for k in found if kinds is None or k in kinds])
    operator = found[kind]()
    rounds = kind in ("quantize", "jpeg")
    sigma = 0.0 if rounds else power(r, -2, -0.7)
    y = operator(x)
    y = y + sigma * torch.randn(y.shape, generator=rng)
    options = {"sigma": None if rounds else sigma}
    return r, rng, Case(x, operator, y, shipped(), None, lambda: "auto", options)


METHODS = {
    "hqs": ("identity", "blur", "motion", "mask", "downsample", "quantize", "jpeg", "grayscale"),
    "admm": ("identity", "blur", "mask", "downsample", "quantize", "grayscale"),
    "red": ("identity", "blur", "mask", "downsample", "jpeg"),
    "fista": ("identity", "blur", "motion", "mask", "downsample", "jpeg"),
}


@pytest.mark.parametrize("method", METHODS)
def test_sane_problems_get_finite_images_that_are_better_than_the_observation(method: str) -> None:
    gains = []
    for seed in range(SANE // len(METHODS)):
        _, _, case = draw(seed, METHODS[method])
        options = case.options if method == "hqs" else {**case.options, "max_steps": 10}
        case = dataclasses.replace(case, method=lambda: method, options=options)
        solution = case.solve()
        assert_finite(case, solution)
        seen = (
            case.operator.initial(case.y, tuple(case.x.shape[1:]))
            if isinstance(case.operator, ir.LinearOperator)
            else case.y
        )
        gains.append(float((ir.psnr(solution.x, case.x) - ir.psnr(seen, case.x)).mean()))
    assert sum(gains) / len(gains) > 1


def assert_finite(case: Case, solution: ir.Solution) -> None:
    """Image and residual hold neither NaN nor infinity, and nothing claims otherwise."""
    assert solution.x.isfinite().all()
    assert (case.operator(solution.x) - case.y).isfinite().all()
    for row in solution.history.values():
        assert row.isfinite().all()


def senseless(seed: int) -> Case:
    """A problem with numbers that nobody should pass, in places where solve and its methods take numbers."""
    r, rng, case = draw(seed)
    x, y, batch = case.x, case.y, len(case.x)
    network = shipped() if seed % 8 == 0 else stranger(r, r.choice((1, 3, x.shape[1])), power(r, -3, 0.5))

    def each(low: float, high: float) -> torch.Tensor:
        return torch.tensor([power(r, low, high) for _ in range(batch)])

    def or_zero(value: float) -> float:
        return 0.0 if r.random() < 0.1 else value

    first, floor, last = power(r, -8, 0.2), power(r, -8, 1), r.choice((None, or_zero(power(r, -8, 0.2))))
    weight, steps = or_zero(power(r, -8, 4)), r.randint(1, 8)
    momentum = r.choice((0.0, 1 - power(r, -6, 0)))
    rho, strength = or_zero(power(r, -12, 12)), or_zero(power(r, -8, 0.2))
    start, accelerate = or_zero(power(r, -6, 6)), r.random() < 0.5
    method = r.choice(
        (
            lambda: "auto",
            lambda: "hqs",
            lambda: "admm",
            lambda: "fista",
            lambda: "red",
            lambda: HQS(first=first, floor=floor, last=last, weight=weight, steps=steps, momentum=momentum),
            lambda: ADMM(rho=rho),
            lambda: FISTA(first_step=start, accelerate=accelerate),
            lambda: RED(strength=strength),
        )
    )
    iterated = isinstance(case.operator, ir.operators.Blur) and case.operator.padding != "circular"
    levels = [
        None,
        1.0,
        power(r, -8, 0),
        each(-6, 0),
        case.options["sigma"],
        25.0 if r.random() < 0.1 else 0.5,
    ]
    options = {
        # An exact constraint on an operator that only iterations invert is sane, and slow.
        "sigma": r.choice(levels if iterated else [*levels, 0.0]),
        "max_steps": r.randint(1, 8),
        "tol": r.choice((0.0, 1e-3, None, 1e9)),
        "init": power(r, -3, 15) * torch.randn(x.shape, generator=rng) if r.random() < 0.2 else None,
        "samples": 2 if r.random() < 0.05 else None,
    }
    lam = r.choice((None, 0.0, power(r, -12, 8), each(-12, 8), -1.0 if r.random() < 0.1 else 1e-30))
    if r.random() < 0.3:
        x, y = x.double(), y.double()
    return dataclasses.replace(case, x=x, y=y, network=network, lam=lam, method=method, options=options)


@pytest.mark.parametrize("part", range(SENSELESS // PART))
@pytest.mark.filterwarnings("ignore:.*outside the trained range", "ignore:conjugate_gradient")
def test_senseless_settings_give_a_finite_image_or_an_error_with_a_name(part: int) -> None:
    answers = 0
    for seed in range(1000 + part * PART, 1000 + (part + 1) * PART):
        case = senseless(seed)
        try:
            solution = case.solve()
        except ir.InvrestoreError as found:
            error = found
        else:
            assert_finite(case, solution)
            answers += 1
            continue
        if isinstance(error, ir.ConvergenceError):
            assert error.solution.x.isfinite().all()
        else:
            # What a setting made a NaN of should have been refused as a setting.
            assert "nan" not in str(error)
    assert answers > PART / 2


@pytest.mark.parametrize("method", ["hqs", "admm", "red", "fista"])
def test_a_weight_of_zero_leaves_the_data_alone(method: str) -> None:
    x = photos()[:2]
    blur = ir.operators.Blur(ir.kernels.gaussian(0.6))
    solution = ir.solve(blur(x), blur, Denoiser(shipped(), lam=0.0), sigma=0.02, method=method, max_steps=30)
    # Asked to remove nothing, the network still removes half a gray level.
    assert float(solution.history["misfit"][-1].max()) < 2 / 255
    assert_finite(Case(x, blur, blur(x), shipped(), 0.0, lambda: method, {}), solution)


def test_values_too_large_to_square_are_divergence() -> None:
    y, identity = photos()[:2], ir.operators.Identity()
    with pytest.raises(ir.ConvergenceError, match="NaN or infinity") as caught:
        ir.solve(y, identity, Denoiser(lambda x, sigma: 1e25 * x), sigma=0.1)
    assert torch.equal(caught.value.solution.x, y)
