"""deepinv and scipy in and out: copied, tested at entry, differentiable, and used by their own algorithms."""

from __future__ import annotations

import subprocess
import sys
import warnings

import deepinv
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from invrestore.errors import CapabilityError, DTypeError, RangeError, ShapeError
from invrestore.operators import (
    Callable,
    Grayscale,
    Identity,
    LinearOperator,
    Mask,
    Quantize,
    Stack,
    Value,
    as_operator,
    from_deepinv,
    from_scipy,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

physics = deepinv.physics


def normal(rng: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=rng, dtype=dtype)


def gap(A: LinearOperator, shape: tuple[int, ...], rng: torch.Generator, dtype: torch.dtype) -> float:
    """|<A x, v> - <x, A^H v>| / (|A x| |v|)."""
    x = normal(rng, 2, *shape, dtype=dtype)
    y = A(x)
    v = normal(rng, *y.shape, dtype=dtype)
    assert y.dtype == A.adjoint(v).dtype == dtype
    return abs(float((y * v).sum() - (x * A.adjoint(v)).sum())) / float(y.norm() * v.norm())


def half(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return (torch.rand(*shape, generator=rng) < 0.5).float()


PHYSICS = {
    "tomography": (
        lambda rng: physics.Tomography(angles=9, img_width=16, normalize=False),
        (1, 16, 16),
        (1, 16, 16),
    ),
    "mri": (
        lambda rng: physics.MRI(mask=half(rng, 1, 1, 12, 16), img_size=(2, 12, 16)),
        (2, 12, 16),
        (2, 12, 16),
    ),
    "blurfft": (
        lambda rng: physics.BlurFFT(img_size=(3, 16, 12), filter=physics.blur.gaussian_blur(sigma=1.0)),
        (3, 16, 12),
        (3, 16, 12),
    ),
    "blur": (lambda rng: physics.Blur(filter=physics.blur.gaussian_blur(sigma=1.0)), None, (3, 16, 16)),
    "decolorize": (lambda rng: physics.Decolorize(), None, (3, 8, 9)),
    "inpainting": (lambda rng: physics.Inpainting((3, 9, 8), mask=half(rng, 3, 9, 8)), (3, 9, 8), (3, 9, 8)),
    "denoising": (lambda rng: physics.Denoising(), None, (2, 5, 6)),
    "downsampling": (
        lambda rng: physics.Downsampling(img_size=(3, 16, 16), factor=2, filter="bicubic"),
        (3, 16, 16),
        (3, 16, 16),
    ),
}


@pytest.mark.parametrize("name", PHYSICS)
def test_linear_physics_become_linear_operators_with_exact_adjoints(rng: torch.Generator, name: str) -> None:
    make, known, shape = PHYSICS[name]
    theirs = make(rng)
    A = from_deepinv(theirs)
    assert isinstance(A, LinearOperator)
    assert A.input_shape == known
    x = normal(rng, 2, *shape, dtype=torch.float32)
    torch.testing.assert_close(A(x), theirs.A(x), rtol=1e-5, atol=1e-5)
    assert A.output_shape_of(shape) == tuple(A(x).shape[1:])
    assert A.input_shape_of(A.output_shape_of(shape)) == shape
    assert gap(A, shape, rng, torch.float32) < 1e-5
    assert gap(A.to(torch.float64), shape, rng, torch.float64) < 1e-13


@pytest.mark.parametrize("name", PHYSICS)
def test_prox_of_a_wrapped_physics_satisfies_the_normal_equations(rng: torch.Generator, name: str) -> None:
    make, _, shape = PHYSICS[name]
    A = from_deepinv(make(rng)).to(torch.float64)
    assert isinstance(A, LinearOperator)
    z = normal(rng, 2, *shape)
    y = normal(rng, 2, *A.output_shape_of(shape))
    x = A.prox(z, y, 0.7)
    residual = x - z + 0.7 * A.adjoint(A(x) - y)
    assert float(residual.norm() / z.norm()) < 1e-9


@pytest.mark.parametrize("name", ["tomography", "blurfft", "decolorize", "downsampling"])
def test_norm_of_a_wrapped_physics_bounds_the_gain(rng: torch.Generator, name: str) -> None:
    make, _, shape = PHYSICS[name]
    A = from_deepinv(make(rng)).to(torch.float64)
    assert isinstance(A, LinearOperator)
    n = int(np.prod(shape))
    matrix = A(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1)
    true = float(torch.linalg.matrix_norm(matrix, 2))
    assert true <= float(A.norm(shape)) * (1 + 1e-9)
    assert float(A.norm(shape)) < 1.1 * true


def test_decolorize_keeps_the_null_space_in_its_prox(rng: torch.Generator) -> None:
    """deepinv's own prox drops it."""
    A = from_deepinv(physics.Decolorize()).to(torch.float64)
    assert isinstance(A, LinearOperator)
    z, y = normal(rng, 1, 3, 4, 4), normal(rng, 1, 1, 4, 4)
    moved = A.prox(z, y, 2.0) - z
    weights = A.adjoint(torch.ones(1, 1, 4, 4, dtype=torch.float64))
    across = moved - weights * (moved * weights).sum(1, keepdim=True) / (weights**2).sum(1, keepdim=True)
    assert float(across.abs().max()) < 1e-10


def test_the_physics_is_copied_so_that_later_changes_do_not_reach_the_operator(rng: torch.Generator) -> None:
    theirs = physics.Blur(filter=physics.blur.gaussian_blur(sigma=1.0), padding="circular")
    A = from_deepinv(theirs)
    x = normal(rng, 1, 1, 16, 16, dtype=torch.float32)
    before = A(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.update_parameters(filter=torch.rand(1, 1, 5, 5, generator=rng))
        theirs.A(x)
    assert torch.equal(A(x), before)
    assert not torch.equal(theirs.A(x), before)


def test_a_cached_adjoint_of_the_original_is_not_carried_along(rng: torch.Generator) -> None:
    """deepinv's Tomography keeps the adjoint of its first call, dtype included."""
    theirs = physics.Tomography(angles=5, img_width=8, normalize=False)
    theirs.A_adjoint(theirs.A(torch.zeros(1, 1, 8, 8)))
    A = from_deepinv(theirs)
    assert isinstance(A, LinearOperator)
    assert gap(A.to(torch.float64), (1, 8, 8), rng, torch.float64) < 1e-13


def test_the_noise_model_is_left_out(rng: torch.Generator) -> None:
    A = from_deepinv(physics.Denoising(physics.GaussianNoise(0.5)))
    x = normal(rng, 1, 1, 4, 4, dtype=torch.float32)
    assert torch.equal(A(x), x)


def test_conversion_keeps_complex_buffers_complex(rng: torch.Generator) -> None:
    A = from_deepinv(PHYSICS["blurfft"][0](rng))
    doubled = A.to(torch.float64)
    kinds = {t.dtype for t in doubled.tensors() if t.ndim}
    assert torch.complex128 in kinds
    assert kinds <= {torch.complex128, torch.float64}
    x = normal(rng, 1, 3, 16, 12)
    torch.testing.assert_close(doubled(x).float(), A(x.float()), rtol=1e-5, atol=1e-5)
    assert torch.complex64 in {t.dtype for t in A.tensors()}, "the original is untouched"


def test_double_images_pass_a_single_precision_physics(rng: torch.Generator) -> None:
    A = from_deepinv(physics.Tomography(angles=5, img_width=8, normalize=False))
    assert gap(A, (1, 8, 8), rng, torch.float64) < 1e-5  # type: ignore[arg-type]


def test_a_wrong_adjoint_is_refused_with_the_ratio() -> None:
    wrong = physics.LinearPhysics(A=lambda x, **_: 2 * x, A_adjoint=lambda y, **_: y)
    with pytest.raises(CapabilityError, match=r"inner products with ratio 2 .*Correct A_adjoint"):
        from_deepinv(wrong)


def test_an_adjoint_of_another_shape_is_refused() -> None:
    wrong = physics.LinearPhysics(A=lambda x, **_: x[..., 1:], A_adjoint=lambda y, **_: y)
    with pytest.raises(CapabilityError, match=r"an adjoint that returns images of shape \(3, 16, 16\)"):
        from_deepinv(wrong)


def test_their_replicate_blur_with_a_small_kernel_is_caught_at_entry(rng: torch.Generator) -> None:
    """A kernel with a side of 1 has a wrong adjoint or crashes there; both end in a named error."""
    theirs = physics.Blur(filter=torch.rand(1, 1, 1, 2, generator=rng), padding="replicate")
    with pytest.raises((CapabilityError, ShapeError), match="from_deepinv"):
        from_deepinv(theirs)


def test_a_physics_of_unknown_size_that_refuses_small_images_asks_for_its_size() -> None:
    def picky(x: torch.Tensor, **_: object) -> torch.Tensor:
        return x.reshape(-1, 5, 7)

    theirs = physics.LinearPhysics(A=picky, A_adjoint=lambda y, **_: y.reshape(-1, 1, 5, 7))
    with pytest.raises(ShapeError, match=r"declares img_size.*input_shape=\(C, H, W\)"):
        from_deepinv(theirs)
    assert from_deepinv(theirs, (1, 5, 7)).output_shape == (5, 7)


def test_nonlinear_physics_become_nonlinear_operators(rng: torch.Generator) -> None:
    A = from_deepinv(physics.Physics(A=lambda x, **_: x**3))
    assert not A.is_linear
    x, v = normal(rng, 2, 1, 3, 3), normal(rng, 2, 1, 3, 3)
    torch.testing.assert_close(A.vjp(x, v), 3 * x**2 * v)


def test_stacked_physics_become_a_stack(rng: torch.Generator) -> None:
    theirs = physics.StackedLinearPhysics([physics.Denoising(), physics.Decolorize()])
    A = from_deepinv(theirs, (3, 4, 5))
    assert isinstance(A, Stack)
    x = normal(rng, 2, 3, 4, 5, dtype=torch.float32)
    assert torch.equal(A(x), A.join(list(theirs.A(x))))


def test_only_physics_are_taken() -> None:
    with pytest.raises(DTypeError, match=r"from_deepinv: expected a deepinv.physics.Physics, got Identity"):
        from_deepinv(Identity())
    with pytest.raises(ShapeError, match=r"input_shape \(C, H, W\), got \(4, 4\)"):
        from_deepinv(physics.Denoising(), (4, 4))


ALGORITHMS = ("PGD", "HQS", "ADMM", "DRS")


def _test_image() -> torch.Tensor:
    i = torch.arange(32)
    return 0.2 + 0.6 * (((i[:, None] - 15) ** 2 + (i - 12) ** 2) < 80).float().expand(1, 3, 32, 32)


def _psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_their_algorithms_take_our_operators_unchanged(rng: torch.Generator, algorithm: str) -> None:
    x = _test_image()
    theirs = physics.BlurFFT(img_size=(3, 32, 32), filter=physics.blur.gaussian_blur(sigma=1.2))
    A = from_deepinv(theirs)
    y = A(x) + 0.01 * normal(rng, *x.shape, dtype=torch.float32)

    def run(operator: object) -> torch.Tensor:
        model = deepinv.optim.optim_builder(
            algorithm,
            prior=deepinv.optim.TVPrior(n_it_max=20),
            data_fidelity=deepinv.optim.L2(),
            max_iter=15,
            params_algo={"stepsize": 1.0, "lambda": 0.003},
        )
        return model(y, operator)

    ours = run(A)
    torch.testing.assert_close(ours, run(theirs), rtol=0, atol=5e-3)
    assert _psnr(ours, x) > _psnr(y, x) + 1


def test_their_dpir_takes_our_operators_unchanged(rng: torch.Generator) -> None:
    x = _test_image()
    A = Mask(torch.rand(32, 32, generator=rng) < 0.7)
    y = A(x)
    model = deepinv.optim.DPIR(sigma=0.03, denoiser=deepinv.models.TVDenoiser(n_it_max=20))
    assert _psnr(model(y, A), x) > _psnr(y, x) + 4


def test_prox_under_their_name_takes_their_shape_of_gamma(rng: torch.Generator) -> None:
    A = Mask(torch.rand(4, 4, generator=rng) < 0.5)
    z, y = normal(rng, 2, 1, 4, 4), normal(rng, 2, 1, 4, 4)
    gamma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    expected = A.prox(z, y, gamma)
    assert torch.equal(A.prox_l2(z, y, gamma.view(2, 1, 1, 1)), expected)


@pytest.mark.parametrize("solver", ["CG", "minres", "lsqr"])
def test_prox_under_their_name_heeds_gamma_and_z_whatever_solver_is_named(
    rng: torch.Generator, solver: str
) -> None:
    A = Grayscale()
    z, y = normal(rng, 1, 3, 4, 4), normal(rng, 1, 1, 4, 4)
    first = A.prox_l2(z, y, 0.3, solver=solver, max_iter=1)
    assert torch.equal(first, A.prox(z, y, 0.3))
    assert not torch.allclose(first, A.prox_l2(z, y, 3.0, solver=solver))


def test_extra_arguments_of_a_call_under_their_name_change_nothing(rng: torch.Generator) -> None:
    A = Mask(torch.rand(4, 4, generator=rng) < 0.5)
    x = normal(rng, 1, 1, 4, 4)
    before = A(x)
    A.A(x, mask=torch.ones(4, 4), filter=torch.ones(1))
    assert torch.equal(A(x), before)


def test_norm_under_their_name_is_never_below_the_true_one(rng: torch.Generator) -> None:
    A = Mask(normal(rng, 8, 8))
    assert float(A.compute_sqnorm(torch.zeros(1, 8, 8))) == float(A.norm()) ** 2


def test_our_operators_become_their_linear_physics(rng: torch.Generator) -> None:
    A = Grayscale()
    theirs = A.to_deepinv((3, 6, 5))
    assert isinstance(theirs, physics.LinearPhysics)
    assert theirs.img_size == (3, 6, 5)
    x, y = normal(rng, 2, 3, 6, 5), normal(rng, 2, 1, 6, 5)
    assert torch.equal(theirs(x), A(x))
    assert torch.equal(theirs.A_adjoint(y), A.adjoint(y))
    assert torch.equal(theirs.A_dagger(y), A.pinv(y))
    assert torch.equal(theirs.prox_l2(x, y, 0.7), A.prox(x, y, 0.7))
    assert torch.equal(theirs.prox_l2(None, y, 0.7), A.prox(torch.zeros_like(x), y, 0.7))
    assert float(theirs.adjointness_test(img_size=(3, 6, 5), dtype=torch.float64)) < 1e-12


def test_their_physics_of_ours_moves_with_to_and_comes_back(rng: torch.Generator) -> None:
    A = Mask(torch.rand(4, 4, generator=rng))
    theirs = A.to_deepinv((1, 4, 4)).to(torch.float64)
    assert theirs.operator.mask.dtype == torch.float64
    x = normal(rng, 1, 1, 4, 4)
    assert torch.equal(from_deepinv(theirs)(x), A.to(torch.float64)(x))


def test_their_physics_of_ours_must_be_linear() -> None:
    from invrestore.operators._interop import to_deepinv, to_scipy

    with pytest.raises(DTypeError, match="to_deepinv: expected a LinearOperator, got Value"):
        to_deepinv(Value())  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="to_scipy: expected a LinearOperator, got Value"):
        to_scipy(Value(), (3, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(RangeError, match=r"dtype torch.float64 or torch.float32, got torch.bfloat16"):
        Identity().to_scipy((1, 4, 4), torch.bfloat16)


def _matrix(rng: torch.Generator) -> np.ndarray:
    return normal(rng, 7, 12).numpy()


@pytest.mark.parametrize(
    "wrap", [scipy.sparse.csr_array, scipy.sparse.coo_matrix, scipy.sparse.linalg.aslinearoperator]
)
def test_scipy_matrices_become_operators_with_gradients_of_any_order(rng: torch.Generator, wrap) -> None:
    matrix = _matrix(rng)
    A = from_scipy(wrap(matrix), (3, 2, 2))
    x = normal(rng, 2, 3, 2, 2).requires_grad_()
    y = normal(rng, 2, 7).requires_grad_()
    np.testing.assert_allclose(A(x).detach().numpy(), x.detach().flatten(1).numpy() @ matrix.T, rtol=1e-13)
    assert A.output_shape == (7,)
    assert torch.autograd.gradcheck(A, (x,))
    assert torch.autograd.gradcheck(A.adjoint, (y,))
    assert torch.autograd.gradgradcheck(lambda x: A(x) ** 2, (x,))
    torch.testing.assert_close(
        A.pinv(y).detach().flatten(1),
        y.detach() @ torch.from_numpy(np.linalg.pinv(matrix)).T,
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scipy_products_keep_the_dtype_of_the_image(rng: torch.Generator, dtype: torch.dtype) -> None:
    A = from_scipy(scipy.sparse.csr_array(_matrix(rng)), (3, 2, 2), (7, 1, 1))
    x = torch.ones(1, 3, 2, 2, dtype=dtype)
    assert A(x).dtype == A.adjoint(A(x)).dtype == dtype
    assert A(x).shape == (1, 7, 1, 1)


@pytest.mark.parametrize(
    ("matrix", "shape", "error", "message"),
    [
        (np.eye(4), (1, 2, 2), DTypeError, r"got ndarray.*scipy.sparse.csr_array"),
        (scipy.sparse.eye_array(4) * 1j, (1, 2, 2), DTypeError, "a real operator, got complex128"),
        (scipy.sparse.eye_array(4), (1, 2, 3), ShapeError, r"with 4 numbers, got \(1, 2, 3\)"),
        (scipy.sparse.eye_array(4), (4,), ShapeError, r"input_shape \(C, H, W\)"),
        (
            scipy.sparse.linalg.LinearOperator((4, 4), matvec=lambda v: v, dtype=float),
            (1, 2, 2),
            CapabilityError,
            "one without rmatvec",
        ),
        (
            scipy.sparse.linalg.LinearOperator(
                (4, 4), matvec=lambda v: 3 * v, rmatvec=lambda v: v, dtype=float
            ),
            (1, 2, 2),
            CapabilityError,
            "ratio 3",
        ),
    ],
)
def test_unusable_matrices_are_refused(
    matrix: object, shape: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_scipy(matrix, shape)


def test_a_measurement_shape_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"output_shape with 4 numbers, got \(5,\)"):
        from_scipy(scipy.sparse.eye_array(4), (1, 2, 2), (5,))


def test_scipys_solvers_run_on_our_operators(rng: torch.Generator) -> None:
    mask = torch.rand(5, 6, generator=rng) + 0.5
    A = Mask(mask).to_scipy((2, 5, 6))
    x = normal(rng, 1, 2, 5, 6)
    y = (mask.double() * x).numpy().ravel()
    np.testing.assert_allclose(A @ x.numpy().ravel(), y, rtol=1e-12)
    solution = scipy.sparse.linalg.lsqr(A, y, atol=1e-14, btol=1e-14)[0]
    np.testing.assert_allclose(solution, x.numpy().ravel(), rtol=1e-8, atol=1e-10)
    block = normal(rng, 60, 3).numpy()
    np.testing.assert_allclose(A @ block, np.stack([A @ c for c in block.T], 1), rtol=1e-12)
    np.testing.assert_allclose(A.H @ block, np.stack([A.H @ c for c in block.T], 1), rtol=1e-12)


def test_there_and_back_through_scipy_is_the_same_operator(rng: torch.Generator) -> None:
    A = Grayscale()
    again = from_scipy(A.to_scipy((3, 4, 5)), (3, 4, 5), (1, 4, 5))
    x = normal(rng, 2, 3, 4, 5)
    torch.testing.assert_close(again(x), A(x))


def test_as_operator_takes_everything_solve_takes(rng: torch.Generator) -> None:
    A = Identity()
    assert as_operator(A) is A
    assert as_operator(physics.Decolorize()).is_linear
    assert isinstance(as_operator(torch.sqrt), Callable)
    assert isinstance(as_operator(torch.nn.Conv2d(1, 1, 3)), Callable)
    square = scipy.sparse.eye_array(12)
    assert as_operator(square, measurement_shape=(3, 2, 2)).input_shape == (3, 2, 2)
    wide = as_operator(scipy.sparse.csr_array(_matrix(rng)), input_shape=(3, 2, 2), measurement_shape=(7,))
    assert (wide.input_shape, wide.output_shape) == ((3, 2, 2), (7,))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("blur", DTypeError, "as_operator: expected an invrestore operator, a deepinv Physics.* got str"),
        (np.eye(3), DTypeError, r"got ndarray.*from_scipy\(scipy.sparse.csr_array"),
        (Quantize, DTypeError, r"got the class Quantize. Make an instance: Quantize\(...\)"),
        (scipy.sparse.eye_array(12), ShapeError, r"a 12 x 12 operator.*from_scipy\(matrix, input_shape"),
    ],
)
def test_as_operator_refuses_what_is_no_operator(given: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_operator(given, measurement_shape=(7,))


def test_any_function_is_a_nonlinear_operator(rng: torch.Generator) -> None:
    A = Callable(lambda x: x[:, :1] ** 2, input_shape=(3, 4, 5))
    x = normal(rng, 2, 3, 4, 5)
    assert not A.is_linear
    assert A.output_shape_of((3, 4, 5)) == (1, 4, 5)
    assert A.input_shape_of((1, 4, 5)) == (3, 4, 5)
    v = normal(rng, 2, 1, 4, 5)
    expected = torch.zeros_like(x)
    expected[:, :1] = 2 * x[:, :1] * v
    torch.testing.assert_close(A.vjp(x, v), expected)
    with pytest.raises(ShapeError, match=r"x of shape \(B, 3, 4, 5\)"):
        A(torch.zeros(1, 3, 5, 5))


def test_a_function_that_keeps_shapes_tells_the_image_size_and_others_ask_for_it() -> None:
    assert Callable(torch.sin).input_shape_of((3, 4, 5)) == (3, 4, 5)
    for function in (lambda x: x[:, :, ::2], lambda x: x.reshape(x.shape[0], 3, 99)):
        with pytest.raises(ShapeError, match=r"input_shape=\(C, H, W\)\) tells the image size"):
            Callable(function).input_shape_of((3, 4, 5))


def test_bad_functions_are_refused() -> None:
    with pytest.raises(DTypeError, match="a function of one tensor, got int"):
        Callable(3)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"got the class Identity\. Make an instance first"):
        Callable(Identity)
    with pytest.raises(DTypeError, match=r"to return a torch.Tensor, got list"):
        Callable(lambda x: [x])(torch.zeros(1, 1, 2, 2))  # type: ignore[arg-type, return-value]
    with pytest.raises(ShapeError, match="one measurement for each of 2 images"):
        Callable(torch.sum)(torch.zeros(2, 1, 2, 2))
    with pytest.raises(CapabilityError, match=r"Callable.vjp: expected a forward model that autograd"):
        Callable(torch.detach).vjp(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))


def test_a_module_moves_no_hidden_gradients_into_its_weights(rng: torch.Generator) -> None:
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    A = Callable(network)
    A.vjp(torch.rand(1, 1, 5, 5, generator=rng), torch.ones(1, 1, 5, 5))
    assert all(p.grad is None for p in network.parameters())
    assert len(A.tensors()) == 2


def test_importing_the_operators_imports_neither_deepinv_nor_scipy() -> None:
    code = (
        "import sys, invrestore.operators as o, torch\n"
        "o.as_operator(torch.sin); o.as_operator(o.Identity())\n"
        "print([m for m in ('deepinv', 'scipy', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
