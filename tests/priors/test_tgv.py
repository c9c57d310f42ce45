"""What is particular to TGV: affine images are free, and its adjoint, gap and derivatives hold."""

from __future__ import annotations

import math

import pytest
import torch

from invrestore import priors
from invrestore.priors import _tgv


def ramp(height: int, width: int) -> torch.Tensor:
    rows = torch.arange(height, dtype=torch.float64)[:, None]
    return (0.1 * rows - 0.07 * torch.arange(width, dtype=torch.float64)).expand(1, 1, -1, -1)


@pytest.mark.parametrize("size", [(6, 9), (1, 8), (8, 1), (2, 2)], ids=str)
def test_affine_images_cost_nothing_and_stay(size: tuple[int, int]) -> None:
    x = ramp(*size)
    # "Nothing" is up to tol times TV(x).
    assert priors.TGV(1.0).value(x).item() <= 1e-4 * priors.TV(1.0).value(x).item() + 1e-12
    torch.testing.assert_close(priors.TGV(0.3).prox(x), x, rtol=0, atol=5e-3)


def test_value_is_below_tv_and_falls_with_the_ratio() -> None:
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[..., 4:] = 1.0
    x[..., :3, :] += 0.5
    tv = priors.TV(0.5).value(x)
    assert priors.TGV(0.5).value(x) <= tv * (1 + 1e-3)
    assert priors.TGV(0.5, ratio=0.5).value(x) < 0.97 * tv


def test_value_and_prox_scale_with_the_image(rng: torch.Generator) -> None:
    v = torch.rand(1, 1, 8, 7, generator=rng, dtype=torch.float64)
    tgv = priors.TGV(0.2, tol=1e-5)
    torch.testing.assert_close(tgv.value(255 * v), 255 * tgv.value(v), rtol=1e-3, atol=0)
    scaled = priors.TGV(0.2 * 255, tol=1e-5).prox(255 * v) / 255
    torch.testing.assert_close(scaled, tgv.prox(v), rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", [(6, 9), (1, 8), (8, 1), (2, 2), (1, 1), (3, 3)], ids=str)
def test_symmetrised_differences_have_their_adjoint_and_norm(
    size: tuple[int, int], rng: torch.Generator
) -> None:
    w = torch.randn(2, 2, 3, *size, generator=rng, dtype=torch.float64)
    s = torch.randn(2, 3, 3, *size, generator=rng, dtype=torch.float64)
    torch.testing.assert_close((_tgv._E(w) * s).sum(), (w * _tgv._ET(s)).sum(), rtol=1e-12, atol=1e-12)
    assert _tgv._E(w).norm() <= math.sqrt(8) * w.norm()


def test_tgv_beats_tv_on_a_noisy_ramp(rng: torch.Generator) -> None:
    clean = ramp(16, 16)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=rng, dtype=clean.dtype)

    def best(make: type[priors.TV] | type[priors.TGV]) -> float:
        return min(float((make(lam).prox(noisy) - clean).square().mean()) for lam in (0.2, 0.4))

    assert best(priors.TGV) < 0.6 * best(priors.TV)


def test_prox_differentiates_through_its_steps(rng: torch.Generator) -> None:
    v = torch.rand(1, 1, 3, 3, generator=rng, dtype=torch.float64).requires_grad_()
    lam = torch.tensor(0.1, dtype=v.dtype, requires_grad=True)

    def prox(v: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
        return priors.TGV(lam, tol=1e-5).prox(v)

    # Finite differences see the solution only as exactly as the gap makes it.
    assert torch.autograd.gradcheck(prox, (v, lam), eps=1e-4, atol=2e-2, fast_mode=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.TGV(-1.0), r"TGV: expected lam >= 0 and finite, got -1.0"),
        (lambda: priors.TGV(0.1, ratio=0.0), r"TGV: expected ratio > 0 and finite, got 0.0"),
        (lambda: priors.TGV(0.1, tol=-1.0), r"TGV: expected tol > 0 and finite, got -1.0"),
        (lambda: priors.TGV(torch.ones(3)).prox(torch.zeros(2, 1, 4, 4)), r"lam of shape \(\) or \(2,\)"),
        (
            lambda: priors.TGV(0.1).prox(torch.zeros(2, 1, 4, 4), torch.ones(3)),
            r"step of shape \(\) or \(2,\)",
        ),
    ],
)
def test_bad_input_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_giving_up_is_announced(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tgv, "_LIMIT", 5)
    with pytest.warns(RuntimeWarning, match=r"TGV.prox: relative gap 0.0001 not reached in 5 steps"):
        priors.TGV(0.5).prox(torch.rand(1, 1, 9, 9, generator=rng))
