"""The wavelet prior: exact proximal maps, honest capabilities, a weight from Stein's risk."""

from __future__ import annotations

import math

import pytest
import torch

from invrestore.errors import CapabilityError, DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.operators import WaveletTransform
from invrestore.priors import Capability, Wavelet

SIZES = [(16, 16), (17, 23), (1, 9), (5, 4), (131, 140)]


def random(shape: tuple[int, ...], rng: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=rng, dtype=dtype)


def objective(prior: Wavelet, x: torch.Tensor, v: torch.Tensor, step: float) -> torch.Tensor:
    return step * prior.value(x) + 0.5 * (x - v).square().flatten(1).sum(1)


@pytest.fixture
def picture() -> torch.Tensor:
    """Edges and a ramp, 3 x 96 x 101, without noise."""
    i, j = torch.meshgrid(torch.arange(96.0), torch.arange(101.0), indexing="ij")
    disk = ((i - 40) ** 2 + (j - 60) ** 2 < 800).double()
    bars = (torch.sin(j / 4) > 0).double() * (i > 60)
    return torch.stack([disk, 0.5 * bars + 0.3, (i + j).double() / 200])[None]


# Value and prox


def test_value_is_the_weighted_sum_of_detail_magnitudes(rng: torch.Generator) -> None:
    x = random((2, 3, 16, 24), rng)
    q = WaveletTransform("db4", levels=2)(x).abs()
    q[..., :4, :6] = 0
    lam = torch.tensor([0.3, 2.0], dtype=torch.float64)
    torch.testing.assert_close(Wavelet("db4", lam=lam, levels=2).value(x), lam * q.sum((1, 2, 3)))


def test_the_coarse_picture_is_free() -> None:
    x = torch.full((1, 1, 32, 32), 0.7, dtype=torch.float64)
    prior = Wavelet(lam=1.0)
    assert float(prior.value(x)) < 1e-12
    torch.testing.assert_close(prior.prox(x, 5.0), x)


@pytest.mark.parametrize("threshold", ["soft", "hard"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["haar", "db4", "sym8", "dmey"])
def test_prox_shrinks_each_detail_coefficient(
    name: str, size: tuple[int, int], threshold: str, rng: torch.Generator
) -> None:
    v = random((2, 2, *size), rng)
    W = WaveletTransform(name)
    q, p = W(v), W(Wavelet(name, lam=0.4, threshold=threshold).prox(v, 1.5))  # type: ignore[arg-type]
    for before, after in zip(W.split(q), W.split(p), strict=True):
        if threshold == "soft":
            expected = before.sign() * (before.abs() - 0.6).clamp_min(0)
        else:
            expected = before * (before.abs() > math.sqrt(1.2))
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_prox_beats_every_nearby_point(size: tuple[int, int], rng: torch.Generator) -> None:
    v = random((3, 2, *size), rng)
    prior = Wavelet("db3", lam=0.3)
    x = prior.prox(v, 0.8)
    best = objective(prior, x, v, 0.8)
    for scale in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            assert (objective(prior, x + scale * random(x.shape, rng), v, 0.8) >= best - 1e-12).all()
    for t in (0.0, 0.5, 0.999, 1.001, 1.5):
        assert (objective(prior, v + t * (x - v), v, 0.8) >= best - 1e-12).all()


def test_prox_uses_the_whole_weight(rng: torch.Generator) -> None:
    # lam and step enter as their product, once: halving one and doubling the other changes nothing, and each
    # half of a Haar pair moves by exactly lam * step / sqrt(2).
    v = random((1, 1, 16, 16), rng)
    one = Wavelet("haar", lam=0.2).prox(v, 1.0)
    torch.testing.assert_close(Wavelet("haar", lam=0.1).prox(v, 2.0), one, rtol=0, atol=1e-14)
    assert not torch.allclose(Wavelet("haar", lam=0.02).prox(v, 1.0), one)
    pair = torch.tensor([[[[3.0, 1.0]]]], dtype=torch.float64)
    out = Wavelet("haar", lam=0.25 * math.sqrt(2)).prox(pair, 2.0)
    torch.testing.assert_close(out, torch.tensor([[[[2.5, 1.5]]]], dtype=torch.float64))


@pytest.mark.parametrize("step", [0.0, 1e-9])
def test_prox_tends_to_the_identity(step: float, rng: torch.Generator) -> None:
    v = random((1, 2, 17, 12), rng)
    torch.testing.assert_close(Wavelet(lam=1.0).prox(v, step), v, rtol=0, atol=1e-7)


def test_prox_is_firmly_nonexpansive(rng: torch.Generator) -> None:
    prior = Wavelet("sym4", lam=0.5)
    v, w = random((2, 4, 1, 15, 18), rng)
    p = prior.prox(v) - prior.prox(w)
    assert (p.square().flatten(1).sum(1) <= (p * (v - w)).flatten(1).sum(1) + 1e-12).all()


def test_moreau_splits_a_point_into_prox_and_dual_prox(rng: torch.Generator) -> None:
    prior = Wavelet("db2", lam=0.3, levels=2)
    K = prior.analysis((1, 13, 16))
    v = random((2, 1, 13, 16), rng)
    torch.testing.assert_close(prior.prox(v) + K.adjoint(prior.dual_prox(K(v))), v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shifts", [1, 4])
def test_dual_prox_gives_the_value_as_a_maximum(shifts: int, rng: torch.Generator) -> None:
    # g(x) = max over the dual ball of <K x, q>, reached by projecting a far multiple of K x.
    prior = Wavelet("db2", lam=torch.tensor([0.3, 0.7], dtype=torch.float64), shifts=shifts, frame=True)
    x = random((2, 2, 12, 9), rng)
    Kx = prior.analysis((2, 12, 9))(x)
    q = prior.dual_prox(1e9 * Kx)
    torch.testing.assert_close((q * Kx).flatten(1).sum(1), prior.value(x))
    torch.testing.assert_close(prior.dual_prox(q), q)


def test_each_image_of_a_batch_has_its_own_weight_and_step(rng: torch.Generator) -> None:
    v = random((3, 2, 20, 17), rng)
    lam = torch.tensor([0.0, 0.2, 0.5])
    step = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    for threshold in ("soft", "hard"):
        together = Wavelet(lam=lam, threshold=threshold).prox(v, step)  # type: ignore[arg-type]
        for i in range(3):
            prior = Wavelet(lam=float(lam[i]), threshold=threshold)  # type: ignore[arg-type]
            alone = prior.prox(v[i : i + 1], float(step[i]))
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_types_are_kept_and_computed_in_float32(dtype: torch.dtype, rng: torch.Generator) -> None:
    v = random((2, 3, 33, 40), rng).to(dtype)
    for lam in (0.3, torch.tensor([0.3, 0.3], dtype=torch.float64)):
        prior = Wavelet(lam=lam)
        out = prior.prox(v)
        assert out.dtype == dtype
        tolerance = 2e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(out.double(), prior.prox(v.double()), rtol=0, atol=tolerance)
        torch.testing.assert_close(prior.value(v).double(), prior.value(v.double()), rtol=1e-4, atol=0)


def test_complex_coefficients_shrink_in_magnitude(rng: torch.Generator) -> None:
    v = torch.complex(random((1, 1, 12, 14), rng), random((1, 1, 12, 14), rng))
    v[0, 0, :4] = 0
    prior = Wavelet("haar", lam=0.5)
    K = prior.analysis((1, 12, 14))
    torch.testing.assert_close(prior.prox(v) + K.adjoint(prior.dual_prox(K(v))), v, rtol=0, atol=1e-12)
    turned = prior.prox(v * 1j)
    torch.testing.assert_close(turned, 1j * prior.prox(v), rtol=0, atol=1e-12)


def test_gradients_flow_to_image_weight_and_step(rng: torch.Generator) -> None:
    v = random((2, 1, 6, 7), rng).requires_grad_(True)
    lam = torch.tensor([0.3, 0.1], dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for shifts in (1, 2):
        prior = Wavelet("db2", shifts=shifts)
        assert torch.autograd.gradcheck(lambda a, b, c: prior.with_lam(b).prox(a, c), (v, lam, step))  # noqa: B023
        prior = Wavelet("db2", shifts=shifts, frame=True)
        assert torch.autograd.gradcheck(lambda a, b: prior.with_lam(b).value(a), (v, lam))  # noqa: B023


def test_prox_leaves_its_argument_alone(rng: torch.Generator) -> None:
    v = random((1, 1, 16, 16), rng)
    before = v.clone()
    Wavelet(lam=0.0).prox(v)
    Wavelet(lam=0.0).dual_prox(v)
    assert torch.equal(v, before)


# Cycle spinning


def test_the_value_of_a_frame_is_the_mean_over_the_shifts(rng: torch.Generator) -> None:
    x = random((2, 1, 15, 18), rng)
    offsets = [(0, 0), (1, 1), (0, 1)]
    single = Wavelet("db2", lam=0.4)
    mean = sum(single.value(torch.roll(x, o, (-2, -1))) for o in offsets) / 3
    torch.testing.assert_close(Wavelet("db2", lam=0.4, shifts=3, frame=True).value(x), mean)


def test_prox_with_shifts_is_the_average_of_the_shifted_proximal_maps(rng: torch.Generator) -> None:
    v = random((2, 1, 15, 18), rng)
    single = Wavelet("db2", lam=0.4)
    turned = torch.roll(single.prox(torch.roll(v, (1, 1), (-2, -1)), 0.5), (-1, -1), (-2, -1))
    expected = (single.prox(v, 0.5) + turned) / 2
    torch.testing.assert_close(Wavelet("db2", lam=0.4, shifts=2).prox(v, 0.5), expected)


def test_four_shifts_commute_with_any_shift_at_one_level(rng: torch.Generator) -> None:
    v = random((1, 1, 16, 20), rng)
    prior = Wavelet("db2", lam=0.4, levels=1, shifts=4)
    moved = prior.prox(torch.roll(v, (3, 5), (-2, -1)))
    torch.testing.assert_close(moved, torch.roll(prior.prox(v), (3, 5), (-2, -1)))


def test_spinning_denoises_better_than_one_transform(picture: torch.Tensor, rng: torch.Generator) -> None:
    y = picture + 0.1 * random(picture.shape, rng)
    errors = [float((Wavelet(lam=0.2, shifts=k).prox(y) - picture).square().mean()) for k in (1, 4, 16)]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < errors[1]


def test_capabilities_say_what_holds() -> None:
    value, prox, analysis = Capability.VALUE, Capability.PROX, Capability.ANALYSIS
    assert Wavelet().capabilities == {value, prox, analysis}
    assert Wavelet(shifts=2).capabilities == {prox}
    assert Wavelet(shifts=2, frame=True).capabilities == {value, analysis}
    assert Wavelet(frame=True).capabilities == {value, prox, analysis}
    assert Wavelet(threshold="hard").capabilities == {value, prox}
    assert Wavelet().is_convex
    assert not Wavelet(threshold="hard").is_convex
    assert Wavelet(shifts=2).with_lam(0.3).capabilities == {prox}


def test_what_a_variant_cannot_do_is_refused() -> None:
    v = torch.rand(1, 1, 8, 8)
    with pytest.raises(CapabilityError, match=r"Wavelet.prox: expected frame=False or shifts=1, got .*pdhg"):
        Wavelet(lam=0.1, shifts=4, frame=True).prox(v)
    with pytest.raises(CapabilityError, match=r"Wavelet.value: .* with value, got one with prox"):
        Wavelet(lam=0.1, shifts=4).value(v)
    with pytest.raises(CapabilityError, match=r"Wavelet: expected threshold='soft' with frame=True"):
        Wavelet(threshold="hard", shifts=4, frame=True)
    hard = Wavelet(lam=0.1, threshold="hard")
    with pytest.raises(CapabilityError, match=r"Wavelet.analysis: expected a prior with analysis"):
        hard.analysis((1, 8, 8))
    with pytest.raises(CapabilityError, match=r"Wavelet.analysis: expected a prior with analysis"):
        hard.dual_prox(v)
    with pytest.raises(CapabilityError, match=r"Wavelet.sure_lam: expected threshold='soft'"):
        hard.sure_lam(v, 0.1)


def test_the_average_of_proximal_maps_is_firmly_nonexpansive(rng: torch.Generator) -> None:
    prior = Wavelet("db2", lam=0.5, shifts=4)
    v, w = random((2, 4, 1, 15, 18), rng)
    p = prior.prox(v) - prior.prox(w)
    assert (p.square().flatten(1).sum(1) <= (p * (v - w)).flatten(1).sum(1) + 1e-12).all()


# The weight


def risk(prior: Wavelet, y: torch.Tensor, x_true: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    return (prior.with_lam(lam).prox(y) - x_true).square().flatten(1).sum(1)


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.3])
def test_sure_finds_nearly_the_best_weight(sigma: float, picture: torch.Tensor, rng: torch.Generator) -> None:
    y = picture + sigma * random(picture.shape, rng)
    prior = Wavelet()
    lam = prior.sure_lam(y, sigma)
    assert lam.shape == (1,)
    grid = [torch.tensor([sigma * k / 20], dtype=torch.float64) for k in range(1, 90)]
    best = min(float(risk(prior, y, picture, g)) for g in grid)
    assert float(risk(prior, y, picture, lam)) < 1.03 * best


def test_sure_minimises_the_formula_over_all_thresholds(rng: torch.Generator) -> None:
    y = random((2, 1, 8, 9), rng) * torch.tensor([1.0, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    sigma = torch.tensor([1.0, 0.8], dtype=torch.float64)
    prior = Wavelet("haar", levels=2)
    W = WaveletTransform("haar", levels=2)
    c = torch.cat([part.flatten(1) for part in W.split(W(y))], 1).abs()
    n = c.shape[1]
    chosen = prior.sure_lam(y, sigma)

    def sure(i: int, t: float) -> float:
        kept = float((c[i] <= t + 1e-12).sum())
        return float(c[i].clamp_max(t).square().sum() + sigma[i] ** 2 * (n - 2 * kept))

    for i in range(2):
        top = float(sigma[i]) * math.sqrt(2 * math.log(n))
        levels = [0.0, *c[i].tolist(), *torch.linspace(0, top, 500).tolist()]
        brute = min(sure(i, t) for t in levels if t <= top)
        assert sure(i, float(chosen[i])) == pytest.approx(brute, abs=1e-9)


def test_sure_of_an_image_does_not_depend_on_its_neighbours(rng: torch.Generator) -> None:
    y = random((3, 2, 17, 21), rng)
    sigma = torch.tensor([0.1, 0.5, 1.0])
    together = Wavelet(shifts=2).sure_lam(y, sigma)
    alone = torch.cat([Wavelet(shifts=2).sure_lam(y[i : i + 1], float(sigma[i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-9)


def test_sure_without_noise_or_without_details_is_zero() -> None:
    y = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    assert Wavelet().sure_lam(y, 0.0).tolist() == [0.0, 0.0]
    assert Wavelet().sure_lam(y[..., :1, :1], 0.5).tolist() == [0.0, 0.0]


def test_a_search_starts_at_the_noise_level() -> None:
    sigma = torch.tensor([0.1, 0.2], dtype=torch.float64)
    torch.testing.assert_close(Wavelet().first_lam(sigma), sigma)
    hard = Wavelet(threshold="hard")
    torch.testing.assert_close((2 * hard.first_lam(sigma)).sqrt(), 3 * sigma)


# Refusals


def test_bad_options_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"Wavelet: expected a wavelet out of .*got 'db44'"):
        Wavelet("db44")
    with pytest.raises(UnknownNameError, match=r"Wavelet: expected a threshold out of .*got 'firm'"):
        Wavelet(threshold="firm")  # type: ignore[arg-type]
    with pytest.raises(RangeError, match=r"Wavelet: expected lam >= 0 and finite, got -1"):
        Wavelet(lam=-1.0)
    with pytest.raises(RangeError, match=r"Wavelet: expected levels >= 1, got 0"):
        Wavelet(levels=0)
    with pytest.raises(RangeError, match=r"Wavelet: expected shifts >= 1, got 0"):
        Wavelet(shifts=0)
    with pytest.raises(DTypeError, match=r"Wavelet: expected wavelet as a name, got NoneType"):
        Wavelet(None)  # type: ignore[arg-type]


def test_bad_images_steps_and_weights_are_refused() -> None:
    prior = Wavelet(lam=0.1)
    with pytest.raises(ShapeError, match=r"Wavelet.prox: expected v of shape .*Add the batch axis"):
        prior.prox(torch.rand(3, 8, 8))
    with pytest.raises(DTypeError, match=r"Wavelet.value: expected x of a floating-point type"):
        prior.value(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(RangeError, match=r"Wavelet.prox: expected step >= 0 and finite"):
        prior.prox(torch.rand(1, 3, 8, 8), -1.0)
    with pytest.raises(ShapeError, match=r"Wavelet.prox: expected lam of shape \(\) or \(2,\)"):
        Wavelet(lam=torch.ones(3)).prox(torch.rand(2, 1, 8, 8))
    with pytest.raises(ShapeError, match=r"Wavelet.prox: expected step of shape \(\) or \(2,\)"):
        prior.prox(torch.rand(2, 1, 8, 8), torch.ones(3))
    with pytest.raises(ShapeError, match=r"Wavelet.dual_prox: expected q of shape"):
        Wavelet(lam=0.1, shifts=2, frame=True).dual_prox(torch.rand(1, 3, 1, 8, 8))
    with pytest.raises(RangeError, match=r"Wavelet.sure_lam: expected sigma in \[0, 1\], got 25"):
        prior.sure_lam(torch.rand(1, 1, 8, 8), 25.0)
    with pytest.raises(CapabilityError, match=r"Wavelet: expected a weight lam, got lam=None"):
        Wavelet().prox(torch.rand(1, 1, 8, 8))
