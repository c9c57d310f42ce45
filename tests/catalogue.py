"""The register of operators every law is tested on.

A factory takes the image shape (C, H, W) and a seeded generator and returns a float64 operator, or None where
the operator refuses that shape by design. Register each operator once, in the options that change its code
path; ``tests/operators/test_laws.py`` does the rest and fails when an exported class is missing here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from invrestore import kernels, operators
from invrestore._types import Shape
from invrestore.operators import LinearOperator, Operator

LinearFactory = Callable[[Shape, torch.Generator], LinearOperator | None]
NonlinearFactory = Callable[[Shape, torch.Generator], Operator | None]

LINEAR: dict[str, LinearFactory] = {}
NONLINEAR: dict[str, NonlinearFactory] = {}

SHAPES: tuple[Shape, ...] = ((3, 8, 8), (3, 17, 23), (1, 33, 16), (2, 1, 9))
KERNEL_SIDES = ((1, 1), (2, 2), (3, 3), (4, 4), (7, 7), (1, 5), (2, 7))
PADDINGS = ("circular", "reflect", "replicate", "zero", "valid")


def linear(name: str) -> Callable[[LinearFactory], LinearFactory]:
    """Register a factory of linear operators under a unique name."""

    def register(factory: LinearFactory) -> LinearFactory:
        assert name not in LINEAR, name
        LINEAR[name] = factory
        return factory

    return register


def nonlinear(name: str) -> Callable[[NonlinearFactory], NonlinearFactory]:
    """Register a factory of nonlinear operators under a unique name."""

    def register(factory: NonlinearFactory) -> NonlinearFactory:
        assert name not in NONLINEAR, name
        NONLINEAR[name] = factory
        return factory

    return register


def random_kernel(shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """Positive random kernels of sum 1, float64."""
    k = torch.rand(shape, generator=rng, dtype=torch.float64) + 0.01
    return k / k.sum((-2, -1), keepdim=True)


@linear("identity")
def _identity(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.Identity()


def _register_blurs() -> None:
    for padding in PADDINGS:
        for sides in KERNEL_SIDES:

            def blur(
                shape: Shape, rng: torch.Generator, padding: str = padding, sides: tuple[int, int] = sides
            ) -> LinearOperator | None:
                if padding == "valid" and (sides[0] > shape[1] or sides[1] > shape[2]):
                    return None
                return operators.Blur(random_kernel(sides, rng), padding=padding)

            linear(f"blur-{padding}-{sides[0]}x{sides[1]}")(blur)

        def signed(shape: Shape, rng: torch.Generator, padding: str = padding) -> LinearOperator | None:
            if padding == "valid" and min(shape[1:]) < 5:
                return None
            kernel = torch.randn(1, shape[0], 5, 5, generator=rng, dtype=torch.float64)
            return operators.Blur(kernel, padding=padding)

        linear(f"blur-{padding}-signed-per-channel")(signed)


_register_blurs()


@linear("blur-circular-larger-than-image")
def _wrapped(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.Blur(random_kernel((19, 31), rng))


@linear("blur-reflect-larger-than-image")
def _reflected(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.Blur(random_kernel((19, 31), rng), padding="reflect")


def _register_downsamples() -> None:
    for factor in (1, 2, 3, 4, 8):
        for filter in ("bicubic", "bilinear", "area"):
            for padding in ("reflect", "replicate", "zero", "circular"):

                def down(
                    shape: Shape,
                    rng: torch.Generator,
                    factor: int = factor,
                    filter: str = filter,
                    padding: str = padding,
                ) -> LinearOperator:
                    divides = shape[1] % factor == 0 and shape[2] % factor == 0
                    return operators.Downsample(
                        factor, filter=filter, padding=padding, input_shape=None if divides else shape
                    )

                linear(f"downsample-{factor}-{filter}-{padding}")(down)
    for padding in ("reflect", "circular"):
        for sides in ((1, 1), (2, 4), (3, 5)):

            def own(
                shape: Shape, rng: torch.Generator, padding: str = padding, sides: tuple[int, int] = sides
            ) -> LinearOperator:
                return operators.Downsample(
                    2, filter=random_kernel(sides, rng), padding=padding, input_shape=shape
                )

            linear(f"downsample-2-own{sides[0]}x{sides[1]}-{padding}")(own)


_register_downsamples()


@linear("downsample-gaussian-kernel")
def _gaussian(shape: Shape, rng: torch.Generator) -> LinearOperator:
    kernel = kernels.gaussian((1.0, 0.6), angle=0.3).double()
    return operators.Downsample(3, filter=kernel, padding="replicate", input_shape=shape)


# Pointwise operators, colour, compression and algebra.


@linear("mask-boolean")
def _mask_boolean(shape: Shape, rng: torch.Generator) -> LinearOperator:
    mask = torch.rand(shape[1:], generator=rng) < 0.5
    mask[0, 0] = True
    return operators.Mask(mask)


@linear("mask-real-per-channel")
def _mask_real(shape: Shape, rng: torch.Generator) -> LinearOperator:
    mask = torch.randn(shape, generator=rng, dtype=torch.float64)
    return operators.Mask(mask * (torch.rand(shape, generator=rng) < 0.7))


@linear("sparse-sampling")
def _sparse(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.SparseSampling(shape, keep=0.2, rng=rng)


@linear("sparse-sampling-guided")
def _sparse_guided(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.SparseSampling(shape, keep=0.3, guide=torch.rand(shape, generator=rng), rng=rng)


@linear("grayscale")
def _grayscale(shape: Shape, rng: torch.Generator) -> LinearOperator | None:
    return operators.Grayscale() if shape[0] == 3 else None


@linear("grayscale-own-weights")
def _grayscale_own(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.Grayscale(torch.randn(shape[0], generator=rng, dtype=torch.float64))


@linear("jpeg-transform-4:4:4")
def _jpeg_transform_full(shape: Shape, rng: torch.Generator) -> LinearOperator | None:
    return operators.JPEGTransform(shape, subsampling="4:4:4") if shape[0] in (1, 3) else None


@linear("jpeg-transform-4:2:0")
def _jpeg_transform_half(shape: Shape, rng: torch.Generator) -> LinearOperator | None:
    return operators.JPEGTransform(shape) if shape[0] in (1, 3) else None


@linear("compose")
def _compose(shape: Shape, rng: torch.Generator) -> LinearOperator:
    blur = operators.Blur(random_kernel((3, 3), rng))
    operator = operators.Mask(torch.rand(shape[1:], generator=rng, dtype=torch.float64) + 0.1) @ blur
    assert isinstance(operator, LinearOperator)
    return operator


@linear("sum")
def _sum(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.Blur(random_kernel((3, 3), rng), padding="replicate") - 0.5 * operators.Identity()


@linear("scaled")
def _scaled(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return -2.5 * operators.Blur(random_kernel((2, 3), rng))


@linear("adjoint")
def _adjoint(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.Blur(random_kernel((3, 4), rng), padding="zero").H


@linear("stack")
def _stack(shape: Shape, rng: torch.Generator) -> LinearOperator:
    parts = (operators.Identity(), operators.Grayscale(torch.rand(shape[0], generator=rng) + 0.1))
    operator = operators.stack(*parts, operators.Blur(random_kernel((3, 3), rng)), input_shape=shape)
    assert isinstance(operator, LinearOperator)
    return operator


@linear("from-scipy")
def _from_scipy(shape: Shape, rng: torch.Generator) -> LinearOperator:
    import scipy.sparse

    size = shape[0] * shape[1] * shape[2]
    rows = torch.randint(0, size, (3 * size,), generator=rng).numpy()
    columns = torch.randint(0, 50, (3 * size,), generator=rng).numpy()
    values = torch.randn(3 * size, generator=rng, dtype=torch.float64).numpy()
    return operators.from_scipy(scipy.sparse.csr_array((values, (columns, rows)), shape=(50, size)), shape)


@linear("from-deepinv")
def _from_deepinv(shape: Shape, rng: torch.Generator) -> LinearOperator:
    import deepinv

    mask = (torch.rand(shape, generator=rng) < 0.5).double()
    operator = operators.from_deepinv(deepinv.physics.Inpainting(img_size=shape, mask=mask))
    assert isinstance(operator, LinearOperator)
    return operator


@nonlinear("value")
def _value(shape: Shape, rng: torch.Generator) -> Operator | None:
    return operators.Value() if shape[0] == 3 else None


@nonlinear("quantize")
def _quantize(shape: Shape, rng: torch.Generator) -> Operator:
    return operators.Quantize(5)


@nonlinear("quantize-soft")
def _quantize_soft(shape: Shape, rng: torch.Generator) -> Operator:
    return operators.Quantize(4, gradient="soft")


@nonlinear("jpeg-4:2:0")
def _jpeg(shape: Shape, rng: torch.Generator) -> Operator | None:
    return operators.JPEG(40) if shape[0] in (1, 3) else None


@nonlinear("jpeg-4:4:4-soft")
def _jpeg_soft(shape: Shape, rng: torch.Generator) -> Operator | None:
    return operators.JPEG(80, subsampling="4:4:4", gradient="soft") if shape[0] in (1, 3) else None


@nonlinear("callable")
def _callable(shape: Shape, rng: torch.Generator) -> Operator:
    return operators.Callable(lambda x: x**2)


@nonlinear("compose-nonlinear")
def _compose_nonlinear(shape: Shape, rng: torch.Generator) -> Operator:
    return operators.Quantize(5) @ operators.Blur(random_kernel((3, 3), rng))


@nonlinear("stack-nonlinear")
def _stack_nonlinear(shape: Shape, rng: torch.Generator) -> Operator:
    return operators.stack(operators.Quantize(3), operators.Identity(), input_shape=shape)


@linear("wavelet")
def _wavelet(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.WaveletTransform("db2", levels=2)


@linear("wavelet-frame")
def _wavelet_frame(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.WaveletTransform("sym4", shifts=3)


@linear("gradient")
def _gradient(shape: Shape, rng: torch.Generator) -> LinearOperator:
    return operators.Gradient()
