"""Noise of the promised level, damage in the reported place, and the same again from the same seed."""

from __future__ import annotations

import pytest
import torch

from invrestore.corruptions import (
    ClutteredBlock,
    ColorNoise,
    Corruption,
    Gaussian,
    MissingBlock,
    Noise,
    Poisson,
    RandomBlur,
    RandomMask,
    RandomNoise,
    SaltPepper,
    Uniform,
)
from invrestore.errors import DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.operators import Blur, Mask

NOISE: dict[str, Noise] = {"gaussian": Gaussian(0.1), "poisson": Poisson(50.0), "uniform": Uniform(0.2)}
DAMAGE: dict[str, Corruption] = {
    "color-noise": ColorNoise((0.8, 0.95)),
    "salt-pepper": SaltPepper(0.3),
    "salt-pepper-channels": SaltPepper((0.1, 0.4), per_channel=True),
    "cluttered-donors": ClutteredBlock(
        (3, 9), donors=torch.rand(4, 3, 12, 14, generator=torch.Generator().manual_seed(3))
    ),
    "missing-block": MissingBlock((2, 6), centred=False, fill=1.0),
    "random-mask": RandomMask((0.1, 0.5)),
    "random-noise": RandomNoise((0.01, 0.2)),
    "blur": RandomBlur(size=7),
    "motion": RandomBlur("motion", size=7),
}


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x(rng: torch.Generator) -> torch.Tensor:
    return torch.rand(5, 3, 16, 19, generator=rng)


@pytest.mark.parametrize("name", NOISE)
def test_noise_repeats_with_the_seed_and_differs_without(x: torch.Tensor, name: str) -> None:
    noise = NOISE[name]
    first = noise(x, seeded())
    torch.manual_seed(99)
    assert torch.equal(noise(x, seeded()), first)
    assert not torch.equal(noise(x, seeded(8)), first)
    assert first.shape == x.shape


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_repeats_with_the_seed_and_differs_without(x: torch.Tensor, name: str) -> None:
    damage = DAMAGE[name]
    y, info = damage(x, seeded())
    again, info_again = damage(x, seeded())
    assert torch.equal(y, again)
    assert info.keys() == info_again.keys()
    assert all(torch.equal(info[k], info_again[k]) and len(info[k]) == 5 for k in info)
    assert not torch.equal(damage(x, seeded(8))[0], y)


@pytest.mark.parametrize("name", [*NOISE, *DAMAGE])
def test_an_image_does_not_depend_on_those_after_it_and_the_input_is_left_alone(
    x: torch.Tensor, name: str
) -> None:
    before = x.clone()

    def run(images: torch.Tensor) -> torch.Tensor:
        return NOISE[name](images, seeded()) if name in NOISE else DAMAGE[name](images, seeded())[0]

    assert torch.equal(run(x)[:2], run(x[:2]))
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", [*NOISE, *DAMAGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(x: torch.Tensor, name: str, dtype: torch.dtype) -> None:
    images = x.to(dtype)
    y = NOISE[name](images, seeded()) if name in NOISE else DAMAGE[name](images, seeded())[0]
    assert y.dtype == dtype


@pytest.mark.parametrize("name", [n for n in DAMAGE if n not in ("random-noise", "blur", "motion")])
def test_only_masked_samples_change_and_known_is_the_rest(x: torch.Tensor, name: str) -> None:
    y, info = DAMAGE[name](x, seeded())
    mask = info["mask"]
    assert mask.dtype == torch.bool
    assert torch.equal(info["known"], ~mask)
    untouched = ~mask.expand_as(x)
    assert torch.equal(y[untouched], x[untouched])
    assert bool((y != x).any())


@pytest.mark.parametrize(
    ("noise", "std"),
    [(Gaussian(0.1), 0.1), (Uniform(0.3), 0.3 / 12**0.5), (Poisson(100.0), (0.5 / 100) ** 0.5)],
)
def test_noise_has_the_stated_mean_and_standard_deviation(noise: Noise, std: float) -> None:
    x = torch.full((1, 1, 200, 200), 0.5, dtype=torch.float64)
    residual = noise(x, seeded()) - x
    assert float(residual.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(residual.mean())) < 4 * std / 200


def test_uniform_noise_stays_within_its_width_and_poisson_on_whole_counts() -> None:
    x = torch.full((1, 1, 64, 64), 0.5, dtype=torch.float64)
    assert float((Uniform(0.3)(x, seeded()) - x).abs().max()) <= 0.15
    counts = Poisson(40.0)(x, seeded()) * 40
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-9)


def test_noise_levels_may_differ_from_image_to_image() -> None:
    x = torch.full((3, 1, 64, 64), 0.5)
    levels = torch.tensor([0.0, 0.05, 0.2])
    residual = (Gaussian(levels)(x, seeded()) - x).flatten(1).std(1)
    torch.testing.assert_close(residual, levels, rtol=0.05, atol=0)
    with pytest.raises(ShapeError, match=r"sigma of shape \(\) or \(2,\)"):
        Gaussian(levels)(x[:2], seeded())


def test_gaussian_noise_lets_gradients_through_to_image_and_level(rng: torch.Generator) -> None:
    x = torch.rand(2, 1, 2, 2, generator=rng, dtype=torch.float64).requires_grad_()
    sigma = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, s: Gaussian(s)(x, seeded()), (x, sigma))


def test_poisson_refuses_negative_images() -> None:
    with pytest.raises(RangeError, match=r"Poisson: expected images >= 0, got -0.5 in image 1. x.clamp_min"):
        Poisson(10.0)(torch.tensor([0.5, -0.5]).view(2, 1, 1, 1), seeded())


@pytest.mark.parametrize("amount", [0.0, 0.37, 0.9, 1.0])
def test_color_noise_hits_the_exact_number_of_pixels_in_all_channels(x: torch.Tensor, amount: float) -> None:
    y, info = ColorNoise(amount)(x, seeded())
    assert info["mask"].flatten(1).sum(1).tolist() == [round(amount * 16 * 19)] * 5
    assert bool((0 <= y).all())
    assert bool((y <= 1).all())


def test_color_noise_is_uniform_and_differs_between_channels() -> None:
    y, _ = ColorNoise(1.0)(torch.zeros(1, 3, 128, 128), seeded())
    histogram = torch.histc(y, 10, 0, 1) / y.numel()
    assert float((histogram - 0.1).abs().max()) < 0.01
    correlation = torch.corrcoef(y[0].flatten(1))
    assert float((correlation - torch.eye(3)).abs().max()) < 0.05


def test_amounts_given_as_a_range_are_drawn_for_each_image(x: torch.Tensor) -> None:
    _, info = ColorNoise((0.2, 0.9))(x, seeded())
    amounts = info["amount"]
    assert len(set(amounts.tolist())) == 5
    assert bool(((amounts >= 0.2) & (amounts <= 0.9)).all())
    share = info["mask"].flatten(1).float().mean(1)
    assert float((share - amounts).abs().max()) <= 0.5 / (16 * 19) + 1e-6


def test_salt_and_pepper_are_ones_and_zeros_in_the_asked_ratio() -> None:
    x = torch.full((1, 3, 100, 100), 0.5)
    y, info = SaltPepper(0.4, salt=0.25)(x, seeded())
    hit = y[info["mask"].expand_as(y)]
    assert set(hit.unique().tolist()) == {0.0, 1.0}
    assert float(hit.mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(y[:, 0], y[:, 1]), "whole pixels"
    y, info = SaltPepper(0.4, per_channel=True)(x, seeded())
    assert info["mask"].shape == x.shape
    assert int(info["mask"].sum()) == 12000
    assert not torch.equal(y[:, 0], y[:, 1])


def test_a_cluttered_block_is_the_reported_crop_of_the_reported_donor(x: torch.Tensor) -> None:
    donors = torch.rand(4, 3, 12, 14, generator=seeded(1))
    for damage, source in ((ClutteredBlock((3, 9), donors=donors), donors), (ClutteredBlock((3, 9)), x)):
        y, info = damage(x, seeded())
        for i in range(5):
            n, top, left = (int(info[k][i]) for k in ("size", "top", "left"))
            donor, dt, dl = (int(info[k][i]) for k in ("donor", "donor_top", "donor_left"))
            assert 3 <= n <= 9
            assert source is not x or donor != i
            crop = source[donor, :, dt : dt + n, dl : dl + n]
            assert torch.equal(y[i, :, top : top + n, left : left + n], crop)
            assert int(info["mask"][i].sum()) == n * n


def test_a_centred_hole_is_half_the_image_and_white_if_asked() -> None:
    x = torch.full((1, 3, 16, 20), 0.5)
    y, info = MissingBlock(fill=1.0)(x, seeded())
    expected = x.clone()
    expected[:, :, 4:12, 6:14] = 1
    assert torch.equal(y, expected)
    assert (int(info["size"]), int(info["top"]), int(info["left"])) == (8, 4, 6)


def test_blocks_reach_every_place_they_may() -> None:
    x = torch.ones(400, 1, 5, 5)
    _, info = MissingBlock(3, centred=False)(x, seeded())
    assert {(int(t), int(c)) for t, c in zip(info["top"], info["left"], strict=True)} == {
        (t, c) for t in range(3) for c in range(3)
    }


def test_what_is_reported_builds_the_operator(x: torch.Tensor) -> None:
    y, info = RandomMask(0.3)(x, seeded())
    torch.testing.assert_close(Mask(info["known"])(x), y)
    assert info["known"].flatten(1).sum(1).tolist() == [round(0.3 * 16 * 19)] * 5
    y, info = MissingBlock(5)(x, seeded())
    torch.testing.assert_close(Mask(info["known"])(x), y)
    for kind in ("gaussian", "motion"):
        y, info = RandomBlur(kind, size=7)(x, seeded())
        assert info["kernel"].shape == (5, 1, 7, 7)
        torch.testing.assert_close(Blur(info["kernel"], padding="reflect")(x), y)
        torch.testing.assert_close(info["kernel"].flatten(1).sum(1), torch.ones(5))
    y, info = RandomNoise((0.02, 0.2))(x.double(), seeded())
    drawn = (y - x).flatten(1).std(1)
    torch.testing.assert_close(drawn, info["sigma"].double(), rtol=0.1, atol=0)


def test_random_masks_keep_at_least_one_pixel() -> None:
    _, info = RandomMask(1e-6)(torch.ones(3, 1, 4, 4), seeded())
    assert info["known"].flatten(1).sum(1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("corruption", [Gaussian(0.1), ColorNoise(0.5)])
def test_a_call_needs_a_generator_and_images(corruption: Noise | Corruption) -> None:
    images = torch.zeros(1, 3, 4, 4)
    with pytest.raises(
        DTypeError, match=r"rng as a torch.Generator, got NoneType. torch.Generator\(\).manual_seed"
    ):
        corruption(images, None)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="8-bit images become"):
        corruption(images.to(torch.uint8), seeded())
    with pytest.raises(ShapeError, match=r"Add the batch axis|x of shape"):
        corruption(images[0], seeded())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Gaussian(25), RangeError, r"sigma in \[0, 1\], got 25. .*8-bit level 25"),
        (lambda: Gaussian(-0.1), RangeError, "sigma >= 0"),
        (lambda: Poisson(0.0), RangeError, "gain > 0"),
        (lambda: Uniform(float("inf")), RangeError, "width >= 0 and finite"),
        (lambda: ColorNoise(90), RangeError, "0 <= amount <= 1, lowest first, got 90"),
        (lambda: ColorNoise((0.9, 0.2)), RangeError, "lowest first"),
        (lambda: ColorNoise("half"), DTypeError, "amount as a number or a pair"),
        (lambda: SaltPepper(0.1, salt=2.0), RangeError, "0 <= salt <= 1"),
        (lambda: ClutteredBlock(0), RangeError, "1 <= smallest <= largest size"),
        (lambda: ClutteredBlock((9, 3)), RangeError, "1 <= smallest <= largest size"),
        (lambda: ClutteredBlock(2.5), DTypeError, "size as a whole number"),
        (lambda: ClutteredBlock(4, donors=torch.zeros(3, 8, 8)), ShapeError, "donors of shape"),
        (lambda: MissingBlock(fill=float("nan")), RangeError, "a finite fill value"),
        (lambda: RandomMask(0.0), RangeError, "0 < keep <= 1"),
        (lambda: RandomNoise(25), RangeError, "0 <= sigma <= 1"),
        (lambda: RandomBlur("gausian"), UnknownNameError, "Did you mean 'gaussian'"),
        (lambda: RandomBlur(sigma=0.0), RangeError, "sigma > 0"),
        (lambda: RandomBlur(size=8), RangeError, "size odd and >= 1, got 8"),
    ],
)
def test_bad_arguments_are_refused(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (ClutteredBlock(), RangeError, r"no larger than the image, 16x19, got 128. size=\(2, 8\)\?"),
        (ClutteredBlock(4), RangeError, "two images in the batch, or donors, got one image"),
        (
            ClutteredBlock(9, donors=torch.zeros(1, 3, 8, 8)),
            RangeError,
            "no larger than the donor images, 8x8",
        ),
        (ClutteredBlock(4, donors=torch.zeros(1, 1, 8, 8)), ShapeError, "donors with 3 channels"),
        (MissingBlock(17), RangeError, "no larger than the image"),
    ],
)
def test_damage_that_does_not_fit_the_images_is_refused(
    x: torch.Tensor, damage: Corruption, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        damage(x[:1], seeded())
