"""Reduction by a whole factor: antialias, then keep one sample in factor x factor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from invrestore._checks import check_choice, check_count, check_device, check_shape, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import ShapeError
from invrestore.operators._base import DataStep, LinearOperator
from invrestore.operators._blur import check_kernel
from invrestore.operators._borders import extend, fold
from invrestore.operators._linalg import conjugate_gradient

__all__ = ["Downsample"]

FILTERS = ("area", "bicubic", "bilinear")
PADDINGS = ("circular", "reflect", "replicate", "zero")

_EIGEN_LIMIT = 1024
"""Largest measurement side whose 1-D Gram matrix is decomposed: 8 MB and under a second in float64."""


def _keys(t: float) -> float:
    """Cubic convolution kernel with a = -0.5 (Keys, 1981), the bicubic of Pillow and MATLAB."""
    t = abs(t)
    if t < 1:
        return (1.5 * t - 2.5) * t * t + 1
    return ((-0.5 * t + 2.5) * t - 4) * t + 2 if t < 2 else 0.0


def _taps(filter: str, factor: int) -> list[float]:
    """Antialiasing filter: the interpolation kernel stretched by ``factor``, at pixel centres, sum 1.

    The centre of a measured pixel lies between pixels for even factors and on one for odd factors; the
    number of taps has the parity of the factor.
    """
    support = {"area": 0.5, "bilinear": 1.0, "bicubic": 2.0}[filter]
    reach = math.ceil(support * factor - (factor - 1) / 2) - 1 if filter != "area" else 0
    offsets = [i - (factor - 1) / 2 for i in range(-reach, factor + reach)]
    if filter == "area":
        weights = [1.0] * factor
    elif filter == "bilinear":
        weights = [1 - abs(t) / factor for t in offsets]
    else:
        weights = [_keys(t / factor) for t in offsets]
    total = math.fsum(weights)
    return [w / total for w in weights]


class _Strided(torch.autograd.Function):
    """``_reduce`` with ``_spread`` as its derivative, which autograd would build from one slice per tap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Downsample, adjoint: bool, shape: Shape) -> Tensor:
        ctx.operator, ctx.adjoint, ctx.shape = operator, adjoint, tuple(x.shape[1:])
        return operator._spread(x, shape) if adjoint else operator._reduce(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        back = _Strided.apply(grad, ctx.operator, not ctx.adjoint, ctx.shape)
        return back, None, None, None


@dataclasses.dataclass(frozen=True, eq=False)
class Downsample(LinearOperator):
    """``y = (k * x)`` at the centre of each factor x factor block: a smaller picture of the same scene.

    Pixel (i, j) of y is centred where block (i, j) of x is. "bicubic" and "bilinear" are antialiased, the
    kernels stretched by the factor as in Pillow's ``resize`` and MATLAB's ``imresize``; away from the
    border the result is theirs. At the border they cut the kernel off and renormalise, here ``padding`` says
    what lies outside.

    Args:
        factor: Reduction along both axes, >= 1.
        filter: "bicubic" (Keys, a = -0.5, 4 x factor taps), "bilinear" (triangle, 2 x factor taps), "area"
            (mean of the block), or an own kernel (kh, kw) or (1, 1, kh, kw). An own kernel acts as in
            ``Blur`` and is sampled at (factor - 1) // 2 of each block, which keeps it centred when its sides
            have the parity of the factor and half a pixel early (odd sides) or late (even sides) when not.
            Gradients flow to it.
        padding: "reflect" (about the outer pixels), "replicate", "zero" or "circular".
        input_shape: (C, H, W) of the images, where the factor does not divide H and W: y then has
            ceil(H / factor) x ceil(W / factor) pixels and the adjoint returns to exactly this shape.

    Shapes:
        x: (B, C, H, W). y: (B, C, ceil(H / factor), ceil(W / factor)).

    Raises:
        RangeError: ``factor`` is below 1; an own kernel is not finite or sums to 0.
        UnknownNameError: No such filter or padding.
        ShapeError: On use: the factor does not divide the image and ``input_shape`` is not set.

    Example:
        >>> Downsample(4)(torch.ones(1, 3, 64, 32)).shape
        torch.Size([1, 3, 16, 8])

    Reference:
        Keys (1981), cubic convolution. ``prox`` and ``pinv`` solve the small system in A A^T, as Zhao et al.
        (2016) do in the Fourier domain for circular borders.
    """

    factor: int
    filter: str | Tensor = "bicubic"
    padding: str = "reflect"
    input_shape: Shape | None = None

    def __post_init__(self) -> None:
        check_count(self.name, "factor", self.factor)
        check_choice(self.name, "padding", self.padding, PADDINGS)
        if isinstance(self.filter, str):
            check_choice(self.name, "filter", self.filter, FILTERS)
        else:
            kernel = check_kernel(self.name, self.filter)
            if kernel.shape[:2] != (1, 1):
                raise ShapeError(
                    self.name,
                    expected="one kernel (kh, kw) or (1, 1, kh, kw)",
                    found=str(tuple(kernel.shape)),
                    remedy="Blur takes one for each image or channel; apply it first.",
                )
            object.__setattr__(self, "filter", kernel)
        if self.input_shape is not None:
            shape = tuple(self.input_shape)
            if len(shape) != 3 or not all(isinstance(n, int) and n >= 1 for n in shape):
                raise ShapeError(
                    self.name, expected="input_shape=(C, H, W) of whole numbers >= 1", found=str(shape)
                )
            object.__setattr__(self, "input_shape", shape)

    # Sizes and checks.

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """(C, ceil(H / factor), ceil(W / factor)).

        Raises:
            ShapeError: The factor does not divide the image and ``input_shape`` is not set.
        """
        height, width = input_shape[-2:]
        if self.input_shape is None and (height % self.factor or width % self.factor):
            shape = f"({', '.join(map(str, input_shape[-3:]))})"
            raise ShapeError(
                self.name,
                expected=f"image sides that factor={self.factor} divides",
                found=f"{height} x {width}",
                remedy=f"Downsample({self.factor}, input_shape={shape}) rounds up and finds its way back.",
            )
        return (*input_shape[:-2], -(-height // self.factor), -(-width // self.factor))

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """``input_shape``, or (C, factor H, factor W)."""
        if self.input_shape is not None:
            return self.input_shape
        return (*output_shape[:-2], self.factor * output_shape[-2], self.factor * output_shape[-1])

    def _check_input(self, x: object, where: str = "") -> Tensor:
        x = super()._check_input(x, where)
        self._check_kernel_device(where or self.name, "x", x)
        self.output_shape_of(tuple(x.shape[1:]))
        return x

    def _check_output(self, y: object, where: str) -> Tensor:
        y = super()._check_output(y, where)
        check_shape(where, "y", y, (None, None, None))
        self._check_kernel_device(where, "y", y)
        return y

    def _check_kernel_device(self, where: str, name: str, x: Tensor) -> None:
        if isinstance(self.filter, torch.Tensor):
            check_device(where, **{name: x, "filter": self.filter})

    def _borders(self, size: int, taps: int) -> tuple[int, int]:
        """Samples to add before and after an axis so that ``taps`` samples fit around every sampled pixel.

        The window of output i starts at i * factor in the extended axis; negative numbers cut samples off.
        """
        before = taps - 1 - taps // 2 - (self.factor - 1) // 2
        last = (-(-size // self.factor) - 1) * self.factor
        return before, last + taps - size - before

    # The two products.

    def _apply(self, x: Tensor) -> Tensor:
        return self._run(x, False, self.output_shape_of(tuple(x.shape[1:])))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._run(y, True, self.input_shape_of(tuple(y.shape[1:])))

    def _run(self, x: Tensor, adjoint: bool, shape: Shape) -> Tensor:
        if x.is_complex():
            return torch.complex(self._run(x.real, adjoint, shape), self._run(x.imag, adjoint, shape))
        if x.dtype in (torch.bfloat16, torch.float16):
            return self._run(x.float(), adjoint, shape).to(x.dtype)
        if isinstance(self.filter, torch.Tensor):
            return (
                self._convolve_adjoint(x, shape, self.filter) if adjoint else self._convolve(x, self.filter)
            )
        if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
            return _Strided.apply(x, self, adjoint, shape)  # type: ignore[no-any-return]
        return self._spread(x, shape) if adjoint else self._reduce(x)

    def _reduce(self, x: Tensor) -> Tensor:
        """The separable filter, rows first, so that the strided columns see 1/factor of the picture."""
        return self._reduce_axis(self._reduce_axis(x, -2), -1)

    def _spread(self, y: Tensor, shape: Shape) -> Tensor:
        """Adjoint of ``_reduce``."""
        return self._spread_axis(self._spread_axis(y, -1, shape[-1]), -2, shape[-2])

    def _reduce_axis(self, x: Tensor, axis: int) -> Tensor:
        """Filter and sample one axis: each tap times a strided view, summed."""
        assert isinstance(self.filter, str)
        taps = _taps(self.filter, self.factor)
        size = x.shape[axis]
        x = extend(x, axis, *self._borders(size, len(taps)), self.padding)
        span = (-(-size // self.factor) - 1) * self.factor + 1
        total: Tensor | None = None
        for offset, tap in enumerate(taps):
            index = slice(offset, offset + span, self.factor)
            view = x[..., index, :] if axis == -2 else x[..., index]
            total = view * tap if total is None else total.add_(view, alpha=tap)
        assert total is not None
        return total

    def _spread_axis(self, y: Tensor, axis: int, size: int) -> Tensor:
        """Adjoint of ``_reduce_axis``: each phase of the fine axis is a short filter of the coarse one.

        Fine sample m * factor + phase collects tap q * factor + phase of coarse sample m - q.
        """
        assert isinstance(self.filter, str)
        taps = _taps(self.filter, self.factor)
        turns = -(-len(taps) // self.factor)
        blocks = y.shape[axis] + turns - 1
        wide = F.pad(y, (0, 0, turns - 1, turns - 1) if axis == -2 else (turns - 1, turns - 1))
        phases = []
        for phase in range(self.factor):
            total: Tensor | None = None
            for q, tap in enumerate(taps[phase :: self.factor]):
                view = wide.narrow(axis, turns - 1 - q, blocks)
                total = view * tap if total is None else total.add_(view, alpha=tap)
            assert total is not None, "every named filter has at least factor taps"
            phases.append(total)
        fine = torch.stack(phases, axis).flatten(axis - 1, axis)
        before, after = self._borders(size, len(taps))
        return fold(fine.narrow(axis, 0, size + before + after), axis, before, after, self.padding)

    def _convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        for axis in (-2, -1):
            x = extend(x, axis, *self._borders(x.shape[axis], kernel.shape[axis]), self.padding)
        flipped = kernel.to(x.dtype).flip(-2, -1)
        y = F.conv2d(x.flatten(0, 1)[:, None], flipped, stride=self.factor)
        return y.view(*x.shape[:2], *y.shape[-2:])

    def _convolve_adjoint(self, y: Tensor, shape: Shape, kernel: Tensor) -> Tensor:
        flipped = kernel.to(y.dtype).flip(-2, -1)
        x = F.conv_transpose2d(y.flatten(0, 1)[:, None], flipped, stride=self.factor)
        x = x.view(*y.shape[:2], *x.shape[-2:])
        for axis in (-1, -2):
            before, after = self._borders(shape[axis], kernel.shape[axis])
            x = fold(x, axis, before, after, self.padding)
        return x

    # Closed forms: x = z + step A^T (I + step A A^T)^-1 (y - A z), and A A^T is small and structured.

    def _circulant(self, size: tuple[int, int], like: Tensor) -> Tensor | None:
        """Eigenvalues of ``A A^T`` on the spectrum of y where everything is circular, else None."""
        fine = (size[0] * self.factor, size[1] * self.factor)
        if self.padding != "circular" or (self.input_shape is not None and self.input_shape[1:] != fine):
            return None

        def make() -> Tensor:
            bare = self if self.input_shape is None else dataclasses.replace(self, input_shape=None)
            impulse = like.new_zeros(1, 1, *size)
            impulse[..., 0, 0] = 1
            spectrum: Tensor = torch.fft.rfft2(bare._apply(bare._adjoint(impulse)))
            return spectrum.real.clamp_min(0)

        return self._memo(("circulant", size, like.dtype, like.device), make)  # type: ignore[no-any-return]

    def _eigen(self, size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Eigenvectors of the rows and columns of ``A A^T``, their Kronecker product, and its eigenvalues."""
        if not isinstance(self.filter, str) or max(size) > _EIGEN_LIMIT:
            return None
        height, width = self.input_shape_of((1, *size))[-2:]

        def gram(n: int, fine: int) -> tuple[Tensor, Tensor]:
            lines = torch.eye(n, dtype=torch.float64, device=like.device)[:, None, None]
            values, vectors = torch.linalg.eigh(
                self._reduce_axis(self._spread_axis(lines, -1, fine), -1)[:, 0, 0]
            )
            return values, vectors

        def make() -> tuple[Tensor, Tensor, Tensor]:
            (rows, u), (columns, v) = gram(size[0], height), gram(size[1], width)
            values = (rows[:, None] * columns).clamp_min(0)
            return u.to(like.dtype), v.to(like.dtype), values.to(like.dtype)

        return self._memo(("eigen", size, like.dtype, like.device), make)  # type: ignore[no-any-return]

    def _spectral(
        self, size: tuple[int, int], like: Tensor
    ) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]] | None:
        """Eigenvalues of ``A A^T`` and a function that weighs the components of an image, or None."""
        values = self._circulant(size, like)
        if values is not None:
            return values, lambda r, weights: torch.fft.irfft2(torch.fft.rfft2(r) * weights, s=size)
        parts = self._eigen(size, like)
        if parts is None:
            return None
        u, v, values = parts
        return values, lambda r, weights: u @ ((u.mT @ r @ v) * weights) @ v.mT

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Spectral norm: exact up to rounding where ``prox`` has its closed form, else the general bound."""
        shape = input_shape or self.input_shape
        if shape is not None:
            out = self.output_shape_of(shape)
            kernel = self.filter if isinstance(self.filter, torch.Tensor) else torch.empty(0)
            with torch.no_grad():
                spectral = self._spectral(
                    (out[-2], out[-1]), torch.empty(0, dtype=torch.float64, device=kernel.device)
                )
                if spectral is not None:
                    return (spectral[0].amax().sqrt() * (1 + 1e-12)).to(kernel.dtype) * (
                        1 + torch.finfo(kernel.dtype).eps
                    )
        return super().norm(input_shape)

    @property
    def has_closed_form(self) -> bool:
        """True for circular padding, and for the named filters with any padding."""
        return self.padding == "circular" or isinstance(self.filter, str)

    def data_step(self, y: Tensor) -> DataStep:
        """``prox`` for a fixed ``y``: ``x = z + step A^T (I + step A A^T)^-1 (y - A z)``.

        The inverse is exact and cheap: for circular padding a division in the Fourier domain of y, for the
        named filters a product with the eigenvectors of the two 1-D Gram matrices (y up to 1024 a side). Own
        kernels with other paddings, and larger images, use conjugate gradients in the size of y.
        """
        if y.is_complex():
            return super().data_step(y)
        work = y.float() if y.dtype in (torch.bfloat16, torch.float16) else y
        spectral = self._spectral((y.shape[-2], y.shape[-1]), work)

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            s = expand(step, z)
            point = z.to(work.dtype)
            residual = work - self(point)
            if spectral is None:
                solved = conjugate_gradient(lambda v: v + s * self(self.adjoint(v)), residual)
            else:
                values, multiply = spectral
                solved = multiply(residual, 1 / (1 + s * values))
            return (point + s * self.adjoint(solved)).to(z.dtype)

        return step_from

    def pinv(self, y: Tensor) -> Tensor:
        """Minimum-norm least-squares solution ``A^T (A A^T)^+ y``.

        Eigenvalues of ``A A^T`` up to 10 max(h, w) eps of the largest count as 0, h and w the sides of y. Own
        kernels with other than circular padding, and y beyond 1024 a side, use the general version.
        """
        y = self._check_output(y, f"{self.name}.pinv")
        if y.is_complex():
            return torch.complex(self.pinv(y.real), self.pinv(y.imag))
        if y.dtype in (torch.bfloat16, torch.float16):
            return self.pinv(y.float()).to(y.dtype)
        spectral = self._spectral((y.shape[-2], y.shape[-1]), y)
        if spectral is None:
            return super().pinv(y)
        values, multiply = spectral
        kept = values > 10 * max(y.shape[-2:]) * torch.finfo(y.dtype).eps * values.amax()
        return self._adjoint(multiply(y, torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)))
