"""Grayscale keeps the null space; Value has a useful subgradient."""

from __future__ import annotations

import pytest
import torch

from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.operators import Grayscale, Value

WEIGHTS = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


def _dense(channels: int = 3) -> torch.Tensor:
    return torch.kron(WEIGHTS[None], torch.eye(12, dtype=torch.float64))


def test_luma_is_the_weighted_sum_of_bt601(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 3, 4, generator=rng, dtype=torch.float64)
    expected = (_dense() @ x.flatten(1).T).T.view(2, 1, 3, 4)
    torch.testing.assert_close(Grayscale()(x), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("step", [0.0, 0.7, 1e4])
def test_prox_equals_the_dense_solve(rng: torch.Generator, step: float) -> None:
    z = torch.randn(1, 3, 3, 4, generator=rng, dtype=torch.float64)
    y = torch.randn(1, 1, 3, 4, generator=rng, dtype=torch.float64)
    a = _dense()
    expected = torch.linalg.solve(
        torch.eye(36, dtype=torch.float64) + step * a.T @ a, z.flatten() + step * a.T @ y.flatten()
    )
    got = Grayscale().prox(z, y, step).flatten()
    assert float((got - expected).norm() / expected.norm()) < 1e-12


def test_prox_and_projection_keep_the_null_space(rng: torch.Generator) -> None:
    A = Grayscale()
    z = torch.randn(1, 3, 4, 4, generator=rng, dtype=torch.float64)
    y = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    for x in (A.prox(z, y, 3.0), A.project(z, y)):
        moved = x - z
        across = moved - A.pinv(A(moved))
        assert float(across.abs().max()) < 1e-14
    torch.testing.assert_close(A(A.project(z, y)), y, rtol=1e-13, atol=1e-13)


def test_pseudo_inverse_and_norm_equal_the_dense_ones(rng: torch.Generator) -> None:
    y = torch.randn(1, 1, 3, 4, generator=rng, dtype=torch.float64)
    expected = torch.linalg.pinv(_dense()) @ y.flatten()
    assert float((Grayscale().pinv(y).flatten() - expected).norm() / expected.norm()) < 1e-12
    assert float(Grayscale(WEIGHTS).norm() - torch.linalg.matrix_norm(_dense(), 2)) == pytest.approx(
        0, abs=1e-14
    )


def test_gradients_reach_weights_image_and_measurement(rng: torch.Generator) -> None:
    w = torch.rand(2, generator=rng, dtype=torch.float64).add(0.1).requires_grad_()
    z = torch.rand(1, 2, 2, 2, generator=rng, dtype=torch.float64).requires_grad_()
    y = torch.rand(1, 1, 2, 2, generator=rng, dtype=torch.float64).requires_grad_()

    def everything(w: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        A = Grayscale(w)
        return A(z), A.adjoint(y), A.prox(z, y, 0.4), A.pinv(y), A.norm()

    assert torch.autograd.gradcheck(everything, (w, z, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_of_the_image_is_kept(dtype: torch.dtype) -> None:
    x, y = torch.ones(1, 3, 2, 2, dtype=dtype), torch.ones(1, 1, 2, 2, dtype=dtype)
    A = Grayscale()
    assert {t.dtype for t in (A(x), A.adjoint(y), A.prox(x, y, 1.0), A.pinv(y), Value()(x))} == {dtype}


def test_shapes_are_known_both_ways() -> None:
    for A in (Grayscale(), Value()):
        assert A.output_shape_of((3, 5, 7)) == (1, 5, 7)
        assert A.input_shape_of((1, 5, 7)) == (3, 5, 7)
        with pytest.raises(ShapeError, match=r"a measurement of shape \(1, H, W\), got \(3, 5, 7\)"):
            A.input_shape_of((3, 5, 7))
        with pytest.raises(ShapeError, match=r"x of shape \(B, 3, any, any\), got \(1, 1, 5, 7\)"):
            A(torch.zeros(1, 1, 5, 7))
    with pytest.raises(ShapeError, match=r"Grayscale.adjoint: expected y of shape \(B, 1, any, any\)"):
        Grayscale().adjoint(torch.zeros(1, 3, 5, 7))


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ((0.0, 0.0, 0.0), RangeError, "finite weights, not all 0"),
        ((1.0, float("nan"), 0.0), RangeError, "finite weights"),
        (torch.ones(2, 2), ShapeError, r"weights of shape \(C,\)"),
        ((), ShapeError, r"weights of shape \(C,\)"),
        (0.3, DTypeError, "weights as a sequence or tensor, got float"),
    ],
)
def test_unusable_weights_are_refused(weights: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Grayscale(weights)  # type: ignore[arg-type]


def test_a_list_of_weights_is_a_tuple_of_weights() -> None:
    assert Grayscale([0.5, 0.5]).channels == 2  # type: ignore[arg-type]


def test_value_is_the_largest_channel_and_hsv_agrees(rng: torch.Generator) -> None:
    from PIL import Image

    rgb = torch.randint(0, 256, (6, 5, 3), generator=rng, dtype=torch.uint8)
    hsv = Image.fromarray(rgb.numpy()).convert("HSV").getchannel("V")
    x = rgb.permute(2, 0, 1)[None].double() / 255
    got = (Value()(x)[0, 0] * 255).round().to(torch.uint8)
    assert bytes(got.numpy().tobytes()) == hsv.tobytes()


def test_value_gradient_goes_to_the_largest_channel_and_is_shared_on_ties() -> None:
    x = torch.tensor([[0.2, 0.5], [0.9, 0.5], [0.1, 0.5]]).view(1, 3, 1, 2)
    grad = Value().vjp(x, torch.ones(1, 1, 1, 2))
    torch.testing.assert_close(grad[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(grad[0, :, 0, 1], torch.full((3,), 1 / 3))
