from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from invrestore import DTypeError, RangeError, ShapeError, UnknownNameError, kernels
from invrestore.operators import Blur
from tests.catalogue import KERNEL_SIDES, PADDINGS, random_kernel


def random_image(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sides", [*KERNEL_SIDES, (19, 31)], ids=str)
def test_equals_scipy_for_every_padding_and_side(
    padding: str, sides: tuple[int, int], rng: torch.Generator
) -> None:
    import scipy.ndimage
    import scipy.signal

    modes = {"circular": "wrap", "reflect": "mirror", "replicate": "nearest", "zero": "constant"}
    kernel = random_kernel(sides, rng)
    for shape in ((8, 8), (17, 23), (1, 9), (40, 33)):
        if padding == "valid" and (sides[0] > shape[0] or sides[1] > shape[1]):
            continue
        x = random_image(rng, 1, 1, *shape)
        if padding == "valid":
            expected = scipy.signal.convolve2d(x[0, 0].numpy(), kernel.numpy(), mode="valid")
        else:
            expected = scipy.ndimage.convolve(x[0, 0].numpy(), kernel.numpy(), mode=modes[padding])
        assert np.abs(Blur(kernel, padding)(x)[0, 0].numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("padding", ["circular", "reflect", "replicate", "valid"])
def test_equals_deepinv_where_its_kernels_are_right(padding: str, rng: torch.Generator) -> None:
    import deepinv

    x = random_image(rng, 2, 3, 16, 21)
    for sides in ((3, 3), (4, 4), (5, 7)):
        kernel = random_kernel(sides, rng)
        theirs = deepinv.physics.Blur(filter=kernel[None, None], padding=padding)
        assert torch.allclose(Blur(kernel, padding)(x), theirs.A(x), atol=1e-12)


@pytest.mark.parametrize("padding", ["circular", "reflect", "replicate", "zero"])
def test_trap_kernels_of_side_one_and_two_keep_their_adjoint(padding: str, rng: torch.Generator) -> None:
    for sides in ((1, 1), (2, 2), (1, 2), (2, 1), (1, 5)):
        blur = Blur(random_kernel(sides, rng), padding)
        x, v = random_image(rng, 2, 3, 9, 8), random_image(rng, 2, 3, 9, 8)
        left, right = (blur(x) * v).sum(), (x * blur.adjoint(v)).sum()
        assert float((left - right).abs() / (blur(x).norm() * v.norm())) <= 1e-12


def test_trap_kernels_larger_than_the_image_are_exact_or_refused(rng: torch.Generator) -> None:
    kernel = random_kernel((11, 13), rng)
    x = random_image(rng, 1, 1, 5, 6)
    circular = Blur(kernel)(x)
    tiled = Blur(kernel, "valid")(x.repeat(1, 1, 5, 5))
    # Output (0, 0) of the valid blur of the tiling is centred one whole period into it.
    assert torch.allclose(circular, tiled[..., :5, :6], atol=1e-12)
    mirrored = torch.cat([x, x[..., 1:-1, :].flip(-2)], -2)
    mirrored = torch.cat([mirrored, mirrored[..., :, 1:-1].flip(-1)], -1)
    assert torch.allclose(Blur(kernel, "reflect")(x), Blur(kernel)(mirrored)[..., :5, :6], atol=1e-12)
    with pytest.raises(
        ShapeError, match=r"at least as large as the kernel, 11 x 13, for padding='valid', got 5 x 6"
    ):
        Blur(kernel, "valid")(x)


def test_trap_conversion_between_types_keeps_the_complex_spectrum(rng: torch.Generator) -> None:
    x = torch.rand(1, 3, 16, 16, generator=rng)
    blur = Blur(random_kernel((7, 7), rng).float())
    before = blur(x)
    double = blur.to(torch.float64)
    assert torch.allclose(double(x.double()), before.double(), atol=1e-6)
    assert torch.equal(blur(x), before)
    assert double.to(torch.float32)(x).dtype == torch.float32


def test_trap_prox_uses_step_and_point_and_remembers_nothing(rng: torch.Generator) -> None:
    x, y = random_image(rng, 1, 1, 8, 8), random_image(rng, 1, 1, 8, 8)
    for padding in ("circular", "reflect"):
        blur = Blur(random_kernel((3, 3), rng), padding)
        first = blur.prox(x, y, 0.7)
        other_step, other_point = blur.prox(x, y, 7.0), blur.prox(x + 1, y, 0.7)
        assert float((other_step - first).norm()) > 1e-2
        assert float((other_point - first).norm()) > 1e-2
        assert torch.equal(blur.prox(x, y, 0.7), first)
        step = blur.data_step(y)
        assert torch.allclose(step(x, 7.0), other_step, atol=1e-10)
        assert torch.allclose(step(x, 0.7), first, atol=1e-10)


def test_trap_norm_never_underestimates(rng: torch.Generator) -> None:
    for padding in PADDINGS:
        for kernel in (random_kernel((7, 7), rng), torch.randn(5, 4, generator=rng, dtype=torch.float64)):
            blur = Blur(kernel, padding)
            A = blur(torch.eye(120, dtype=torch.float64).reshape(120, 1, 10, 12)).reshape(120, -1).T
            true = float(torch.linalg.matrix_norm(A, 2))
            bound = float(blur.norm((1, 10, 12)))
            assert bound >= true
            if bool((kernel > 0).all()):
                assert bound <= 1.05 * true


def test_norm_without_a_size_is_the_sum_of_magnitudes_where_that_bounds(rng: torch.Generator) -> None:
    kernel = torch.randn(5, 5, generator=rng, dtype=torch.float64)
    for padding in ("circular", "zero", "valid"):
        assert float(Blur(kernel, padding).norm()) == pytest.approx(float(kernel.abs().sum()))
    with pytest.raises(ShapeError, match="input_shape"):
        Blur(kernel, "reflect").norm()


def test_one_kernel_for_each_image_is_that_many_blurs(rng: torch.Generator) -> None:
    for sides in ((3, 3), (5, 6)):
        ks = random_kernel((7, 1, *sides), rng)
        x = random_image(rng, 7, 3, 12, 15)
        y = random_image(rng, 7, 3, 12, 15)
        for padding in ("circular", "reflect"):
            blur = Blur(ks, padding)
            step = torch.linspace(0.1, 2, 7, dtype=torch.float64)
            together = blur.prox(x, y, step)
            for i in range(7):
                alone = Blur(ks[i : i + 1], padding)
                assert torch.allclose(blur(x)[i], alone(x[i : i + 1])[0], atol=1e-13)
                assert torch.allclose(
                    together[i], alone.prox(x[i : i + 1], y[i : i + 1], step[i : i + 1])[0], atol=1e-9
                )
            assert blur.norm((3, 12, 15)).shape == (7,)


def test_one_kernel_for_each_channel(rng: torch.Generator) -> None:
    ks = random_kernel((1, 3, 4, 5), rng)
    x = random_image(rng, 2, 3, 12, 15)
    blur = Blur(ks, "replicate")
    for c in range(3):
        assert torch.allclose(blur(x)[:, c : c + 1], Blur(ks[0, c], "replicate")(x[:, c : c + 1]), atol=1e-13)
    assert blur.norm((3, 12, 15)).shape == ()


def test_direct_and_fourier_paths_agree(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = random_image(rng, 2, 3, 14, 11)
    for padding in PADDINGS:
        blur = Blur(random_kernel((3, 4), rng), padding)
        y = blur(x)
        back = blur.adjoint(y)
        monkeypatch.setattr("invrestore.operators._blur._DIRECT_TAPS", 0)
        assert torch.allclose(blur(x), y, atol=1e-13)
        assert torch.allclose(blur.adjoint(y), back, atol=1e-13)
        monkeypatch.undo()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_stays_near_float64(
    dtype: torch.dtype, rng: torch.Generator, tolerance: Callable[[torch.dtype], float]
) -> None:
    x = random_image(rng, 2, 3, 12, 17)
    for padding in PADDINGS:
        for sides in ((2, 2), (5, 5)):
            blur = Blur(random_kernel(sides, rng), padding)
            low = blur.to(dtype)
            exact = blur(x)
            y = low(x.to(dtype))
            assert y.dtype == dtype
            assert float((y.double() - exact).norm() / exact.norm()) < tolerance(dtype)
            p = low.prox(x.to(dtype), y, 0.7)
            assert p.dtype == dtype
            assert float((p.double() - blur.prox(x, exact, 0.7)).norm() / x.norm()) < tolerance(dtype)
    peaked = Blur(torch.tensor([[0.1, 0.8, 0.1]]), "zero").to(dtype)
    assert peaked.pinv(y).dtype == dtype


def test_pinv_of_a_circular_box_leaves_lost_frequencies_at_zero(rng: torch.Generator) -> None:
    blur = Blur(kernels.box(4).double())
    x = random_image(rng, 1, 1, 8, 8)
    A = blur(torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)).reshape(64, 64).T
    assert int(torch.linalg.matrix_rank(A)) < 64
    y = random_image(rng, 1, 1, 8, 8)
    expected = torch.linalg.pinv(A, rtol=1e-12) @ y.flatten()
    assert float((blur.pinv(y).flatten() - expected).norm() / expected.norm()) < 1e-9
    assert torch.allclose(blur(blur.project(x, blur(y))), blur(y), atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_smooth_inverse_of_a_circular_blur_solves_its_equation(
    dtype: torch.dtype, rng: torch.Generator, tolerance: Callable[[torch.dtype], float]
) -> None:
    x, weight = random_image(rng, 2, 3, 8, 9), torch.tensor([0.03, 0.5], dtype=torch.float64)
    blur = Blur(random_kernel((5, 4), rng))
    y = blur(x)
    found = blur.to(dtype).smooth_inverse(y.to(dtype), weight.to(dtype))
    assert found.dtype == dtype
    found = found.double()
    curved = 4 * found - sum(found.roll(shift, axis) for shift in (1, -1) for axis in (-2, -1))
    residual = blur.gram(found) + weight.view(2, 1, 1, 1) * curved - blur.adjoint(y)
    assert float(residual.norm() / blur.adjoint(y).norm()) < 30 * tolerance(dtype)


def test_the_transfer_function_follows_a_kernel_changed_in_place(rng: torch.Generator) -> None:
    kernel = random_kernel((5, 5), rng)
    blur, x = Blur(kernel), random_image(rng, 1, 1, 8, 8)
    before = blur(x)
    kernel.mul_(2)
    assert torch.allclose(blur(x), 2 * before)


def test_valid_tells_its_shapes() -> None:
    blur = Blur(torch.ones(4, 3), "valid")
    assert blur.output_shape_of((3, 10, 12)) == (3, 7, 10)
    assert blur.input_shape_of((3, 7, 10)) == (3, 10, 12)
    assert blur.adjoint(torch.ones(1, 3, 7, 10)).shape == (1, 3, 10, 12)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (
            torch.full((3, 3), float("nan")),
            RangeError,
            "Blur: expected kernel with finite values only, got 9 NaN",
        ),
        (torch.full((3, 3), float("inf")), RangeError, "infinite"),
        (torch.ones(0, 3), ShapeError, "at least one tap"),
        (torch.ones(3), ShapeError, r"a kernel of shape \(kh, kw\)"),
        (torch.ones(2, 3, 3), ShapeError, r"kernel\[:, None\] adds the channel axis"),
        (torch.tensor([[1.0, -1.0]]), RangeError, "sum other than 0.*An edge filter is not a blur"),
        (torch.zeros(3, 3), RangeError, "sum other than 0"),
        (torch.ones(3, 3, dtype=torch.uint8), DTypeError, "kernel of a floating-point type"),
        (torch.ones(3, 3, dtype=torch.complex64), DTypeError, "a real kernel"),
        ([[1.0]], DTypeError, "kernel as a torch.Tensor"),
    ],
    ids=[
        "nan",
        "inf",
        "empty",
        "vector",
        "three-axes",
        "edge-filter",
        "zeros",
        "integers",
        "complex",
        "list",
    ],
)
def test_bad_kernels_are_named(kernel: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Blur(kernel)


def test_bad_calls_are_named() -> None:
    with pytest.raises(UnknownNameError, match="'reflect'"):
        Blur(torch.ones(3, 3), "reflekt")
    with pytest.raises(
        ShapeError, match=r"a batch of 4, one image for each kernel of \(4, 1, 3, 3\).*\(2, 3, 8, 8\)"
    ):
        Blur(torch.ones(4, 1, 3, 3))(torch.ones(2, 3, 8, 8))
    with pytest.raises(ShapeError, match="3 channels, one for each kernel"):
        Blur(torch.ones(1, 3, 3, 3)).adjoint(torch.ones(2, 1, 8, 8))
    with pytest.raises(ShapeError, match="Add the batch axis"):
        Blur(torch.ones(3, 3))(torch.ones(3, 8, 8))
    with pytest.raises(DTypeError, match="8-bit images"):
        Blur(torch.ones(3, 3))(torch.ones(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(RangeError, match="step"):
        Blur(torch.ones(3, 3)).prox(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8), -1.0)


@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (4, 7), (8, 8)])
def test_first_image_of_a_valid_blur_has_each_pixel_in_its_place(
    sides: tuple[int, int], rng: torch.Generator
) -> None:
    kernel = torch.zeros(sides)
    kernel[sides[0] // 2, sides[1] // 2] = 1  # the identity, but for the border that "valid" leaves out
    x = torch.rand(2, 3, 12, 15, generator=rng)
    blur = Blur(kernel, "valid")
    y = blur(x)
    first = blur.initial(y, (3, 12, 15))
    assert first.shape == x.shape
    assert torch.allclose(blur(first), y, atol=1e-6)
    assert bool((first >= y.amin()).all())
