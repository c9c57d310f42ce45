"""What is particular to TV: its certificate, its exact solutions, its options and its derivative."""

from __future__ import annotations

import math

import pytest
import torch

from invrestore import priors
from invrestore.operators import Gradient
from invrestore.priors import _tv

OPTIONS = [{}, {"coupled": False}, {"isotropic": False}]
options = pytest.mark.parametrize("kind", OPTIONS, ids=["coupled", "uncoupled", "anisotropic"])


def noise(*shape: int, rng: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def relative_gap(tv: priors.TV, x: torch.Tensor, v: torch.Tensor, dual: torch.Tensor) -> torch.Tensor:
    """P(x) - D(p) over P(x), from the definitions."""
    weight = torch.as_tensor(tv.weight, dtype=v.dtype).view(-1, 1, 1, 1)
    residual = v - weight * Gradient().adjoint(dual)
    primal = 0.5 * (x - v).square().flatten(1).sum(1) + tv.value(x)
    return (primal - 0.5 * (v.square() - residual.square()).flatten(1).sum(1)) / primal


@options
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-8])
@pytest.mark.parametrize("shape", [(3, 2, 16, 21), (2, 1, 1, 9)], ids=str)
def test_prox_reaches_its_duality_gap_in_every_image(
    kind: dict[str, bool], tol: float, shape: tuple[int, ...], rng: torch.Generator
) -> None:
    tv = priors.TV(torch.linspace(0.05, 0.4, shape[0], dtype=torch.float64), tol=tol, **kind)
    v = noise(*shape, rng=rng)
    x, dual = tv.prox_from(v, 1.0, None)
    gap = relative_gap(tv, x, v, dual)
    assert (gap >= -1e-12).all()
    assert (gap <= tol).all()
    # The dual field is feasible, so the gap is a certificate.
    unit = priors.TV(1.0, **kind)
    torch.testing.assert_close(unit.dual_prox(dual), dual, rtol=0, atol=1e-14)


def test_float32_reaches_a_gap_near_its_rounding(rng: torch.Generator) -> None:
    v = (100 + noise(1, 1, 20, 20, rng=rng)).float()
    x = priors.TV(0.3, tol=1e-6).prox(v)
    exact = priors.TV(0.3, tol=1e-10).prox(v.double())
    assert (x - exact).abs().max() < 5e-3


def test_a_step_is_lowered_by_the_weight_over_its_length() -> None:
    # 1-D and two flat pieces: both move by w / length.
    v = torch.tensor([0.0] * 4 + [1.0] * 2, dtype=torch.float64).view(1, 1, 1, 6)
    expected = torch.tensor([0.1] * 4 + [0.8] * 2, dtype=torch.float64).view(1, 1, 1, 6)
    torch.testing.assert_close(priors.TV(0.4, tol=1e-12).prox(v), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(priors.TV(0.4, tol=1e-12).prox(v.mT), expected.mT, rtol=0, atol=1e-6)


@options
def test_prox_equals_a_dense_solve_of_the_dual(kind: dict[str, bool], rng: torch.Generator) -> None:
    # An independent reference: projected gradient on the dual with the matrix of D, 20 000 plain steps.
    v, weight = noise(1, 2, 4, 3, rng=rng), 0.3
    eye = torch.eye(v.numel(), dtype=v.dtype).view(-1, *v.shape[1:])
    D = Gradient()(eye).flatten(1).T
    q = torch.zeros(D.shape[0], dtype=v.dtype)
    groups = q.view(2, 2, 12)  # direction, channel, pixel
    for _ in range(20_000):
        q += 0.125 * D @ (v.flatten() - D.T @ q)
        if kind.get("isotropic") is False:
            q.clamp_(-weight, weight)
        else:
            axes = (0,) if kind.get("coupled") is False else (0, 1)
            size = groups.square().sum(axes, keepdim=True).sqrt()
            groups /= (size / weight).clamp_min(1)
    expected = v - (D.T @ q).view_as(v)
    torch.testing.assert_close(priors.TV(weight, tol=1e-13, **kind).prox(v), expected, rtol=0, atol=2e-6)


def test_prox_equals_scikit_image_run_long(rng: torch.Generator) -> None:
    restoration = pytest.importorskip("skimage.restoration")
    v = noise(1, 1, 12, 15, rng=rng)
    theirs = restoration.denoise_tv_chambolle(v[0, 0].numpy(), weight=0.3, eps=0, max_num_iter=8_000)
    ours = priors.TV(0.3, tol=1e-11).prox(v)
    torch.testing.assert_close(ours[0, 0], torch.from_numpy(theirs), rtol=0, atol=1e-4)


@options
def test_prox_and_projection_split_a_vector_by_moreau(kind: dict[str, bool], rng: torch.Generator) -> None:
    # For h = lam |.|: q = prox_h(q) + dual_prox(q), and prox_h is shrinkage.
    q = noise(2, 4, 3, 5, rng=rng)
    lam = torch.tensor([0.3, 1.1], dtype=q.dtype)
    tv = priors.TV(lam, **kind)
    shrunk = q - tv.dual_prox(q)
    inside = tv._magnitude(q) <= lam.view(-1, 1, 1, 1)
    if kind.get("isotropic") is False:
        expected = q.sign() * (q.abs() - lam.view(-1, 1, 1, 1)).clamp_min(0)
        torch.testing.assert_close(shrunk, expected)
    else:
        zero = torch.where(inside, tv._magnitude(shrunk), 0.0)
        torch.testing.assert_close(zero, torch.zeros_like(zero))
        length = torch.where(inside, 0.0, tv._magnitude(q) - lam.view(-1, 1, 1, 1))
        torch.testing.assert_close(tv._magnitude(shrunk), length)


def test_value_adds_gradient_magnitudes() -> None:
    x = torch.tensor([[[[0.0, 3.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    # Gradients (4, 3), (-3, 0), (0, -4): down first, then right; the second channel is flat.
    for tv, expected in ((priors.TV(2.0), 24.0), (priors.TV(2.0, isotropic=False), 28.0)):
        assert tv.value(x).tolist() == pytest.approx([expected])
    both = x[:, :1].repeat(1, 2, 1, 1)
    assert priors.TV(1.0).value(both).item() == pytest.approx(12 * math.sqrt(2))
    assert priors.TV(1.0, coupled=False).value(both).item() == pytest.approx(24)


def test_coupled_edges_fall_on_one_place_and_uncoupled_channels_are_independent(rng: torch.Generator) -> None:
    v = noise(1, 3, 9, 8, rng=rng)
    apart = torch.cat([priors.TV(0.3, tol=1e-10).prox(v[:, c : c + 1]) for c in range(3)], 1)
    torch.testing.assert_close(priors.TV(0.3, coupled=False, tol=1e-11).prox(v), apart, rtol=0, atol=1e-4)
    assert (priors.TV(0.3, tol=1e-10).prox(v) - apart).abs().max() > 1e-2


@options
def test_weight_zero_keeps_the_image_and_a_huge_one_leaves_its_mean(
    kind: dict[str, bool], rng: torch.Generator
) -> None:
    v = noise(3, 2, 8, 11, rng=rng)
    x = priors.TV(torch.tensor([0.0, 1e6, 0.2], dtype=v.dtype), tol=1e-10, **kind).prox(v)
    assert torch.equal(x[0], v[0])
    torch.testing.assert_close(x[1], v[1].mean((1, 2), keepdim=True).expand_as(v[1]), rtol=0, atol=1e-4)
    torch.testing.assert_close(x[2], priors.TV(0.2, tol=1e-10, **kind).prox(v[2:])[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2)], ids=str)
def test_tiny_and_constant_images_are_handled(size: tuple[int, int], rng: torch.Generator) -> None:
    flat = torch.full((2, 3, *size), 0.3)
    torch.testing.assert_close(priors.TV(0.5).prox(flat), flat, rtol=0, atol=1e-7)
    assert priors.TV(0.5).prox(noise(2, 3, *size, rng=rng)).isfinite().all()


def test_nan_comes_back_at_once_instead_of_running_to_the_limit() -> None:
    v = torch.zeros(2, 1, 8, 8)
    v[0, 0, 3, 3] = torch.nan
    x = priors.TV(0.1).prox(v)
    assert x[0].isnan().any()
    assert torch.equal(x[1], v[1])


def test_bands_of_rows_do_not_change_the_answer(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = noise(2, 3, 23, 10, rng=rng)
    whole = priors.TV(0.2, tol=1e-6).prox(v)
    for band in (1, 70, 200, 600):
        monkeypatch.setattr(_tv, "_BAND", band)
        torch.testing.assert_close(priors.TV(0.2, tol=1e-6).prox(v), whole, rtol=0, atol=1e-12)


def test_the_same_call_gives_the_same_answer_whatever_came_before(rng: torch.Generator) -> None:
    tv, v = priors.TV(0.2), noise(1, 1, 16, 16, rng=rng)
    first = tv.prox(v)
    tv.prox(noise(1, 1, 16, 16, rng=rng))
    assert torch.equal(tv.prox(v), first)


def test_a_warm_start_reaches_the_same_image_in_fewer_steps(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    step = _tv._Sweep.step
    monkeypatch.setattr(_tv._Sweep, "step", lambda self, *a: (taken.append(1), step(self, *a))[1])
    tv, v = priors.TV(0.3, tol=1e-8), noise(2, 1, 16, 16, rng=rng)
    x, dual = tv.prox_from(v, 1.0, None)
    cold = len(taken)
    kept = dual.clone()
    again, _ = tv.prox_from(v, 1.0, dual)
    assert len(taken) - cold < cold / 4
    torch.testing.assert_close(again, x, rtol=0, atol=2e-3)
    assert torch.equal(dual, kept)
    taken.clear()
    tv.prox_from(v, 1.0, dual, steps=5)
    assert len(taken) == 5


@options
def test_prox_differentiates_in_image_weight_and_step(kind: dict[str, bool], rng: torch.Generator) -> None:
    # A fixed large number of steps makes the solution smooth enough for finite differences.
    v = noise(2, 2, 4, 5, rng=rng).requires_grad_()
    lam = torch.tensor([0.1, 0.4], dtype=v.dtype, requires_grad=True)
    step = torch.tensor(0.8, dtype=v.dtype, requires_grad=True)

    def prox(v: torch.Tensor, lam: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return priors.TV(lam, **kind).prox_from(v, step, None, steps=2500)[0]

    assert torch.autograd.gradcheck(prox, (v, lam, step), atol=1e-4, fast_mode=True)


def test_gradients_pass_images_of_weight_zero_unchanged(rng: torch.Generator) -> None:
    v = noise(2, 1, 4, 4, rng=rng).requires_grad_()
    x = priors.TV(torch.tensor([0.0, 0.2], dtype=v.dtype)).prox(v)
    (grad,) = torch.autograd.grad(x.sum(), v)
    torch.testing.assert_close(grad, torch.ones_like(v), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: priors.TV(-0.1), ValueError, r"TV: expected lam >= 0 and finite, got -0.1"),
        (lambda: priors.TV(math.nan), ValueError, r"TV: expected lam >= 0 and finite, got nan"),
        (lambda: priors.TV(0.1, tol=0.0), ValueError, r"TV: expected tol > 0"),
        (lambda: priors.TV("0.1"), TypeError, r"TV: expected lam as a number or tensor, got str"),
        (
            lambda: priors.TV().prox(torch.zeros(1, 1, 4, 4)),
            TypeError,
            r"expected a weight lam, got lam=None",
        ),
        (lambda: priors.TV(0.1).prox(torch.zeros(1, 1, 4, 4).byte()), TypeError, r"8-bit images become"),
        (
            lambda: priors.TV(torch.ones(3)).prox(torch.zeros(2, 1, 4, 4)),
            ValueError,
            r"lam of shape \(\) or \(2,\)",
        ),
        (
            lambda: priors.TV(torch.ones(3)).value(torch.zeros(2, 1, 4, 4)),
            ValueError,
            r"lam of shape \(\) or \(2,\)",
        ),
        (
            lambda: priors.TV(0.1).prox(torch.zeros(2, 1, 4, 4), torch.ones(3)),
            ValueError,
            r"step of shape \(\) or \(2,\)",
        ),
        (
            lambda: priors.TV(0.1).prox_from(torch.zeros(2, 1, 4, 4), 1.0, torch.zeros(2, 1, 4, 4)),
            ValueError,
            r"dual of shape \(B, 2, 4, 4\)",
        ),
        (
            lambda: priors.TV(0.1).prox_from(torch.zeros(2, 1, 4, 4), 1.0, None, steps=0),
            ValueError,
            r"expected steps >= 1",
        ),
    ],
)
def test_bad_input_is_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_lam_works_by_position_and_by_name() -> None:
    assert priors.TV(0.05).lam == priors.TV(lam=0.05).lam == 0.05
    assert priors.TV().with_lam(0.2).lam == 0.2


def test_giving_up_is_announced(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tv, "_LIMIT", 10)
    with pytest.warns(RuntimeWarning, match="relative gap 1e-08 not reached in 10 steps"):
        priors.TV(0.5, tol=1e-8).prox(noise(1, 1, 16, 16, rng=rng))
