"""The wavelet transform: PyWavelets' numbers where it is orthonormal, orthonormal everywhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invrestore.errors import DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.operators import WaveletTransform, wavelet_names
from invrestore.operators._wavelet import (
    _catalogue,
    _even_matrix,
    _seam,
    approximation_shape,
    default_levels,
    shift_offsets,
)

SIZES = [(8, 8), (17, 23), (33, 16), (1, 9), (1, 1), (2, 3), (7, 130), (131, 129), (301, 256), (257, 65)]
SHORT_AND_LONG = ["haar", "db2", "db4", "db38", "sym5", "coif1", "coif17", "dmey"]


def random(shape: tuple[int, ...], rng: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=rng, dtype=dtype)


def matrix_of(transform: WaveletTransform, height: int, width: int) -> torch.Tensor:
    basis = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    return transform(basis).flatten(1).T


# Filters


def test_every_orthogonal_name_of_pywavelets_is_known() -> None:
    import pywt

    theirs = {n for n in pywt.wavelist(kind="discrete") if pywt.Wavelet(n).orthogonal}
    assert set(wavelet_names()) == theirs


@pytest.mark.parametrize("name", wavelet_names())
def test_filters_are_orthonormal_to_rounding_and_close_to_the_published_ones(name: str) -> None:
    import pywt

    h = _catalogue()[name]
    even = np.correlate(h, h, "full")[len(h) - 1 :: 2]
    assert abs(even[0] - 1) < 4e-16
    assert np.abs(even[1:]).max(initial=0) < 4e-16
    assert abs(h.sum() - np.sqrt(2)) < 1e-14
    assert abs(h[::2].sum() - h[1::2].sum()) < 1e-14
    change = np.abs(h - np.asarray(pywt.Wavelet(name).rec_lo)).max()
    family = name.rstrip("0123456789")
    assert change <= {"haar": 0, "db": 0, "coif": 0, "sym": 1e-9, "dmey": 1e-3}[family]


# The transform


@pytest.mark.parametrize("name", ["haar", "db2", "db4", "db20", "sym8", "coif3"])
@pytest.mark.parametrize(
    ("height", "width", "levels"), [(64, 48, 3), (256, 192, 3), (64, 64, 1), (160, 288, 4)]
)
@pytest.mark.filterwarnings("ignore:Level value:UserWarning")  # deeper than PyWavelets advises
def test_coefficients_are_those_of_pywavelets(name: str, height: int, width: int, levels: int) -> None:
    import pywt

    x = random((2, 1, height, width), torch.Generator().manual_seed(3))
    ours = WaveletTransform(name, levels=levels)(x)[1, 0].numpy()
    theirs = pywt.wavedec2(x[1, 0].numpy(), name, mode="periodization", level=levels)
    np.testing.assert_allclose(ours, pywt.coeffs_to_array(theirs)[0], atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SHORT_AND_LONG)
def test_the_transform_is_an_isometry_with_its_adjoint_as_inverse(
    name: str, size: tuple[int, int], rng: torch.Generator
) -> None:
    W = WaveletTransform(name)
    x, q = random((2, 2, *size), rng), random((2, 2, *size), rng)
    assert float((W.adjoint(W(x)) - x).abs().max()) < 1e-12
    assert float((W(W.adjoint(q)) - q).abs().max()) < 1e-12
    assert float(W(x).norm() / x.norm()) == pytest.approx(1, abs=1e-12)
    ratio = (W(x) * q).sum() - (x * W.adjoint(q)).sum()
    assert abs(float(ratio)) / float(x.norm() * q.norm()) < 1e-12


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 5), (9, 1), (3, 4)])
def test_its_matrix_is_orthogonal(height: int, width: int) -> None:
    matrix = matrix_of(WaveletTransform("db3", levels=2), height, width)
    torch.testing.assert_close(
        matrix @ matrix.T, torch.eye(height * width, dtype=torch.float64), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("name", ["haar", "db2", "db4", "sym8", "coif5", "db38", "dmey"])
@pytest.mark.parametrize("n", [129, 131, 257, 1025])
def test_the_banded_form_equals_the_dense_matrix(name: str, n: int, rng: torch.Generator) -> None:
    odd = np.zeros((n, n))
    odd[:-1, :-1] = _even_matrix(name, n - 1)
    odd[-1, -1] = 1
    before, after, turn = _seam(name, n)
    places = [*range(n - 1 - before, n), *range(after)]
    odd[places] = turn @ odd[places]
    x = random((1, 1, n, 1), rng)
    expected = torch.from_numpy(odd) @ x[0, 0]
    torch.testing.assert_close(
        WaveletTransform(name, levels=1)(x)[0, 0],
        torch.cat([expected[::2], expected[1::2]]),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", ["haar", "db2", "db4", "sym8", "dmey", "db38"])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (255, 257), (1, 33)])
def test_a_constant_has_no_details_at_any_size(name: str, size: tuple[int, int]) -> None:
    W = WaveletTransform(name, levels=1)
    q = W(torch.ones(1, 1, *size, dtype=torch.float64))
    assert all(float(part.abs().max()) < 1e-12 for part in W.split(q) if part.numel())


@pytest.mark.parametrize("name", ["db4", "db10", "sym8"])
def test_a_cubic_through_the_seam_of_an_odd_axis_has_no_details(name: str) -> None:
    n = 257
    t = ((torch.arange(n, dtype=torch.float64) + 1 + n // 2) % n - n // 2) / 32
    W = WaveletTransform(name, levels=1)
    detail = W((1 + t + t**2 - t**3).view(1, 1, n, 1))[0, 0, n // 2 + 1 :, 0]
    jump = n // 4  # the polynomial is not periodic: it breaks half a turn away
    detail[jump - 12 : jump + 12] = 0
    # The published Symlets annihilate cubics to about 1e-11 themselves.
    assert float(detail.abs().max()) < 1e-10


def test_a_constant_keeps_its_level_through_odd_sizes() -> None:
    # Without the spreading, the approximation would end with 1 beside sqrt(2), an edge for the next level.
    low = WaveletTransform("db4", levels=1)(torch.ones(1, 1, 257, 1, dtype=torch.float64))[0, 0, :129, 0]
    assert float(low.max() / low.min()) < 1.025


def test_shifted_copies_form_a_parseval_frame(rng: torch.Generator) -> None:
    W = WaveletTransform("db2", levels=2, shifts=5)
    x, q = random((2, 3, 9, 12), rng), random((2, 5, 3, 9, 12), rng)
    assert W(x).shape == q.shape
    assert W.output_shape_of((3, 9, 12)) == (5, 3, 9, 12)
    assert W.input_shape_of((5, 3, 9, 12)) == (3, 9, 12)
    torch.testing.assert_close(W.adjoint(W(x)), x, rtol=0, atol=1e-13)
    assert float((W(x) * q).sum()) == pytest.approx(float((x * W.adjoint(q)).sum()), abs=1e-10)
    torch.testing.assert_close(W.gram(x), x)
    assert float(W.norm()) == 1


def test_shifts_cover_each_level_before_the_next() -> None:
    offsets = list(shift_offsets(64))
    for cell in (2, 4, 8):
        expected = {(i, j) for i in range(cell) for j in range(cell)}
        assert set(offsets[: cell * cell]) == expected


@pytest.mark.parametrize("shifts", [1, 3])
def test_prox_and_pinv_equal_a_dense_solve(shifts: int, rng: torch.Generator) -> None:
    W = WaveletTransform("db2", shifts=shifts)
    x = random((2, 1, 6, 7), rng)
    y = random(W(x).shape, rng)
    step = torch.tensor([0.5, 2.0], dtype=torch.float64)
    A = (
        WaveletTransform("db2", shifts=shifts)(torch.eye(42, dtype=torch.float64).view(42, 1, 6, 7))
        .flatten(1)
        .T
    )
    for i in range(2):
        left = torch.eye(42, dtype=torch.float64) + step[i] * A.T @ A
        right = x[i].flatten() + step[i] * A.T @ y[i].flatten()
        dense = torch.linalg.solve(left, right)
        torch.testing.assert_close(W.prox(x, y, step)[i].flatten(), dense, rtol=0, atol=1e-12)
        dense = torch.linalg.pinv(A) @ y[i].flatten()
        torch.testing.assert_close(W.pinv(y)[i].flatten(), dense, rtol=0, atol=1e-12)


def test_details_and_approximation_make_up_the_transform(rng: torch.Generator) -> None:
    W = WaveletTransform("db2", levels=2)
    q = W(random((2, 3, 17, 22), rng))
    rows, columns = approximation_shape("db2", 2, 17, 22)
    assert (rows, columns) == (5, 6)
    parts = [*W.split(q), q[..., :rows, :columns]]
    energy = sum(float(part.square().sum()) for part in parts)
    assert energy == pytest.approx(float(q.square().sum()))


@pytest.mark.parametrize("name", ["haar", "db4", "sym20"])
@pytest.mark.parametrize("size", [(256, 256), (100, 300), (31, 64)])
def test_the_default_depth_is_that_of_pywavelets(name: str, size: tuple[int, int]) -> None:
    import pywt

    assert default_levels(name, *size) == max(1, pywt.dwtn_max_level(size, name))


def test_the_default_depth_of_a_single_row_is_set_by_its_length() -> None:
    assert default_levels("haar", 1, 64) == 6
    assert default_levels("db4", 1, 1) == 1


def test_levels_below_one_pixel_change_nothing(rng: torch.Generator) -> None:
    x = random((1, 1, 8, 5), rng)
    torch.testing.assert_close(
        WaveletTransform("db2", levels=3)(x), WaveletTransform("db2", levels=30)(x), rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128])
@pytest.mark.parametrize("size", [(32, 48), (161, 133)])
def test_types_are_kept(dtype: torch.dtype, size: tuple[int, int], rng: torch.Generator) -> None:
    x = random((2, 1, *size), rng)
    W = WaveletTransform("db4")
    q = W(x.to(dtype))
    assert q.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.complex128: 1e-12}[dtype]
    torch.testing.assert_close(q.real.double(), W(x), rtol=0, atol=tolerance)
    assert W.adjoint(q).dtype == dtype


@pytest.mark.parametrize("size", [(6, 7), (3, 133)])
def test_gradients_flow_through(size: tuple[int, int], rng: torch.Generator) -> None:
    x = random((1, 1, *size), rng).requires_grad_(True)
    W = WaveletTransform("db2")
    assert torch.autograd.gradcheck(W, (x,), fast_mode=True)
    assert torch.autograd.gradcheck(W.adjoint, (x,), fast_mode=True)


def test_constants_made_in_inference_mode_serve_training(rng: torch.Generator) -> None:
    x = random((1, 1, 300, 222), rng)
    with torch.inference_mode():
        WaveletTransform("db17")(x)
    x.requires_grad_(True)
    WaveletTransform("db17")(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_strided_and_expanded_images_are_accepted(rng: torch.Generator) -> None:
    x = random((1, 160, 140, 2), rng).permute(0, 3, 1, 2).expand(3, -1, -1, -1)
    W = WaveletTransform("db4")
    assert torch.equal(W(x), W(x.contiguous()))


# Refusals


def test_unknown_wavelets_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"WaveletTransform: expected a wavelet .*Did you mean 'db4"):
        WaveletTransform("db 4")
    with pytest.raises(UnknownNameError, match=r"got 'bior2\.2'"):
        WaveletTransform("bior2.2")
    with pytest.raises(DTypeError, match="wavelet as a name, got int"):
        WaveletTransform(4)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["levels", "shifts"])
def test_counts_below_one_are_refused(option: str) -> None:
    with pytest.raises(RangeError, match=f"{option} >= 1, got 0"):
        WaveletTransform("haar", **{option: 0})
    with pytest.raises(DTypeError, match=f"{option} as an int, got float"):
        WaveletTransform("haar", **{option: 2.0})  # type: ignore[arg-type]


def test_coefficients_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"WaveletTransform.adjoint: expected y of shape \(B, 3, C, H, W\)"):
        WaveletTransform("haar", shifts=3).adjoint(torch.rand(1, 2, 1, 8, 8))
    with pytest.raises(ShapeError, match=r"expected y of shape \(B, C, H, W\), got \(1, 2, 1, 8, 8\)"):
        WaveletTransform("haar").adjoint(torch.rand(1, 2, 1, 8, 8))


def test_the_transform_traces_whole_under_torch_compile_at_changing_sizes(rng: torch.Generator) -> None:
    W = WaveletTransform("db4")
    traced = torch.compile(W.__call__, backend="eager", fullgraph=True)
    for size in ((40, 141), (33, 160), (36, 20)):
        x = random((1, 2, *size), rng)
        torch.testing.assert_close(traced(x), W(x))
