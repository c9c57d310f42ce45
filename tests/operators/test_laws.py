"""Every operator of the catalogue meets every law, exactly."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invrestore import CapabilityError, RangeError, ShapeError, operators
from invrestore._types import Shape, Tensor
from invrestore.operators import LinearOperator, Operator
from invrestore.operators._linalg import batch_of
from invrestore.testing import check_operator, images
from invrestore.testing import kernels as random_kernels
from tests.catalogue import LINEAR, NONLINEAR, PADDINGS, SHAPES

# Contracts, and what the algebra builds from registered operators (registered too where a factory does).
DERIVED = {"Adjoint", "Compose", "JPEGTransform", "LinearOperator", "Operator", "Scaled", "Stack", "Sum"}

# One random projection of the Jacobian instead of every entry.
gradcheck = functools.partial(torch.autograd.gradcheck, fast_mode=True)
gradgradcheck = functools.partial(torch.autograd.gradgradcheck, fast_mode=True)


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(operator: Operator, shape: Shape, rng: torch.Generator, batch: int = 2) -> Tensor:
    count = batch_of(operator)
    return torch.randn((count if count > 1 else batch, *shape), generator=rng, dtype=torch.float64)


def dense(operator: LinearOperator, shape: Shape) -> Tensor:
    """The matrix of an operator without per-image tensors."""
    n = math.prod(shape)
    columns = operator(torch.eye(n, dtype=torch.float64).reshape(n, *shape))
    return columns.reshape(n, -1).T


def test_every_exported_operator_is_registered() -> None:
    made: set[str] = set()

    def visit(value: object) -> None:
        if isinstance(value, Operator):
            made.add(type(value).__name__)
            for field in dataclasses.fields(value):
                visit(getattr(value, field.name))
        elif isinstance(value, tuple):
            for v in value:
                visit(v)

    for factory in (*LINEAR.values(), *NONLINEAR.values()):
        visit(factory((3, 8, 8), seeded()))
    exported = {n for n in operators.__all__ if inspect.isclass(getattr(operators, n))}
    exported = {n for n in exported if issubclass(getattr(operators, n), Operator)}
    assert exported - made - DERIVED == set()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_adjoint_matches_inner_product_for_every_linear_operator(shape: Shape) -> None:
    worst, checked = {}, 0
    for name, factory in LINEAR.items():
        rng = seeded()
        operator = factory(shape, rng)
        if operator is None:
            continue
        x = images_of(operator, shape, rng)
        y = operator(x)
        v = torch.randn(y.shape, generator=rng, dtype=torch.float64).to(y.dtype)
        prod = (v.conj() * y).real.flatten(1).sum(1) - (operator.adjoint(v) * x).real.flatten(1).sum(1)
        scale = y.flatten(1).norm(dim=1) * v.flatten(1).norm(dim=1)
        error = float((prod.abs() / scale.clamp_min(1e-300)).max())
        checked += 1
        if error > 1e-12:
            worst[name] = error
    assert worst == {}
    assert checked > 80


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 9)], ids=str)
def test_prox_and_pinv_equal_a_dense_solve_and_norm_is_a_bound(shape: Shape) -> None:
    failures = []
    for name, factory in LINEAR.items():
        rng = seeded()
        operator = factory(shape, rng)
        if (
            operator is None
            or batch_of(operator) > 1
            or not operator(torch.zeros(1, *shape).double()).is_floating_point()
        ):
            continue
        A = dense(operator, shape)
        z = torch.randn((2, *shape), generator=rng, dtype=torch.float64)
        y = torch.randn(operator(z).shape, generator=rng, dtype=torch.float64)
        rows_y, rows_z = y.reshape(2, -1), z.reshape(2, -1)
        identity = torch.eye(A.shape[1], dtype=torch.float64)
        for step in (0.7, 50.0):
            expected = torch.linalg.solve(identity + step * A.T @ A, (rows_z + step * rows_y @ A).T).T
            got = operator.prox(z, y, step).reshape(2, -1)
            error = float((got - expected).norm() / expected.norm())
            if error > 1e-9:
                failures.append(f"{name} prox {error:.1e}")
        values = torch.linalg.svdvals(A)
        kept = values[values > 1e-12 * values[0]]
        # No algorithm in float64 does better than the condition number times the rounding unit.
        allowed = max(1e-9, 1e-14 * float(values[0] / kept[-1]))
        expected = rows_y @ torch.linalg.pinv(A, rtol=1e-12).T
        error = float((operator.pinv(y).reshape(2, -1) - expected).norm() / expected.norm().clamp_min(1e-300))
        if allowed < 1e-4 and error > allowed:
            failures.append(f"{name} pinv {error:.1e}, allowed {allowed:.1e}")
        norm = float(operator.norm(shape))
        if not (1 - 1e-6) * float(values[0]) <= norm <= 2.5 * float(values[0]):
            failures.append(f"{name} norm {norm:.4f}, true {float(values[0]):.4f}")
    assert failures == []


def test_smooth_inverse_solves_its_equation_for_every_linear_operator() -> None:
    worst, checked = {}, 0
    shape, weight = (3, 8, 8), torch.tensor([0.2, 1.5], dtype=torch.float64)
    for name, factory in LINEAR.items():
        rng = seeded()
        operator = factory(shape, rng)
        if operator is None or (isinstance(operator, operators.Blur) and operator.padding == "circular"):
            continue
        x = images_of(operator, shape, rng)
        back = operator.adjoint(operator(x))
        found = operator.smooth_inverse(operator(x), weight)
        expected = operator.gram(found) + weight.view(2, 1, 1, 1) * operators.Gradient().gram(found)
        error = float((expected - back).norm() / back.norm())
        checked += 1
        if error > 1.1e-5:
            worst[name] = error
    assert worst == {}
    assert checked > 60


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), torch.tensor([1.0, 0.0])], ids=str)
def test_smooth_inverse_refuses_a_weight_that_is_not_positive(weight: float | Tensor) -> None:
    for blur in (operators.Blur(torch.ones(3, 3) / 9), operators.Blur(torch.ones(3, 3) / 9, "zero")):
        with pytest.raises(RangeError, match="smooth_inverse: expected weight > 0"):
            blur.smooth_inverse(torch.rand(2, 1, 8, 8), weight)


@pytest.mark.parametrize("padding", PADDINGS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(x=images(max_side=20), kernel=random_kernels(max_side=9), seed=st.integers(0, 1000))
def test_blur_is_exact_or_refused_at_any_size(padding: str, x: Tensor, kernel: Tensor, seed: int) -> None:
    blur = operators.Blur(kernel, padding=padding)
    sides, size = kernel.shape[-2:], x.shape[-2:]
    if padding == "valid" and (sides[0] > size[0] or sides[1] > size[1]):
        with pytest.raises(ShapeError, match="at least as large as the kernel"):
            blur(x)
        return
    y = blur(x)
    v = torch.randn(y.shape, generator=seeded(seed), dtype=torch.float64)
    left, right = (y * v).sum(), (x * blur.adjoint(v)).sum()
    assert float((left - right).abs()) <= 1e-12 * float(y.norm() * v.norm()) + 1e-300
    assert float(y.norm()) <= float(blur.norm(tuple(x.shape[1:]))) * float(x.norm()) + 1e-300


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    x=images(max_side=19),
    factor=st.integers(1, 9),
    filter=st.sampled_from(["bicubic", "bilinear", "area"]),
    padding=st.sampled_from(["reflect", "replicate", "zero", "circular"]),
)
def test_downsample_is_exact_at_any_size_and_factor(
    x: Tensor, factor: int, filter: str, padding: str
) -> None:
    shape = tuple(x.shape[1:])
    down = operators.Downsample(factor, filter=filter, padding=padding, input_shape=shape)
    y = down(x)
    assert y.shape[-2:] == (-(-shape[1] // factor), -(-shape[2] // factor))
    v = torch.randn(y.shape, generator=seeded(), dtype=torch.float64)
    back = down.adjoint(v)
    assert back.shape == x.shape
    assert float(((y * v).sum() - (x * back).sum()).abs()) <= 1e-12 * float(y.norm() * v.norm()) + 1e-300
    prox = down.prox(x, v, 0.7)
    stationary = prox - x + 0.7 * down.adjoint(down(prox) - v)
    assert float(stationary.norm()) <= 1e-11 * float(x.norm() + v.norm())


def _some(names: list[str]) -> list[str]:
    """One of each family: the full law checker is slower than the dot test, which covers all."""
    return [n for n in names if not n.startswith(("blur-", "downsample-"))] + [
        "blur-circular-7x7",
        "blur-circular-2x2",
        "blur-reflect-2x7",
        "blur-replicate-4x4",
        "blur-zero-signed-per-channel",
        "blur-valid-3x3",
        "blur-reflect-larger-than-image",
        "downsample-2-bicubic-reflect",
        "downsample-3-area-circular",
        "downsample-4-bilinear-zero",
        "downsample-2-own3x5-circular",
        "downsample-gaussian-kernel",
    ]


@pytest.mark.parametrize("name", _some(list(LINEAR)))
def test_check_operator_passes_for(name: str, rng: torch.Generator) -> None:
    shape = (3, 12, 24)
    operator = LINEAR[name](shape, rng)
    assert operator is not None
    check_operator(operator, rng, input_shape=shape)


@pytest.mark.parametrize("name", list(NONLINEAR))
def test_check_operator_passes_for_nonlinear(name: str, rng: torch.Generator) -> None:
    shape = (3, 16, 16)
    operator = NONLINEAR[name](shape, rng)
    assert operator is not None
    check_operator(operator, rng, input_shape=shape)


@pytest.mark.parametrize("name", _some([]))
def test_gradcheck_of_product_adjoint_and_prox(name: str, rng: torch.Generator) -> None:
    shape = (1, 6, 6)
    operator = LINEAR[name](shape, rng)
    assert operator is not None
    x = torch.rand((1, *shape), generator=rng, dtype=torch.float64).requires_grad_(True)
    y = torch.rand(operator(x).shape, generator=rng, dtype=torch.float64).requires_grad_(True)
    assert gradcheck(operator, (x,))
    assert gradgradcheck(operator, (x,))
    assert gradcheck(operator.adjoint, (y,))
    assert gradcheck(lambda z, v: operator.prox(z, v, 0.7), (x, y))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sides", [(2, 3), (4, 5)], ids=["direct", "fft"])
def test_gradients_flow_to_the_kernel_through_product_prox_and_pinv(
    padding: str, sides: tuple[int, int], rng: torch.Generator
) -> None:
    x = torch.rand(1, 1, 5, 6, generator=rng, dtype=torch.float64)
    k = (torch.rand(sides, generator=rng, dtype=torch.float64) + 0.1).requires_grad_(True)
    y = torch.rand(operators.Blur(k, padding)(x).shape, generator=rng, dtype=torch.float64)
    assert gradcheck(lambda kernel: operators.Blur(kernel, padding)(x), (k,))
    assert gradcheck(lambda kernel: operators.Blur(kernel, padding).adjoint(y), (k,))
    assert gradcheck(lambda kernel: operators.Blur(kernel, padding).prox(x, y, 0.7), (k,))
    step = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda s: operators.Blur(k.detach(), padding).prox(x, y, s), (step,))
    # Random positive kernels are well enough conditioned here for finite differences of the pseudo-inverse.
    peaked = torch.zeros(sides, dtype=torch.float64)
    peaked[sides[0] // 2, sides[1] // 2] = 3.0
    k = (k.detach() + peaked).requires_grad_(True)
    y = y.requires_grad_(True)
    assert gradcheck(lambda kernel, v: operators.Blur(kernel, padding).pinv(v), (k, y))


@pytest.mark.parametrize("padding", ["reflect", "circular"])
def test_gradients_flow_to_an_own_downsampling_kernel(padding: str, rng: torch.Generator) -> None:
    x = torch.rand(1, 1, 6, 9, generator=rng, dtype=torch.float64)
    y = torch.rand(1, 1, 2, 3, generator=rng, dtype=torch.float64)
    k = (torch.rand(3, 4, generator=rng, dtype=torch.float64) + 0.1).requires_grad_(True)
    assert gradcheck(lambda kernel: operators.Downsample(3, kernel, padding)(x), (k,))
    assert gradcheck(lambda kernel: operators.Downsample(3, kernel, padding).prox(x, y, 2.0), (k,))


def test_a_second_derivative_of_an_iterative_prox_is_refused(rng: torch.Generator) -> None:
    x = torch.rand(1, 1, 6, 7, generator=rng, dtype=torch.float64, requires_grad=True)
    p = operators.Blur(torch.ones(2, 2), "reflect").prox(x, x.detach(), 1.0)
    (first,) = torch.autograd.grad(p.square().sum(), x, create_graph=True)
    with pytest.raises(CapabilityError, match="first derivatives of an iterative solution"):
        torch.autograd.grad(first.sum(), x)


def test_real_operators_act_on_real_and_imaginary_part(rng: torch.Generator) -> None:
    x = torch.randn(2, 3, 12, 24, generator=rng, dtype=torch.complex128)
    for name in _some([]):
        operator = LINEAR[name]((3, 12, 24), rng)
        assert operator is not None
        y = operator(x)
        assert torch.equal(y, torch.complex(operator(x.real), operator(x.imag)))
        v = torch.randn(y.shape, generator=rng, dtype=torch.complex128)
        gap = (y.conj() * v).sum() - (x.conj() * operator.adjoint(v)).sum()
        assert float(gap.abs()) <= 1e-12 * float(y.norm() * v.norm())


def test_operators_trace_whole_under_torch_compile(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 12, 24, generator=rng)
    for name in ("blur-reflect-2x2", "blur-circular-7x7", "downsample-2-bicubic-reflect"):
        operator = LINEAR[name]((3, 12, 24), rng)
        assert operator is not None
        operator = operator.to(torch.float32)
        traced = torch.compile(operator.__call__, backend="eager", fullgraph=True)
        assert torch.allclose(traced(x), operator(x), atol=1e-6)


@pytest.mark.slow
def test_operators_compile_to_machine_code(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 12, 24, generator=rng)
    operator = LINEAR["blur-reflect-2x2"]((3, 12, 24), rng)
    assert operator is not None
    operator = operator.to(torch.float32)
    assert torch.allclose(torch.compile(operator.__call__, fullgraph=True)(x), operator(x), atol=1e-6)
