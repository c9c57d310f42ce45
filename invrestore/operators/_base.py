"""The two contracts every forward model fulfils, and the algebra on them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from invrestore._checks import (
    check_batch_tensor,
    check_shape,
    check_step,
    check_tensor,
    expand,
)
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import CapabilityError, ShapeError

if TYPE_CHECKING:
    import scipy.sparse.linalg

__all__ = ["DataStep", "LinearOperator", "Operator"]

DataStep = Callable[[Tensor, PerImage], Tensor]
"""``(z, step) -> argmin_x step/2 ||A x - y||^2 + 1/2 ||x - z||^2`` for a measurement ``y`` fixed earlier."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operator(ABC):
    """Forward model ``y = A(x)``: immutable, stateless, differentiable in ``x`` and in its own tensors.

    A subclass is a frozen dataclass that implements ``_apply`` and, where sizes change, ``input_shape_of``.
    Its tensor fields are its parameters: ``to`` moves them, autograd differentiates in them.

    Attributes:
        input_shape: Shape of one image (C, H, W), or None where any size fits.
        output_shape: Shape of one measurement, or None where it follows from the image.
        is_linear: True for LinearOperator and its subclasses.
        image_range: True where images in [0, 1] give measurements in about [0, 1], so that ``solve`` can
            tell 8-bit values passed by mistake.
    """

    is_linear: ClassVar[bool] = False
    image_range: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Class name, used in messages."""
        return type(self).__name__

    @property
    def input_shape(self) -> Shape | None:
        """Shape of one image (C, H, W), or None where any size fits."""
        return None

    @property
    def output_shape(self) -> Shape | None:
        """Shape of one measurement, or None where it follows from the image."""
        shape = self.input_shape
        return None if shape is None else self.output_shape_of(shape)

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """Shape of the measurement of an image of shape (C, H, W)."""
        return input_shape

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """Shape of the image behind a measurement; the inverse of ``output_shape_of``.

        Raises:
            ShapeError: The measurement does not tell the image size; give the operator an ``input_shape``.
        """
        return self.input_shape or output_shape

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """``A(x)`` for a checked ``x``."""

    def _check_input(self, x: object, where: str = "") -> Tensor:
        where = where or self.name
        x = check_tensor(where, "x", x)
        check_shape(where, "x", x, self.input_shape or (None, None, None))
        return x

    def _check_output(self, y: object, where: str) -> Tensor:
        y = check_tensor(where, "y", y)
        if self.output_shape is not None:
            check_shape(where, "y", y, self.output_shape)
        return y

    def __call__(self, x: Tensor) -> Tensor:
        """``A(x)`` for images (B, C, H, W).

        Raises:
            DTypeError: ``x`` is not a floating-point tensor.
            ShapeError: ``x`` does not fit.
        """
        return self._apply(self._check_input(x))

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Jacobian at ``x``, transposed, times ``v``; for a linear operator the adjoint of ``v``.

        Shapes:
            x: (B, C, H, W). v: as ``A(x)``. Returns: as x.
        """
        x = self._check_input(x, f"{self.name}.vjp")
        with torch.enable_grad():
            # A fresh leaf, so that the caller's graph is neither used nor grown unless asked for.
            point = x if x.requires_grad else x.detach().requires_grad_(True)
            out = self._apply(point)
        if not out.requires_grad:
            raise CapabilityError(
                f"{self.name}.vjp",
                expected="a forward model that autograd can differentiate",
                found="a result without gradient",
                remedy="Does it round, use numpy or detach()? Write it with differentiable torch operations.",
            )
        (grad,) = torch.autograd.grad(out, point, v, create_graph=torch.is_grad_enabled() and x.requires_grad)
        return grad

    def estimate_sigma(self, y: Tensor) -> Tensor:
        """Noise standard deviation of each measurement, shape (B,), from ``y`` alone.

        The median absolute deviation of the finest diagonal Haar coefficients over the last two axes,
        divided by 0.6745 (Donoho and Johnstone, 1994). Operators whose measurement is not a smooth
        picture override it.
        """
        from invrestore.operators._noise import estimate_sigma

        return estimate_sigma(y)

    def to(self, target: torch.device | torch.dtype | str) -> Self:
        """Copy with every tensor, also of nested operators, moved to a device or converted to a real dtype."""

        def move(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                if isinstance(target, torch.dtype) and not value.is_floating_point():
                    return value.to(target.to_complex()) if value.is_complex() else value
                return value.to(target)
            if isinstance(value, Operator):
                return value.to(target)
            if isinstance(value, tuple):
                return tuple(move(v) for v in value)
            return value

        changes = {f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self) if f.init}
        return dataclasses.replace(self, **changes)

    def tensors(self) -> list[Tensor]:
        """Every tensor the operator is made of, nested operators included."""
        found: list[Tensor] = []

        def collect(value: Any) -> None:
            if isinstance(value, torch.Tensor):
                found.append(value)
            elif isinstance(value, Operator):
                found.extend(value.tensors())
            elif isinstance(value, tuple):
                for v in value:
                    collect(v)

        for field in dataclasses.fields(self):
            collect(getattr(self, field.name))
        return found

    def _memo(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Constant derived from the operator's tensors (a transfer function, a bound), kept for the next call.

        Nothing observable depends on it: the key must name everything the value depends on besides the
        tensors, whose version counters are added here, and nothing is kept while autograd or a compiler looks on.
        """
        tensors = self.tensors()
        if (
            torch.compiler.is_compiling()
            or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
            or any(t.is_inference() for t in tensors)
        ):
            return make()
        full = (*key, *(t._version for t in tensors))
        memo = self.__dict__.setdefault("_memory", {})
        if full not in memo:
            if len(memo) >= 8:
                memo.pop(next(iter(memo)))
            with torch.no_grad():
                memo[full] = make()
        return memo[full]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_memory"}

    def __matmul__(self, other: Operator) -> Operator:
        """``(A @ B)(x) = A(B(x))``."""
        from invrestore.operators._compose import compose

        if not isinstance(other, Operator):
            return NotImplemented
        return compose(self, other)

    # deepinv's names, so that its algorithms accept our operators unchanged.
    def A(self, x: Tensor, **_: object) -> Tensor:
        """``A(x)`` under deepinv's name."""
        return self(x)

    def A_vjp(self, x: Tensor, v: Tensor, **_: object) -> Tensor:
        """``vjp`` under deepinv's name."""
        return self.vjp(x, v)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearOperator(Operator):
    """Linear forward model: adds the adjoint, the norm, the proximal map, the pseudo-inverse and algebra.

    A subclass implements ``_apply`` and ``_adjoint``; ``norm``, ``data_step`` and ``pinv`` have general
    versions here that a subclass with a closed form overrides.
    """

    is_linear: ClassVar[bool] = True

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """Adjoint for a checked ``y``."""

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: <A x, y> = <x, A^H y>.

        Raises:
            DTypeError: ``y`` is not a floating-point tensor.
            ShapeError: ``y`` is no measurement of this operator.
        """
        return self._adjoint(self._check_output(y, f"{self.name}.adjoint"))

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """The adjoint of ``v``; ``x`` only has to be an image."""
        return self.adjoint(v)

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator; ``A.H.H`` is ``A``."""
        from invrestore.operators._compose import Adjoint

        return Adjoint(self)

    def gram(self, x: Tensor) -> Tensor:
        """``A^H A x``."""
        return self.adjoint(self(x))

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Upper bound on the spectral norm, shape () or (B,) for operators with one kernel per image.

        Closed form where there is one. Otherwise Lanczos from a fixed random start, enlarged so that it
        bounds the norm with probability 1 - 1e-6 (Kuczynski and Wozniakowski, 1992, theorem 3.2).

        Args:
            input_shape: (C, H, W) the bound is for; needed when ``self.input_shape`` is None and no
                closed form exists.
        """
        from invrestore.operators._linalg import lanczos_norm_bound

        shape = input_shape or self.input_shape
        if shape is None:
            raise ShapeError(
                f"{self.name}.norm",
                expected="input_shape=(C, H, W)",
                found="None",
                remedy="The operator fits any size.",
            )
        return self._memo(("norm", shape), lambda: lanczos_norm_bound(self, shape))  # type: ignore[no-any-return]

    @property
    def has_closed_form(self) -> bool:
        """Whether ``data_step`` and ``pinv`` are closed forms, so that solvers may call them at every step."""
        return type(self).data_step is not LinearOperator.data_step

    def data_step(self, y: Tensor) -> DataStep:
        """``prox`` with everything that depends on ``y`` alone computed once; what solvers call in their loop.

        The general version solves ``(I + step A^H A) x = z + step A^H y`` by conjugate gradients to a
        relative residual of 1e-6 in float32 and 1e-12 in float64.
        """
        from invrestore.operators._linalg import conjugate_gradient

        back = self.adjoint(y)

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            s = expand(step, z)
            return conjugate_gradient(lambda x: x + s * self.gram(x), z + s * back, init=z)

        return step_from

    def prox(self, z: Tensor, y: Tensor, step: PerImage) -> Tensor:
        """argmin_x step/2 ||A x - y||^2 + 1/2 ||x - z||^2.

        Args:
            z: Point to stay near, (B, C, H, W).
            y: Measurement, (B, *output_shape).
            step: Weight of the data, >= 0; a number or (B,).

        Raises:
            RangeError: ``step`` is negative or not finite.
        """
        where = f"{self.name}.prox"
        check_step(where, step)
        return self.data_step(self._check_output(y, where))(self._check_input(z, where), step)

    def pinv(self, y: Tensor) -> Tensor:
        """Minimum-norm least-squares solution ``A^+ y``.

        The general version runs LSQR-type iterations (conjugate gradients on the normal equations, from
        zero) until the normal residual falls to 1e-6 relative in float32 and 1e-13 in float64.
        """
        from invrestore.operators._linalg import least_squares

        return least_squares(self, self._check_output(y, f"{self.name}.pinv"))

    def smooth_inverse(self, y: Tensor, weight: PerImage) -> Tensor:
        """Smooth image that fits ``y``: the minimiser of ``1/2 ||A x - y||^2 + weight/2 ||D x||^2``.

        D takes forward differences. The general version runs conjugate gradients with `operators.Gradient` until
        the residual falls to 1e-5 of ``||A^H y||``.

        Args:
            y: Measurement, (B, *output_shape).
            weight: > 0, a number or (B,). The squared ratio of the noise level to the standard deviation of the
                image's differences gives the best linear estimate, if those are independent.

        Returns:
            (B, C, H, W).

        Raises:
            RangeError: ``weight`` is not positive and finite (unseen on another device than the CPU).
            ShapeError: ``weight`` has another length than the batch.

        Reference:
            Hunt (1973), The application of constrained least squares estimation to image restoration.
        """
        from invrestore.operators._gradient import Gradient
        from invrestore.operators._linalg import conjugate_gradient

        y = self._check_smooth_inverse(y, weight)
        back, differences = self.adjoint(y), Gradient()
        factor = expand(weight, back)
        return conjugate_gradient(lambda x: self.gram(x) + factor * differences.gram(x), back, rtol=1e-5)

    def _check_smooth_inverse(self, y: Tensor, weight: PerImage) -> Tensor:
        where = f"{self.name}.smooth_inverse"
        y = self._check_output(y, where)
        check_step(where, weight, "weight", positive=True)
        check_batch_tensor(where, "weight", weight, y.shape[0])
        return y

    def initial(self, y: Tensor, input_shape: Shape) -> Tensor:
        """Cheap first image for a solver: ``y`` where it has the image's shape, else ``A^H y`` scaled to fit ``y``.

        Args:
            y: Measurement, (B, *output_shape).
            input_shape: (C, H, W) of the image.
        """
        if tuple(y.shape[1:]) == tuple(input_shape):
            return y.clone()
        from invrestore.operators._linalg import per_image_dot

        back = self.adjoint(y)
        seen = self(back)
        energy = per_image_dot(seen, seen)
        factor = per_image_dot(seen, y) / torch.where(energy == 0, 1.0, energy)
        return expand(factor, back) * back

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """The image nearest to ``z`` that fits the data as well as possible: ``z - A^+ (A z - y)``."""
        return z - self.pinv(self(z) - y)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """``(A + B) x = A x + B x``."""
        from invrestore.operators._compose import Sum

        return Sum((self, other)) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """``(A - B) x = A x - B x``."""
        return self + (-1.0) * other if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: float | Tensor) -> LinearOperator:
        """``(A * c) x = c A x`` for a real number or a tensor of shape () or (B,)."""
        from invrestore.operators._compose import Scaled

        if isinstance(factor, Operator) or not isinstance(factor, int | float | torch.Tensor):
            return NotImplemented
        return Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
        """``adjoint`` under deepinv's name."""
        return self.adjoint(y)

    def A_dagger(self, y: Tensor, **_: object) -> Tensor:
        """``pinv`` under deepinv's name."""
        return self.pinv(y)

    def A_adjoint_A(self, x: Tensor, **_: object) -> Tensor:
        """``gram`` under deepinv's name."""
        return self.gram(x)

    def A_A_adjoint(self, y: Tensor, **_: object) -> Tensor:
        """``A A^H y`` under deepinv's name."""
        return self(self.adjoint(y))

    def prox_l2(self, z: Tensor, y: Tensor, gamma: PerImage, **_: object) -> Tensor:
        """``prox`` under deepinv's name; ``gamma`` may also have deepinv's shape (B, 1, 1, 1)."""
        if isinstance(gamma, torch.Tensor) and gamma.ndim > 1:
            gamma = gamma.flatten()
        return self.prox(z, y, gamma)

    def compute_sqnorm(self, x0: Tensor, **_: object) -> Tensor:
        """``norm(...)^2`` under deepinv's name, for images of the shape of ``x0`` (C, H, W) or (B, C, H, W)."""
        return self.norm(tuple(x0.shape[-3:])) ** 2

    def to_scipy(
        self, input_shape: Shape, dtype: torch.dtype = torch.float64
    ) -> scipy.sparse.linalg.LinearOperator:
        """The operator on flattened images, for ``scipy.sparse.linalg.lsqr``, ``cg`` and the like.

        Args:
            input_shape: (C, H, W) of the image.
            dtype: Floating type the products are computed in.
        """
        from invrestore.operators._interop import to_scipy

        return to_scipy(self, input_shape, dtype)

    def to_deepinv(self, input_shape: Shape | None = None) -> Any:
        """The operator as a real ``deepinv.physics.LinearPhysics``."""
        from invrestore.operators._interop import to_deepinv

        return to_deepinv(self, input_shape)
