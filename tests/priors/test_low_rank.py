"""Low rank: exact spectral proximal maps, patch groups against a plain reading of the paper, completion."""

from __future__ import annotations

import math

import pytest
import torch

from invrestore import solve
from invrestore.errors import CapabilityError, DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.operators import Identity, Mask
from invrestore.priors import Capability, LowRank, LowRankCompletion
from invrestore.priors._patch_groups import GroupSettings, shrink_spectrum, weighted_nuclear_denoise

SIZES = [(8, 8), (7, 12), (12, 7), (1, 9), (9, 1)]


def random(shape: tuple[int, ...], rng: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=rng, dtype=dtype)


def psnr(x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return -10 * (x - truth).square().flatten(1).mean(1).log10()


@pytest.fixture
def picture() -> torch.Tensor:
    """Repeating bars, a disk and a ramp, (1, 3, 40, 45), without noise."""
    i, j = torch.meshgrid(torch.arange(40.0), torch.arange(45.0), indexing="ij")
    disk = ((i - 18) ** 2 + (j - 24) ** 2 < 120).double()
    bars = (torch.sin(j / 2 + i / 5) > 0).double() * 0.7 + 0.1
    return torch.stack([disk, bars, (i + j).double() / 84])[None]


# Spectra


@pytest.mark.parametrize("size", SIZES)
def test_nuclear_value_is_the_weighted_sum_of_singular_values(
    size: tuple[int, int], rng: torch.Generator
) -> None:
    x = random((2, 3, *size), rng)
    lam = torch.tensor([0.3, 2.0], dtype=torch.float64)
    expected = [lam[b] * sum(torch.linalg.matrix_norm(x[b, c], "nuc") for c in range(3)) for b in range(2)]
    torch.testing.assert_close(LowRank(lam, kind="nuclear").value(x), torch.stack(expected))


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("size", SIZES)
def test_prox_soft_thresholds_the_singular_values(
    size: tuple[int, int], kept: int, rng: torch.Generator
) -> None:
    v = random((2, 2, *size), rng)
    lam = torch.tensor([0.4, 1.3], dtype=torch.float64)
    prior = LowRank(lam, kind="truncated", rank=kept) if kept else LowRank(lam, kind="nuclear")
    U, s, Vt = torch.linalg.svd(v, full_matrices=False)
    shrunk = (s - 1.5 * lam.view(-1, 1, 1)).clamp_min(0)
    shrunk[..., :kept] = s[..., :kept]
    torch.testing.assert_close(prior.prox(v, 1.5), U @ torch.diag_embed(shrunk) @ Vt)


def test_joint_takes_the_channels_side_by_side(rng: torch.Generator) -> None:
    v = random((2, 3, 5, 7), rng)
    wide = torch.cat(list(v.unbind(1)), -1)[:, None]
    joint, plain = LowRank(0.5, kind="nuclear", joint=True), LowRank(0.5, kind="nuclear")
    torch.testing.assert_close(joint.value(v), plain.value(wide))
    torch.testing.assert_close(torch.cat(list(joint.prox(v).unbind(1)), -1)[:, None], plain.prox(wide))


def test_truncated_prox_beats_every_other_choice_of_free_values(rng: torch.Generator) -> None:
    v, t, kept = random((1, 1, 5, 6), rng), 0.6, 2
    prior = LowRank(t, kind="truncated", rank=kept)

    def cost(x: torch.Tensor) -> torch.Tensor:
        return prior.value(x) + 0.5 * (x - v).square().sum((1, 2, 3))

    best = cost(prior.prox(v))
    U, s, Vt = torch.linalg.svd(v, full_matrices=False)
    for first in range(5):
        for second in range(first):
            shrunk = (s - t).clamp_min(0)
            shrunk[..., [first, second]] = s[..., [first, second]]
            assert best <= cost(U @ torch.diag_embed(shrunk) @ Vt) + 1e-12
    nearby = prior.prox(v) + torch.cat([scale * random((200, 1, 5, 6), rng) for scale in (1e-3, 0.1, 1.0)])
    assert (best <= cost(nearby) + 1e-12).all()


def test_an_eighth_of_the_shorter_side_is_free_by_default(rng: torch.Generator) -> None:
    v = random((1, 1, 24, 33), rng)
    asked = LowRank(0.5, kind="truncated", rank=3)
    torch.testing.assert_close(LowRank(0.5, kind="truncated").prox(v), asked.prox(v))


@pytest.mark.parametrize("rank", [None, 0, 2])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_spectral_maps_differentiate_in_the_matrix_and_in_the_level(
    shape: tuple[int, int], rank: int | None, rng: torch.Generator
) -> None:
    x = 3 * random((2, *shape), rng)
    level = torch.tensor([0.3, 0.9], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, level: shrink_spectrum(x, level, rank=rank), (x.requires_grad_(), level.requires_grad_())
    )


@pytest.mark.parametrize("rank", [None, 0])
def test_spectral_gradients_are_finite_where_singular_values_coincide_or_vanish(rank: int | None) -> None:
    for x in (torch.eye(4, 6), torch.zeros(4, 6), torch.ones(4, 6)):
        x = (3 * x).double().requires_grad_()
        out = shrink_spectrum(x, torch.tensor(0.5).double(), rank=rank)
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert grad.isfinite().all()


def test_a_multiple_of_the_identity_has_the_derivative_of_the_scalar_map() -> None:
    x = (3 * torch.eye(4)).double().requires_grad_()
    (grad,) = torch.autograd.grad(shrink_spectrum(x, torch.tensor(0.5).double(), rank=0).trace(), x)
    torch.testing.assert_close(grad, torch.eye(4).double())


# Groups of patches


def plain_wnnm(y: torch.Tensor, sigma: float, settings: GroupSettings) -> torch.Tensor:
    """One gray or colour image, loops only, from the paper; the window holds the whole image."""
    p, c = settings.patch, y.shape[0]
    height, width = y.shape[1] - p + 1, y.shape[2] - p + 1
    places = [(i, j) for i in range(height) for j in range(width)]
    rows = sorted({*range(0, height, settings.stride), height - 1})
    columns = sorted({*range(0, width, settings.stride), width - 1})
    cut = [(slice(None), slice(i, i + p), slice(j, j + p)) for i, j in places]
    x, group, nearest = y, settings.group, {}
    for step in range(settings.steps):
        x = x + settings.feedback * (y - x)
        patches = torch.stack([x[s].flatten() for s in cut])
        if step % settings.rematch == 0:
            group -= settings.fewer
            for i in rows:
                for j in columns:
                    key = places.index((i, j))
                    distance = (patches - patches[key]).square().sum(1)
                    nearest[key] = distance.argsort()[:group]
        total, weight = torch.zeros_like(x), torch.zeros_like(x)
        for key, members in nearest.items():
            noise = sigma**2
            if step:
                noise = settings.residual**2 * abs(noise - float((y[cut[key]] - x[cut[key]]).square().mean()))
            n, d = len(members), c * p * p
            edge = (math.sqrt(n) + math.sqrt(d)) / (math.sqrt(n) + p)
            level = settings.scale * math.sqrt(n) * noise * edge**2
            stack = patches[members]
            mean = stack.mean(0)
            U, s, Vt = torch.linalg.svd(stack - mean, full_matrices=False)
            inside = s**2 - 4 * level
            s = torch.where(inside > 0, (s + inside.clamp_min(0).sqrt()) / 2, 0 * s)
            estimate = U @ torch.diag(s) @ Vt + mean
            for member, patch in zip(members, estimate, strict=True):
                total[cut[member]] += patch.view(c, p, p)
                weight[cut[member]] += 1
        x = total / weight
    return x


@pytest.mark.parametrize("channels", [1, 3])
def test_patch_groups_follow_the_paper(channels: int, rng: torch.Generator) -> None:
    y = torch.rand(2, channels, 17, 14, generator=rng, dtype=torch.float64)
    settings = GroupSettings(patch=4, group=20, steps=3, window=41, stride=3, residual=0.56, fewer=5)
    found = weighted_nuclear_denoise(y, torch.tensor([0.01, 0.04]).double(), settings)
    torch.testing.assert_close(found[0], plain_wnnm(y[0], 0.1, settings), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found[1], plain_wnnm(y[1], 0.2, settings), rtol=1e-6, atol=1e-7)


def test_bands_tiles_and_chunks_do_not_change_what_a_full_window_finds(
    monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    import invrestore.priors._patch_groups as groups

    y = torch.rand(3, 1, 40, 37, generator=rng, dtype=torch.float64)
    settings = GroupSettings(patch=5, group=12, steps=2, window=81, stride=2, residual=0.56, fewer=0)
    variance = torch.tensor([0.01, 0.02, 0.03]).double()
    whole = weighted_nuclear_denoise(y, variance, settings)
    monkeypatch.setattr(groups, "_TILE", 3)
    monkeypatch.setattr(groups, "_CHUNK", 5000)
    torch.testing.assert_close(weighted_nuclear_denoise(y, variance, settings), whole, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("effort", ["fast", "paper"])
def test_denoising_gains_several_decibels(effort: str, picture: torch.Tensor, rng: torch.Generator) -> None:
    picture = picture[..., :26, :30]
    noisy = picture + 0.1 * random(picture.shape, rng)
    restored = LowRank(effort=effort).denoise(noisy, 0.1)  # type: ignore[arg-type]
    assert psnr(restored, picture) > psnr(noisy, picture) + 5


def test_solve_denoises_with_one_call(picture: torch.Tensor, rng: torch.Generator) -> None:
    noisy = (picture + 0.1 * random(picture.shape, rng)).float()
    solution = solve(noisy, Identity(), LowRank(), sigma=0.1)
    torch.testing.assert_close(solution.x, LowRank().denoise(noisy, 0.1))


def test_solve_fills_missing_pixels_by_plug_and_play(picture: torch.Tensor, rng: torch.Generator) -> None:
    mask = Mask(torch.rand(40, 45, generator=rng) > 0.5)
    y = mask(picture.float())
    solution = solve(y, mask, LowRank(), sigma=0.0)
    assert torch.equal(mask(solution.x), y)
    assert psnr(solution.x, picture) > psnr(mask.initial(y, (3, 40, 45)), picture) + 2


def test_the_prox_is_the_denoiser_at_the_matching_strength(
    picture: torch.Tensor, rng: torch.Generator
) -> None:
    noisy = picture + 0.1 * random(picture.shape, rng)
    torch.testing.assert_close(LowRank(0.02).prox(noisy, 0.5), LowRank().denoise(noisy, 0.1))


def test_noise_levels_belong_to_their_image(picture: torch.Tensor, rng: torch.Generator) -> None:
    noisy = picture.repeat(3, 1, 1, 1) + 0.1 * random((3, 3, 40, 45), rng)
    sigma = torch.tensor([0.02, 0.1, 0.3], dtype=torch.float64)  # one in each of three lines of the table
    together = LowRank().denoise(noisy, sigma)
    for k in range(3):
        torch.testing.assert_close(LowRank().denoise(noisy[k : k + 1], float(sigma[k]))[0], together[k])


def test_denoising_twice_gives_the_same_bits(picture: torch.Tensor, rng: torch.Generator) -> None:
    noisy = picture.float() + 0.1 * random(picture.shape, rng, torch.float32)
    before = noisy.clone()
    assert torch.equal(LowRank().denoise(noisy, 0.1), LowRank().denoise(noisy, 0.1))
    assert torch.equal(noisy, before)


def test_no_noise_means_no_change(picture: torch.Tensor) -> None:
    torch.testing.assert_close(LowRank().denoise(picture, 0.0), picture)


def test_constant_images_stay_constant() -> None:
    x = torch.full((1, 3, 50, 50), 0.3, dtype=torch.float64)
    torch.testing.assert_close(LowRank().denoise(x, 0.1), x)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 4), (6, 6), (7, 31), (65, 34)])
def test_images_of_any_size_are_denoised(size: tuple[int, int], channels: int, rng: torch.Generator) -> None:
    x = torch.rand(1, channels, *size, generator=rng, dtype=torch.float64)
    out = LowRank().denoise(x, 0.1)
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("window", [1, 3])
def test_windows_smaller_than_the_group_still_reach_every_pixel(window: int, rng: torch.Generator) -> None:
    x = torch.rand(1, 1, 13, 29, generator=rng, dtype=torch.float64)
    out = LowRank(patch=3, stride=3, group=50, window=window).denoise(x, 0.1)
    assert out.isfinite().all()
    assert not torch.equal(out, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_precisions_keep_their_type(dtype: torch.dtype, picture: torch.Tensor) -> None:
    given = picture.to(dtype)
    out = LowRank().denoise(given, 0.05)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), LowRank().denoise(given.double(), 0.05), rtol=0, atol=1e-2)


def test_gradients_of_the_denoiser_match_finite_differences(rng: torch.Generator) -> None:
    x = torch.rand(1, 2, 10, 9, generator=rng, dtype=torch.float64)
    # Groups as large as the image, so that no patch changes its group.
    prior = LowRank(patch=3, group=56, stride=2, steps=2)
    sigma = torch.tensor([0.05], dtype=torch.float64, requires_grad=True)
    direction = random(x.shape, rng)
    x.requires_grad_()
    out = (prior.denoise(x, sigma) * random(x.shape, rng)).sum()
    by_x, by_sigma = torch.autograd.grad(out, (x, sigma))
    rng.manual_seed(20240229)
    torch.rand(1, 2, 10, 9, generator=rng, dtype=torch.float64)
    random(x.shape, rng)
    weights, h = random(x.shape, rng), 1e-6
    with torch.no_grad():
        along = [(prior.denoise(x + s * h * direction, sigma) * weights).sum() for s in (1, -1)]
        stronger = [(prior.denoise(x, sigma + s * h) * weights).sum() for s in (1, -1)]
    torch.testing.assert_close(
        (along[0] - along[1]) / (2 * h), (by_x * direction).sum(), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close((stronger[0] - stronger[1]) / (2 * h), by_sigma.sum(), rtol=1e-5, atol=1e-7)


# Completion


def test_completion_recovers_a_matrix_of_low_rank(rng: torch.Generator) -> None:
    truth = (random((2, 1, 40, 2), rng) @ random((2, 1, 2, 36), rng)) / 4
    mask = Mask(torch.rand(2, 1, 40, 36, generator=rng) > 0.4)
    x = solve(mask(truth), mask, LowRankCompletion(2, tol=1e-8, steps=2000)).x
    torch.testing.assert_close(x, truth, rtol=0, atol=1e-4)


def test_completion_keeps_known_pixels_and_their_batch_apart(rng: torch.Generator) -> None:
    contrast = torch.tensor([1, 0.1, 5.0]).view(3, 1, 1, 1)
    truth = contrast * torch.rand(3, 2, 12, 15, generator=rng, dtype=torch.float64)
    weights = (torch.rand(12, 15, generator=rng, dtype=torch.float64) - 0.4).clamp_min(0)
    mask = Mask(weights)
    y = mask(truth)
    together = LowRankCompletion(3).restore(y, mask)
    torch.testing.assert_close(mask(together), y)
    for k in range(3):
        torch.testing.assert_close(LowRankCompletion(3).restore(y[k : k + 1], mask)[0], together[k])


def test_free_values_beat_the_plain_nuclear_norm_on_a_matrix_of_low_rank(rng: torch.Generator) -> None:
    truth = random((1, 1, 30, 4), rng) @ random((1, 1, 4, 30), rng) / 4
    mask = Mask(torch.rand(30, 30, generator=rng) > 0.5)
    error = [(LowRankCompletion(rank, tol=1e-6).restore(mask(truth), mask) - truth).norm() for rank in (0, 4)]
    assert error[1] < 0.1 * error[0]


# What is declared, and what is refused


def test_each_kind_declares_what_it_can() -> None:
    assert LowRank().capabilities == {Capability.DENOISE, Capability.PROX}
    assert LowRank(kind="nuclear").capabilities == {Capability.VALUE, Capability.PROX}
    assert LowRank(kind="truncated").capabilities == {Capability.VALUE, Capability.PROX}
    assert [LowRank(kind=k).is_convex for k in ("nuclear", "truncated", "nonlocal")] == [True, False, False]  # type: ignore[arg-type]
    assert LowRank(kind="nuclear").with_lam(0.5).capabilities == {Capability.VALUE, Capability.PROX}


def test_methods_of_another_kind_are_refused() -> None:
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(
        CapabilityError, match=r"LowRank.value: expected a prior with value, got one with denoise"
    ):
        LowRank(0.1).value(x)
    with pytest.raises(CapabilityError, match=r"LowRank.denoise: expected a prior with denoise"):
        LowRank(0.1, kind="nuclear").denoise(x, 0.1)
    with pytest.raises(CapabilityError, match=r"LowRank: expected a weight lam, got lam=None"):
        LowRank(kind="nuclear").prox(x)


def test_options_of_another_kind_are_refused() -> None:
    with pytest.raises(CapabilityError, match=r"expected options of kind='nuclear', got rank"):
        LowRank(kind="nuclear", rank=3)
    with pytest.raises(CapabilityError, match=r"expected options of kind='truncated', got patch, steps"):
        LowRank(kind="truncated", patch=3, steps=2)
    with pytest.raises(CapabilityError, match=r"expected options of kind='nonlocal', got joint"):
        LowRank(joint=True)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"a kind out of .*Did you mean 'nonlocal'"):
        LowRank(kind="nonlocl")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"an effort|effort out of"):
        LowRank(effort="slow")  # type: ignore[arg-type]
    with pytest.raises(RangeError, match=r"LowRank: expected group >= 2, got 1"):
        LowRank(group=1)
    with pytest.raises(DTypeError, match=r"LowRank: expected patch as an int, got float"):
        LowRank(patch=6.0)  # type: ignore[arg-type]
    with pytest.raises(RangeError, match=r"LowRank: expected rank >= 0, got -1"):
        LowRank(kind="truncated", rank=-1)
    with pytest.raises(RangeError, match=r"LowRank: expected lam >= 0"):
        LowRank(-1.0)


def test_bad_images_are_refused() -> None:
    x = torch.zeros(2, 1, 8, 8)
    with pytest.raises(RangeError, match=r"LowRank.denoise: expected sigma in \[0, 1\], got 25"):
        LowRank().denoise(x, 25.0)
    with pytest.raises(ShapeError, match=r"LowRank.denoise: expected sigma of shape \(\) or \(2,\)"):
        LowRank().denoise(x, torch.zeros(3))
    with pytest.raises(ShapeError, match=r"LowRank.prox: expected step of shape \(\) or \(2,\)"):
        LowRank(1.0).prox(x, torch.zeros(3))
    with pytest.raises(RangeError, match=r"LowRank.denoise: expected x with finite values only, got 128 NaN"):
        LowRank().denoise(x * math.nan, 0.1)
    with pytest.raises(RangeError, match=r"LowRank.prox: expected v with finite values only"):
        LowRank(1.0, kind="nuclear").prox(x * math.nan)


def test_completion_refuses_other_operators_and_bad_settings() -> None:
    with pytest.raises(
        CapabilityError, match=r"LowRankCompletion.restore: expected a Mask, got Identity. .*truncated"
    ):
        LowRankCompletion().restore(torch.zeros(1, 1, 8, 8), Identity())
    with pytest.raises(RangeError, match=r"LowRankCompletion: expected rho > 0"):
        LowRankCompletion(rho=0.0)
    with pytest.raises(RangeError, match=r"LowRankCompletion: expected rank >= 0, got -2"):
        LowRankCompletion(-2)
    with pytest.raises(RangeError, match=r"LowRankCompletion: expected rounds >= 1, got 0"):
        LowRankCompletion(rounds=0)
