"""JPEG equals Pillow, differentiates, and knows the box of coefficients behind a decoded image."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
import torch
from PIL import Image

from invrestore.errors import DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.fidelity import Interval
from invrestore.operators import JPEG, JPEGTransform
from invrestore.operators._jpeg import quantisation_tables

SUBSAMPLING = {"4:4:4": 0, "4:2:0": 2}


def pillow(image: torch.Tensor, quality: int, subsampling: str) -> torch.Tensor:
    """What Pillow makes of one 8-bit image (C, H, W)."""
    array = image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality, subsampling=SUBSAMPLING[subsampling])
    decoded = torch.from_numpy(np.array(Image.open(file)))
    return decoded[None] if decoded.ndim == 2 else decoded.permute(2, 0, 1)


@functools.cache
def photo() -> torch.Tensor:
    """A photo with detail, saturated spots and smooth areas, 8 bit."""
    from skimage import data

    return torch.from_numpy(data.astronaut()).permute(2, 0, 1).contiguous()


def picture(kind: str, channels: int, height: int, width: int, rng: torch.Generator) -> torch.Tensor:
    if kind == "noise":
        return torch.randint(0, 256, (channels, height, width), generator=rng, dtype=torch.uint8)
    return photo()[:channels, 10 : 10 + height, 150 : 150 + width].contiguous()


@pytest.mark.parametrize("size", [(64, 64), (63, 77), (17, 23), (1, 9), (8, 1), (5, 4), (16, 3), (2, 5)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("kind", ["photo", "noise"])
def test_colour_images_come_out_exactly_as_from_pillow(
    rng: torch.Generator, size: tuple[int, int], subsampling: str, kind: str
) -> None:
    image = picture(kind, 3, *size, rng)
    x = image[None].float() / 255
    for quality in (1, 3, 10, 24, 25, 49, 50, 51, 75, 90, 95, 99, 100):
        ours = (JPEG(quality, subsampling=subsampling)(x)[0] * 255).round().int()
        gap = (ours - pillow(image, quality, subsampling).int()).abs()
        assert int(gap.max()) == 0, f"quality {quality}: {float((gap > 0).double().mean()):.2%} differ"


@pytest.mark.parametrize("size", [(40, 48), (17, 23), (1, 1)])
def test_gray_images_come_out_exactly_as_from_pillow(rng: torch.Generator, size: tuple[int, int]) -> None:
    image = picture("photo", 1, *size, rng)
    for quality in range(1, 101, 9):
        ours = (JPEG(quality)(image[None].float() / 255)[0] * 255).round().int()
        assert torch.equal(ours, pillow(image, quality, "4:4:4").int())


def test_every_quality_uses_pillows_tables() -> None:
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        tables: dict[int, list[int]] = Image.open(file).quantization  # type: ignore[attr-defined]
        for own, theirs in zip(quantisation_tables(quality), tables.values(), strict=True):
            assert [v for row in own for v in row] == list(theirs)


def test_values_between_levels_and_outside_the_range_are_rounded_and_clipped(rng: torch.Generator) -> None:
    x = 1.6 * torch.rand(1, 3, 16, 16, generator=rng) - 0.3
    eight_bit = (x.clamp(0, 1) * 255 + 0.5).floor() / 255
    assert torch.equal(JPEG(60)(x), JPEG(60)(eight_bit))


def test_each_image_of_a_batch_is_compressed_on_its_own(rng: torch.Generator) -> None:
    x = torch.rand(7, 3, 19, 21, generator=rng)
    y = JPEG(30)(x)
    for i in range(7):
        assert torch.equal(JPEG(30)(x[i : i + 1])[0], y[i])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(rng: torch.Generator, dtype: torch.dtype) -> None:
    x = torch.rand(1, 3, 16, 16, generator=rng).to(dtype)
    A = JPEG(50)
    results = (A(x), A.coefficients(x), *A.interval(x), A.project(x, x), A.estimate_sigma(x))
    assert {t.dtype for t in results} == {dtype}


@pytest.mark.parametrize("gradient", ["straight-through", "soft"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_gradient_does_not_change_the_value(rng: torch.Generator, gradient: str, subsampling: str) -> None:
    x = torch.rand(1, 3, 24, 24, generator=rng)
    plain = JPEG(35, subsampling=subsampling)(x)
    with_gradient = JPEG(35, subsampling=subsampling, gradient=gradient)(x.requires_grad_())
    assert torch.equal(with_gradient.detach(), plain)


def test_straight_through_gradient_of_full_chroma_is_nearly_the_identity(rng: torch.Generator) -> None:
    """Without rounding, 4:4:4 is the identity up to the fixed-point constants, and so is its adjoint."""
    x, v = torch.rand(1, 3, 16, 24, generator=rng), torch.randn(1, 3, 16, 24, generator=rng)
    grad = JPEG(20, subsampling="4:4:4").vjp(x, v)
    assert float((grad - v).norm() / v.norm()) < 2e-3


def test_straight_through_gradient_of_half_chroma_is_that_of_the_codec_without_rounding(
    rng: torch.Generator,
) -> None:
    x, v = torch.rand(1, 3, 16, 16, generator=rng), torch.randn(1, 3, 16, 16, generator=rng)
    grad = JPEG(20).vjp(x, v)
    # An unquantised codec from general parts; bilinear enlargement is the triangle filter.
    direction = torch.randn(1, 3, 16, 16, generator=rng)
    to_ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, direction)
    small = torch.nn.functional.avg_pool2d(ycc[:, 1:], 2)
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), torch.cat([ycc[:, :1], large], 1))
    expected, got = float((decoded * v).sum()), float((grad * direction).sum())
    assert abs(expected - got) < 2e-3 * float(decoded.norm() * v.norm())


def test_soft_gradient_favours_coefficients_near_a_threshold() -> None:
    """A flat block has one coefficient; its derivative is large where a change of it would flip the code."""
    step = quantisation_tables(50)[0][0][0] / 8
    at = torch.tensor([128 + 2 * step, 128 + 2.5 * step]).round() / 255
    x = at.view(2, 1, 1, 1).expand(2, 1, 8, 8).contiguous()
    grad = JPEG(50, gradient="soft", temperature=0.1).vjp(x, torch.ones_like(x)).flatten(1).sum(1)
    assert float(grad[1]) > 5 * float(grad[0])


def test_descent_through_the_codec_lowers_the_misfit(rng: torch.Generator) -> None:
    A = JPEG(40)
    y = A(picture("photo", 3, 32, 32, rng)[None].float() / 255)
    x = torch.full_like(y, 0.5)
    first = float((A(x) - y).norm())
    for _ in range(30):
        x = x - 0.5 * A.vjp(x, A(x) - y)
    assert float((A(x) - y).norm()) < 0.1 * first


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 17, 23), (1, 9, 5), (3, 3, 2)])
def test_transform_is_linear_with_an_exact_adjoint(
    rng: torch.Generator, subsampling: str, shape: tuple[int, int, int]
) -> None:
    T = JPEGTransform(shape, subsampling=subsampling)
    x = torch.randn(2, *shape, generator=rng, dtype=torch.float64)
    c = T(x)
    assert tuple(c.shape[1:]) == T.output_shape
    v = torch.randn(c.shape, generator=rng, dtype=torch.float64)
    assert abs(float((c * v).sum() - (x * T.adjoint(v)).sum())) / float(c.norm() * v.norm()) < 1e-14


def test_transform_coefficients_are_those_of_scipys_dct(rng: torch.Generator) -> None:
    from scipy.fft import dctn

    x = torch.randn(1, 1, 16, 24, generator=rng, dtype=torch.float64)
    (blocks,) = JPEG(50).transform((1, 16, 24)).planes(JPEG(50).coefficients(x))
    for i in range(2):
        for j in range(3):
            block = x[0, 0, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].numpy()
            np.testing.assert_allclose(blocks[0, i, j].numpy(), dctn(block, norm="ortho"), atol=1e-13)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_image_of_undoes_the_transform_of_whole_blocks(rng: torch.Generator, subsampling: str) -> None:
    T = JPEGTransform((3, 32, 16), subsampling=subsampling)
    c = torch.randn(2, *T.output_shape, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(T(T.image_of(c)), c, rtol=0, atol=1e-12)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("size", [(64, 64), (61, 83)])
@pytest.mark.parametrize("quality", [10, 50, 90])
def test_interval_holds_the_coefficients_of_the_original(
    rng: torch.Generator, subsampling: str, size: tuple[int, int], quality: int
) -> None:
    x = picture("photo", 3, *size, rng)[None].double() / 255
    A = JPEG(quality, subsampling=subsampling)
    lower, upper = A.interval(A(x), margin=1.0)
    c = A.coefficients(x)
    inside = ((lower <= c) & (c <= upper)).double().mean()
    # Clipped samples at high quality hide a few coefficients, and so do blocks cut by the border.
    assert float(inside) > (0.985 if quality == 90 else 0.998), float(inside)
    width = float((upper - lower).median()) * 255
    assert width <= 2 + 2 * max(max(row) for row in quantisation_tables(quality)[1])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_project_lands_in_the_box_and_moves_nothing_inside_it(rng: torch.Generator, subsampling: str) -> None:
    x = picture("photo", 3, 48, 32, rng)[None].double() / 255
    A = JPEG(30, subsampling=subsampling)
    y = A(x)
    guess = y + 0.2 * torch.randn(y.shape, generator=rng, dtype=y.dtype)
    projected = A.project(guess, y)
    box = Interval(*A.interval(y))
    c = A.coefficients(projected)
    torch.testing.assert_close(box.prox(c, c, 1.0), c, rtol=0, atol=1e-12)
    torch.testing.assert_close(A.project(projected, y), projected, rtol=0, atol=1e-12)
    assert float((projected - x).norm()) < float((guess - x).norm())


def test_noise_level_is_near_the_true_error_on_a_photo(rng: torch.Generator) -> None:
    x = picture("photo", 3, 256, 256, rng)[None].double() / 255
    for quality in (5, 20, 50, 80, 95):
        A = JPEG(quality, subsampling="4:4:4")
        y = A(x)
        ratio = float(A.estimate_sigma(y) / (y - x).square().mean().sqrt())
        assert 0.8 < ratio < 1.7, (quality, ratio)


def test_noise_level_follows_the_content_of_each_image(rng: torch.Generator) -> None:
    smooth = torch.full((1, 3, 64, 64), 0.4)
    busy = torch.rand(1, 3, 64, 64, generator=rng)
    A = JPEG(20)
    estimate = A.estimate_sigma(A(torch.cat([smooth, busy])))
    assert float(estimate[1]) > 5 * float(estimate[0])


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((0,), {}, RangeError, "quality >= 1, got 0"),
        ((101,), {}, RangeError, "quality from 1 to 100, got 101"),
        ((0.5,), {}, DTypeError, "quality as an int"),
        ((50,), {"subsampling": "4:2:2"}, UnknownNameError, "subsampling out of '4:2:0', '4:4:4'"),
        ((50,), {"gradient": "hard"}, UnknownNameError, "gradient out of"),
        ((50,), {"temperature": -1.0}, RangeError, "temperature > 0"),
    ],
)
def test_bad_arguments_are_refused(
    args: tuple[object], kwargs: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        JPEG(*args, **kwargs)  # type: ignore[arg-type]


def test_bad_images_are_refused() -> None:
    A = JPEG(50)
    with pytest.raises(ShapeError, match=r"JPEG: expected x with 1 \(gray\) or 3 \(RGB\) channels"):
        A(torch.zeros(1, 4, 8, 8))
    with pytest.raises(DTypeError, match="8-bit images become"):
        A(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"JPEG.project: expected x of y's shape \(1, 3, 8, 8\)"):
        A.project(torch.zeros(1, 3, 8, 9), torch.zeros(1, 3, 8, 8))
    with pytest.raises(RangeError, match=r"JPEG.interval: expected margin >= 0"):
        A.interval(torch.zeros(1, 3, 8, 8), margin=-1)
    with pytest.raises(ShapeError, match=r"JPEGTransform: expected shape \(1 or 3, H, W\), got \(2, 8, 8\)"):
        A.transform((2, 8, 8))
