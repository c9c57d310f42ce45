"""Metrics: hand-computed values, an independent implementation, and every refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from invrestore import metrics
from invrestore.errors import DeviceError, DTypeError, RangeError, ShapeError
from invrestore.metrics import PSNR, SSIM, crop, mae, mse, psnr, quantize, rgb_to_y, ssim

PAIRWISE = {"psnr": psnr, "ssim": ssim, "mse": mse, "mae": mae, "lpips": metrics.lpips}


@pytest.fixture
def pair(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    truth = torch.rand(3, 3, 29, 34, generator=rng, dtype=torch.float64)
    truth = torch.nn.functional.avg_pool2d(truth, 5, 1, 2)
    return truth + 0.05 * torch.randn(truth.shape, generator=rng, dtype=torch.float64), truth


def test_psnr_of_a_known_error_is_its_decibels() -> None:
    truth = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    x = truth.clone()
    x[0] += 0.1
    x[1, 0, 0, 0] = 1.0
    torch.testing.assert_close(psnr(x, truth), torch.tensor([20.0, 10 * math.log10(60)], dtype=torch.float64))


def test_psnr_takes_its_range_from_the_argument_alone() -> None:
    truth = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(psnr(truth + 25.5, truth, 255), torch.tensor([20.0], dtype=torch.float64))


def test_equal_images_have_infinite_psnr_and_unit_ssim(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, _ = pair
    assert torch.isinf(psnr(x, x)).all()
    torch.testing.assert_close(ssim(x, x), torch.ones(3, dtype=torch.float64))


def test_mse_and_mae_are_means_over_channels_and_pixels() -> None:
    x = torch.tensor([[[[0.0, 2.0]], [[-2.0, 0.0]]]])
    truth = torch.zeros_like(x)
    assert mse(x, truth).tolist() == [2.0]
    assert mae(x, truth).tolist() == [1.0]


def test_ssim_of_two_constants_is_the_luminance_term() -> None:
    x = torch.full((1, 1, 12, 13), 0.2, dtype=torch.float64)
    expected = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    torch.testing.assert_close(
        ssim(x, torch.full_like(x, 0.7)), torch.tensor([expected], dtype=torch.float64)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_scores_equal_those_of_scikit_image(
    pair: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype, data_range: float
) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    x, truth = (data_range * image for image in pair)
    ours = ssim(x.to(dtype), truth.to(dtype), data_range), psnr(x.to(dtype), truth.to(dtype), data_range)
    assert ours[0].dtype == ours[1].dtype == dtype
    for i in range(3):
        a, b = x[i].numpy(), truth[i].numpy()
        similarity = structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=data_range,
            channel_axis=0,
        )
        assert abs(float(ours[0][i]) - similarity) < 1e-6
        assert abs(float(ours[1][i]) - peak_signal_noise_ratio(b, a, data_range=data_range)) < 1e-4


def test_ssim_of_bright_flat_images_survives_float32() -> None:
    # The variance, 1e-5, is ten digits below the squared mean: float32 would leave nothing but rounding.
    generator = torch.Generator().manual_seed(1)
    truth = (200 + 1e-2 * torch.rand(1, 1, 32, 32, generator=generator)).float()
    x = (200 + 1e-2 * torch.rand(1, 1, 32, 32, generator=generator)).float()
    torch.testing.assert_close(ssim(x, truth).double(), ssim(x.double(), truth.double()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["psnr", "ssim", "mse", "mae"])
def test_an_images_score_does_not_depend_on_its_neighbours(
    pair: tuple[torch.Tensor, torch.Tensor], name: str
) -> None:
    x, truth = pair
    alone = torch.cat([PAIRWISE[name](x[i : i + 1], truth[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(PAIRWISE[name](x, truth), alone, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["psnr", "ssim", "mse", "mae"])
def test_bfloat16_images_are_scored_in_float32(pair: tuple[torch.Tensor, torch.Tensor], name: str) -> None:
    x, truth = (image.bfloat16() for image in pair)
    score = PAIRWISE[name](x, truth)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, PAIRWISE[name](x.float(), truth.float()))


@pytest.mark.parametrize("name", ["psnr", "ssim", "mse"])
def test_scores_differentiate_in_the_estimate(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, truth = torch.rand(2, 1, 1, 12, 11, generator=generator, dtype=torch.float64)
    x.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: PAIRWISE[name](v, truth), (x,))


def test_nan_in_one_image_makes_only_its_score_nan(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, truth = pair
    x = x.clone()
    x[1, 0, 0, 0] = torch.nan
    for score in (psnr(x, truth), ssim(x, truth)):
        assert score.isnan().tolist() == [False, True, False]


# Refusals


@pytest.mark.parametrize("name", sorted(PAIRWISE))
def test_images_of_different_shape_are_refused_and_not_broadcast(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name}: expected x_true of the shape of x, \(2, 3, 16, 16\)"):
        PAIRWISE[name](torch.rand(2, 3, 16, 16), torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("name", sorted(PAIRWISE))
def test_integer_images_are_refused(name: str) -> None:
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(
        DTypeError, match=rf"{name}: expected x of a floating-point type, got torch.uint8.*255"
    ):
        PAIRWISE[name](image, image)


@pytest.mark.parametrize("name", sorted(PAIRWISE))
def test_complex_images_are_refused(name: str) -> None:
    image = torch.zeros(1, 3, 16, 16, dtype=torch.complex64)
    with pytest.raises(DTypeError, match=rf"{name}: expected real x, got torch.complex64"):
        PAIRWISE[name](image, image)


@pytest.mark.parametrize("name", sorted(PAIRWISE))
def test_an_image_without_batch_axis_is_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=r"Add the batch axis"):
        PAIRWISE[name](torch.rand(3, 16, 16), torch.rand(3, 16, 16))


@pytest.mark.parametrize("name", sorted(PAIRWISE))
def test_images_on_different_devices_are_refused(name: str) -> None:
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(DeviceError, match=r"x on cpu, x_true on meta"):
        PAIRWISE[name](x, x.to("meta"))


@pytest.mark.parametrize("make", [psnr, ssim])
@pytest.mark.parametrize("data_range", [0.0, -1.0, math.inf, math.nan])
def test_a_range_that_is_not_positive_is_refused(make: object, data_range: float) -> None:
    image = torch.rand(1, 1, 16, 16)
    with pytest.raises(RangeError, match=r"expected data_range > 0 and finite"):
        make(image, image, data_range)  # type: ignore[operator]


@pytest.mark.parametrize("data_range", [None, "1", True])
def test_a_range_that_is_no_number_is_refused(data_range: object) -> None:
    image = torch.rand(1, 1, 16, 16)
    with pytest.raises(DTypeError, match=r"psnr: expected data_range as a number"):
        psnr(image, image, data_range)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (1, 1)])
def test_ssim_refuses_images_smaller_than_its_window(shape: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *shape)
    with pytest.raises(ShapeError, match=r"at least 11 x 11 pixels.*psnr"):
        ssim(image, image)


# Protocol steps


def test_luma_of_primaries_is_that_of_bt601() -> None:
    primaries = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
    studio = torch.tensor([81.481, 144.553, 40.966], dtype=torch.float64) / 255
    torch.testing.assert_close(rgb_to_y(primaries).flatten(), studio)
    full = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    torch.testing.assert_close(rgb_to_y(primaries, full_range=True).flatten(), full)


def test_luma_equals_that_of_scikit_image(rng: torch.Generator) -> None:
    from skimage.color import rgb2ycbcr

    x = torch.rand(2, 3, 5, 7, generator=rng, dtype=torch.float64)
    theirs = rgb2ycbcr(x.permute(0, 2, 3, 1).numpy())[..., 0] / 255
    np.testing.assert_allclose(rgb_to_y(x)[:, 0].numpy(), theirs, atol=1e-12)


def test_luma_of_other_than_three_channels_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected x of shape \(B, 3, H, W\).*luma already"):
        rgb_to_y(torch.rand(1, 1, 4, 4))
    with pytest.raises(ShapeError, match=r"got \(1, 4, 4, 4\)"):
        rgb_to_y(torch.rand(1, 4, 4, 4))


def test_crop_leaves_the_inside(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 9, 8, generator=rng)
    assert torch.equal(crop(x, 2), x[:, :, 2:7, 2:6])
    assert torch.equal(crop(x, 0), x)


def test_crop_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"sides longer than 2 \* border = 8, got 8 x 20"):
        crop(torch.rand(1, 1, 8, 20), 4)
    with pytest.raises(RangeError, match=r"border >= 0"):
        crop(torch.rand(1, 1, 8, 20), -1)


def test_quantize_gives_what_an_8_bit_file_holds() -> None:
    x = torch.tensor([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.0, 7.0]).view(1, 1, 1, 7)
    assert (quantize(x) * 255).flatten().tolist() == [0, 0, 0, 1, 254, 255, 255]
    assert quantize(x, 2).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_quantize_refuses_few_levels_and_few_bits() -> None:
    with pytest.raises(RangeError, match=r"levels >= 2"):
        quantize(torch.rand(1, 1, 4, 4), 1)
    with pytest.raises(DTypeError, match=r"float32 or float64, got torch.bfloat16"):
        quantize(torch.rand(1, 1, 4, 4).bfloat16())


# Running scores


@pytest.mark.parametrize(("cls", "function"), [(PSNR, psnr), (SSIM, ssim)])
def test_running_scores_do_not_depend_on_the_batches(
    pair: tuple[torch.Tensor, torch.Tensor], cls: type[PSNR] | type[SSIM], function: object
) -> None:
    x, truth = pair
    score = cls()
    assert score.update(x[:1], truth[:1]).shape == (1,)
    score.update(x[1:], truth[1:])
    each = function(x, truth)  # type: ignore[operator]
    torch.testing.assert_close(score.scores, each, rtol=1e-13, atol=0)
    assert len(score) == 3
    assert score.compute() == pytest.approx(float(each.mean()), rel=1e-12)
    assert score.std == pytest.approx(float(each.std()), rel=1e-9)
    score.reset()
    assert len(score) == 0


def test_running_scores_are_averaged_in_decibels() -> None:
    truth = torch.zeros(2, 1, 4, 4)
    x = truth + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    score = PSNR()
    score.update(x, truth)
    assert score.compute() == pytest.approx(30.0, abs=1e-4)


def test_the_spread_of_a_single_image_is_unknown() -> None:
    score = PSNR()
    score.update(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4))
    assert math.isnan(score.std)


def test_running_scores_keep_no_graph() -> None:
    score = PSNR()
    score.update(torch.rand(1, 1, 4, 4, requires_grad=True), torch.rand(1, 1, 4, 4))
    assert not score.scores.requires_grad


def test_a_mean_of_nothing_is_refused() -> None:
    assert repr(SSIM(255)) == "SSIM(data_range=255, 0 images)"
    assert len(SSIM().scores) == 0
    for ask in (lambda: PSNR().compute(), lambda: SSIM().std):
        with pytest.raises(RangeError, match=r"at least one scored image, got 0. Call update"):
            ask()


def test_a_running_score_checks_its_range_at_once() -> None:
    with pytest.raises(RangeError, match=r"PSNR: expected data_range > 0"):
        PSNR(0)
