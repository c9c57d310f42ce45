"""Algebra keeps its laws: products, sums, multiples, adjoints and stacks against their matrices."""

from __future__ import annotations

import pickle

import pytest
import torch

from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.operators import (
    Adjoint,
    Compose,
    Grayscale,
    Identity,
    JPEGTransform,
    LinearOperator,
    Mask,
    Operator,
    Quantize,
    Scaled,
    Stack,
    Sum,
    Value,
    compose,
    stack,
)

SHAPE = (3, 4, 5)


@pytest.fixture
def mask(rng: torch.Generator) -> Mask:
    return Mask(torch.randn(1, 1, 4, 5, generator=rng, dtype=torch.float64))


@pytest.fixture
def gray(rng: torch.Generator) -> Grayscale:
    return Grayscale(torch.randn(3, generator=rng, dtype=torch.float64))


def dense(A: LinearOperator, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    """The matrix of A, column by column."""
    n = torch.Size(shape).numel()
    return A(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1).T


def normal(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def assert_adjoint_is_the_transpose(A: LinearOperator, rng: torch.Generator) -> None:
    matrix = dense(A)
    y = normal(rng, 2, *A.output_shape_of(SHAPE))
    assert_close(A.adjoint(y).flatten(1), y.flatten(1) @ matrix)


def test_product_applies_right_to_left_with_the_reversed_adjoint(
    rng: torch.Generator, mask: Mask, gray: Grayscale
) -> None:
    A = Mask(normal(rng, 4, 5)) @ gray @ mask
    assert isinstance(A, LinearOperator)
    x = normal(rng, 2, *SHAPE)
    assert_close(A(x), A.operators[0](gray(mask(x))))
    assert_adjoint_is_the_transpose(A, rng)
    assert A.output_shape_of(SHAPE) == (1, 4, 5)
    assert A.input_shape_of((1, 4, 5)) == SHAPE


def test_nested_products_are_flattened_and_a_single_factor_is_itself(mask: Mask) -> None:
    one = Identity()
    A = compose(compose(one, mask), compose(mask, one))
    assert isinstance(A, Compose)
    assert A.operators == (one, mask, mask, one)
    assert compose(mask) is mask


def test_product_with_a_nonlinear_member_is_nonlinear_and_differentiates(
    rng: torch.Generator, mask: Mask
) -> None:
    A = Value() @ mask
    assert not A.is_linear
    assert not isinstance(A, LinearOperator)
    x, v = normal(rng, 2, *SHAPE), normal(rng, 2, 1, 4, 5)
    assert_close(A.vjp(x, v), mask.adjoint(Value().vjp(mask(x), v)))
    assert not (Quantize(3) @ mask).is_linear
    assert (Identity() @ mask).is_linear


def test_norm_of_a_product_bounds_the_gain(rng: torch.Generator, mask: Mask, gray: Grayscale) -> None:
    A = gray @ mask
    true = torch.linalg.matrix_norm(dense(A), 2)
    assert float(A.norm()) >= float(true)
    assert float(A.norm()) == pytest.approx(float(gray.norm() * mask.norm()))


def test_prox_and_pinv_of_a_product_equal_the_dense_solve(
    rng: torch.Generator, mask: Mask, gray: Grayscale
) -> None:
    A = gray @ mask
    matrix = dense(A)
    z, y = normal(rng, 1, *SHAPE), normal(rng, 1, 1, 4, 5)
    normal_matrix = torch.eye(60, dtype=torch.float64) + 0.7 * matrix.T @ matrix
    expected = torch.linalg.solve(normal_matrix, z.flatten() + 0.7 * matrix.T @ y.flatten())
    assert_close(A.prox(z, y, 0.7).flatten(), expected)
    torch.testing.assert_close(
        A.pinv(y).flatten(), torch.linalg.pinv(matrix) @ y.flatten(), rtol=1e-8, atol=1e-8
    )


def test_shapes_that_do_not_meet_are_refused_when_composing() -> None:
    with pytest.raises(
        ShapeError, match=r"to take what JPEGTransform gives, \(64,\), got an operator on \(3, 8, 8\)"
    ):
        Mask(torch.ones(3, 8, 8)) @ JPEGTransform((1, 8, 8))


def test_product_checks_its_input_like_its_innermost_member(mask: Mask) -> None:
    with pytest.raises(ShapeError, match=r"expected x to fit the mask \(any, any, 4, 5\)"):
        (Grayscale() @ mask)(torch.zeros(1, 3, 5, 4))


def test_sum_and_difference_are_those_of_the_matrices(rng: torch.Generator, mask: Mask) -> None:
    A = mask + Identity() - 0.5 * mask
    assert_close(dense(A), 0.5 * dense(mask) + torch.eye(60, dtype=torch.float64))
    assert_adjoint_is_the_transpose(A, rng)
    assert isinstance(A, Sum)
    assert len(A.operators) == 3
    assert float(A.norm()) >= float(torch.linalg.matrix_norm(dense(A), 2))


def test_sum_refuses_unlike_and_nonlinear_members(mask: Mask) -> None:
    with pytest.raises(ShapeError, match="operators of one input_shape"):
        Mask(torch.ones(3, 4, 4)) + Mask(torch.ones(3, 5, 4))
    with pytest.raises(DTypeError, match=r"Sum: expected linear operators, got Value"):
        Sum((mask, Value()))
    with pytest.raises(
        ShapeError, match=r"every member to give \(1, 3, 4, 5\), got \(1, 1, 4, 5\) from Grays"
    ):
        (mask + Grayscale())(torch.zeros(1, 3, 4, 5))


@pytest.mark.parametrize("factor", [-2.5, 0.0, torch.tensor(3.0), torch.tensor([2.0, -0.5])])
def test_multiple_scales_product_adjoint_norm_prox_and_pinv(
    rng: torch.Generator, mask: Mask, factor: float | torch.Tensor
) -> None:
    A = factor * mask if not isinstance(factor, torch.Tensor) else mask * factor.double()
    c = torch.as_tensor(factor, dtype=torch.float64).reshape(-1, 1, 1, 1)
    x, z = normal(rng, 2, *SHAPE), normal(rng, 2, *SHAPE)
    y = normal(rng, 2, *SHAPE)
    assert_close(A(x), c * mask(x))
    assert_close(A.adjoint(y), c * mask.adjoint(y))
    assert_close(A.norm().reshape(-1), c.flatten().abs() * mask.norm())
    m = c * mask.mask
    assert_close(A.prox(z, y, 0.7), (z + 0.7 * m * y) / (1 + 0.7 * m * m))
    assert_close(A.pinv(y), torch.where(m == 0, 0, y / m))
    assert A.has_closed_form


def test_gradient_flows_to_the_factor(rng: torch.Generator, mask: Mask) -> None:
    c = torch.tensor([1.5, -0.3], dtype=torch.float64, requires_grad=True)
    z, y = normal(rng, 2, *SHAPE), normal(rng, 2, *SHAPE)

    def everything(c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        A = mask * c
        return A(z), A.adjoint(y), A.prox(z, y, 0.7), A.pinv(y)

    assert torch.autograd.gradcheck(everything, (c,))


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (float("nan"), RangeError, "a finite factor"),
        (torch.tensor([1.0, torch.inf]), RangeError, "a finite factor"),
        (torch.ones(2, 2), ShapeError, r"factor of shape \(\) or \(B,\)"),
        (torch.ones(2, dtype=torch.complex64), DTypeError, "a real factor"),
        (True, DTypeError, "factor as a number or tensor, got bool"),
    ],
)
def test_unusable_factors_are_refused(factor: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Scaled(Identity(), factor)  # type: ignore[arg-type]


def test_multiples_and_adjoints_of_nonlinear_operators_are_refused() -> None:
    with pytest.raises(DTypeError, match="Scaled: expected a linear operator, got Value"):
        Scaled(Value(), 2.0)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="Adjoint: expected a linear operator, got Value"):
        Adjoint(Value())  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="compose: expected operators, got int at position 1"):
        compose(Identity(), 3)  # type: ignore[arg-type]
    with pytest.raises(RangeError, match="at least one operator, got none"):
        compose()


def test_adjoint_of_the_adjoint_is_the_operator_itself(gray: Grayscale, mask: Mask) -> None:
    for A in (gray, gray @ mask, 2 * mask, mask + mask, stack(gray, mask, input_shape=SHAPE)):
        assert isinstance(A, LinearOperator)
        assert A.H.H is A


def test_adjoint_is_an_operator_with_the_transposed_matrix(rng: torch.Generator) -> None:
    T = JPEGTransform((1, 8, 8))
    assert (T.H.input_shape, T.H.output_shape) == ((64,), (1, 8, 8))
    v = normal(rng, 2, 64)
    assert torch.equal(T.H(v), T.adjoint(v))
    assert float(T.H.norm()) == float(T.norm())
    with pytest.raises(ShapeError, match=r"Adjoint: expected y of shape \(B, 64\)"):
        T.H(torch.zeros(1, 1, 8, 8))


def test_stack_joins_and_splits_its_measurements(rng: torch.Generator, mask: Mask, gray: Grayscale) -> None:
    A = stack(gray, mask, input_shape=SHAPE)
    x = normal(rng, 2, *SHAPE)
    y = A(x)
    assert y.shape == (2, 20 + 60)
    assert A.output_shape == (80,)
    first, second = A.split(y)
    assert_close(first, gray(x))
    assert_close(second, mask(x))
    assert torch.equal(A.join([first, second]), y)


def test_linear_stack_has_adjoint_norm_and_dense_prox(
    rng: torch.Generator, mask: Mask, gray: Grayscale
) -> None:
    A = stack(gray, mask, input_shape=SHAPE)
    assert isinstance(A, LinearOperator)
    assert_adjoint_is_the_transpose(A, rng)
    matrix = dense(A)
    assert float(A.norm()) >= float(torch.linalg.matrix_norm(matrix, 2)) * (1 - 1e-12)
    assert float(A.norm()) == pytest.approx(float((gray.norm() ** 2 + mask.norm() ** 2).sqrt()))
    z, y = normal(rng, 1, *SHAPE), normal(rng, 1, 80)
    system = torch.eye(60, dtype=torch.float64) + 0.3 * matrix.T @ matrix
    expected = torch.linalg.solve(system, z.flatten() + 0.3 * matrix.T @ y.flatten())
    assert_close(A.prox(z, y, 0.3).flatten(), expected)


def test_stack_with_a_nonlinear_member_differentiates(rng: torch.Generator, mask: Mask) -> None:
    A = stack(Value(), mask, input_shape=SHAPE)
    assert isinstance(A, Stack)
    assert not A.is_linear
    x, v = normal(rng, 2, *SHAPE), normal(rng, 2, 80)
    first, second = A.split(v)
    assert_close(A.vjp(x, v), Value().vjp(x, first) + mask.adjoint(second))


def test_stack_takes_the_image_size_from_a_member_that_knows_it() -> None:
    A = stack(Grayscale(), Mask(torch.ones(3, 4, 5)))
    assert A.input_shape == SHAPE
    assert A.input_shape_of((80,)) == SHAPE


def test_stack_without_image_size_applies_but_cannot_split(rng: torch.Generator) -> None:
    A = stack(Identity(), Grayscale())
    y = A(normal(rng, 1, *SHAPE))
    with pytest.raises(
        ShapeError, match=r"split: expected a stack that knows its image size.*input_shape=\(C"
    ):
        A.split(y)
    with pytest.raises(ShapeError, match="knows its image size"):
        A.adjoint(y)  # type: ignore[attr-defined]


def test_stack_refuses_measurements_that_do_not_fit(rng: torch.Generator) -> None:
    A = stack(Identity(), Grayscale(), input_shape=SHAPE)
    with pytest.raises(ShapeError, match=r"split: expected y of shape \(B, 80\), got \(1, 79\)"):
        A.split(torch.zeros(1, 79))
    with pytest.raises(ShapeError, match="expected 2 measurements, got 1 of them"):
        A.join([torch.zeros(1, *SHAPE)])
    with pytest.raises(ShapeError, match=r"the measurement of Grayscale of shape \(B, 1, 4, 5\)"):
        A.join([torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE)])
    with pytest.raises(ShapeError, match="measurements of one batch size"):
        A.join([torch.zeros(1, *SHAPE), torch.zeros(2, 1, 4, 5)])
    with pytest.raises(ShapeError, match="operators of one input shape"):
        stack(Mask(torch.ones(3, 4, 4)), Identity(), input_shape=SHAPE)


def test_noise_level_of_a_stack_pools_its_members(rng: torch.Generator) -> None:
    shape = (1, 64, 64)
    A = stack(Identity(), Identity(), input_shape=shape)
    flat = torch.full((2, *shape), 0.5)
    noisy = [flat + s * torch.randn(flat.shape, generator=rng) for s in (0.01, 0.05)]
    expected = ((0.01**2 + 0.05**2) / 2) ** 0.5
    assert bool(((A.estimate_sigma(A.join(noisy)) / expected - 1).abs() < 0.1).all())


@pytest.mark.parametrize("build", [lambda a, b: a @ b, lambda a, b: stack(a, b, input_shape=SHAPE)])
@pytest.mark.parametrize("nonlinear", [False, True])
def test_algebra_survives_pickling_and_moving(
    rng: torch.Generator, mask: Mask, build, nonlinear: bool
) -> None:
    A: Operator = build(Value() if nonlinear else Grayscale(), mask)
    x = normal(rng, 1, *SHAPE)
    again = pickle.loads(pickle.dumps(A))
    assert type(again) is type(A)
    assert torch.equal(again(x), A(x))
    moved = A.to(torch.float32)
    assert type(moved) is type(A)
    assert all(t.dtype == torch.float32 for t in moved.tensors() if t.is_floating_point())
    assert moved(x.float()).dtype == torch.float32


def test_range_of_images_is_kept_only_by_parts_that_keep_it(mask: Mask) -> None:
    assert (Grayscale() @ mask).image_range
    assert not (2 * mask).image_range
    assert not mask.H.image_range
    assert not stack(mask, 2 * mask, input_shape=SHAPE).image_range
