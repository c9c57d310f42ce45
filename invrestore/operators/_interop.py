"""Operators from and to deepinv and scipy, which are imported only once an object of theirs is at hand."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch

from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import CapabilityError, DTypeError, RangeError, ShapeError
from invrestore.operators._base import LinearOperator, Operator

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse.linalg

__all__ = [
    "DeepinvOperator",
    "LinearDeepinvOperator",
    "ScipyOperator",
    "from_deepinv",
    "from_scipy",
    "is_physics",
    "is_scipy",
    "to_deepinv",
    "to_scipy",
]


def _has_ancestor(obj: object, package: str, *names: str) -> bool:
    """Whether a class of that name from that package is among the object's types, without importing it."""
    return any(
        c.__name__ in names and (c.__module__ == package or c.__module__.startswith(f"{package}."))
        for c in type(obj).__mro__
    )


def is_physics(obj: object) -> bool:
    """Whether ``obj`` is a deepinv Physics."""
    return _has_ancestor(obj, "deepinv.physics", "Physics")


def is_scipy(obj: object) -> bool:
    """Whether ``obj`` is a scipy LinearOperator, sparse matrix or sparse array."""
    return _has_ancestor(obj, "scipy.sparse", "LinearOperator", "_spbase", "sparray", "spmatrix")


def _inner_product_test(where: str, operator: LinearOperator, shape: Shape, remedy: str) -> None:
    """Raise CapabilityError unless <A x, v> = <x, A^H v> for random x and v, naming the ratio of the two."""
    rng = torch.Generator().manual_seed(0)
    like = next((t for t in operator.tensors() if t.is_floating_point() or t.is_complex()), torch.zeros(()))
    dtype = like.dtype.to_real() if like.is_complex() else like.dtype

    def normal(size: Shape, dtype: torch.dtype) -> Tensor:
        return torch.randn(1, *size, generator=rng, dtype=dtype).to(like.device)

    with torch.no_grad():
        x = normal(shape, dtype)
        image = operator(x)
        v = normal(tuple(image.shape[1:]), image.dtype)
        back = operator.adjoint(v)
        if back.shape != x.shape:
            raise CapabilityError(
                where,
                expected=f"an adjoint that returns images of shape {shape}",
                found=f"shape {tuple(back.shape[1:])}",
                remedy=remedy,
            )
        left, right = (
            torch.vdot(image.flatten(), v.flatten()),
            torch.vdot(x.flatten().to(back.dtype), back.flatten()),
        )
        gap = float((left - right).abs() / (image.norm() * v.norm()).clamp_min(1e-30))
    # Rounding in a sum of n products with n-step recursions inside the physics stays far below this.
    if not gap <= 200 * torch.finfo(dtype).eps * math.sqrt(max(1, math.log2(x.numel()))):
        ratio = complex(left / right) if left.is_complex() else float(left / right)
        raise CapabilityError(
            where,
            expected="an adjoint with <A x, v> = <x, A^H v>",
            found=f"inner products with ratio {ratio:.6g} (relative gap {gap:.1e})",
            remedy=remedy,
        )


def _copy_of(physics: Any) -> Any:
    """A copy that shares no state; unlike deepcopy, deepinv's own ``clone`` copies random generators too."""
    copied = physics.clone() if hasattr(physics, "clone") else copy.deepcopy(physics)
    for part in copied.modules():
        # Physics that find their adjoint by autograd keep it as a closure over the original's tensors, in the
        # dtype of its first use; a copy has to find its own.
        if hasattr(part, "_auto_grad_adjoint_fn"):
            part._auto_grad_adjoint_fn = None
    return copied


def _like_kind(dtype: torch.dtype, target: torch.dtype) -> torch.dtype:
    """``target`` for real types, its complex partner for complex ones, whole numbers as they are."""
    if dtype.is_complex:
        return target.to_complex()
    return target if dtype.is_floating_point else dtype


def _converted(module: Any, target: torch.device | torch.dtype | str) -> Any:
    """Copy of a physics on a device or in a real dtype.

    ``module.to(torch.float64)`` would drop the imaginary part of complex buffers, and leaves the ``dtype``
    attributes alone by which some physics type their intermediate tensors.
    """
    module = _copy_of(module)
    if not isinstance(target, torch.dtype):
        return module.to(target)
    for part in module.modules():
        if isinstance(getattr(part, "dtype", None), torch.dtype):
            part.dtype = _like_kind(part.dtype, target)
    return module._apply(lambda t: t.to(_like_kind(t.dtype, target)))


def _working_dtype(physics: Any) -> torch.dtype | None:
    """Real dtype a physics computes in: its ``dtype`` attribute, else that of its tensors; None is any."""
    declared = getattr(physics, "dtype", None)
    if isinstance(declared, torch.dtype):
        return declared.to_real() if declared.is_complex else declared
    for t in (*physics.parameters(), *physics.buffers()):
        # deepinv keeps a 0-dim tensor in every physics to remember the device.
        if t.ndim and (t.is_floating_point() or t.is_complex()):
            kind: torch.dtype = t.dtype
            return kind.to_real() if kind.is_complex else kind
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class DeepinvOperator(Operator):
    """A deepinv Physics as an operator: its forward map ``A`` without noise and sensor model.

    Built by ``from_deepinv``, which copies the physics.

    Args:
        physics: A deepinv Physics, owned by this operator from now on.
        input_shape: (C, H, W) of the image, or None where the physics does not fix it.
    """

    physics: Any
    input_shape: Shape | None = None

    image_range: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Class name of the physics, marked as deepinv's."""
        return f"deepinv.{type(self.physics).__name__}"

    def tensors(self) -> list[Tensor]:
        """Parameters and buffers of the physics."""
        return [*self.physics.parameters(), *self.physics.buffers()]

    def to(self, target: torch.device | torch.dtype | str) -> Self:
        """Copy with the physics moved or converted; complex buffers stay complex."""
        return dataclasses.replace(self, physics=_converted(self.physics, target))

    def _zeros(self, shape: Shape) -> Tensor:
        device = next((t.device for t in self.tensors()), torch.device("cpu"))
        return torch.zeros(1, *shape, dtype=_working_dtype(self.physics), device=device)

    def _through(self, function: Any, v: Tensor) -> Any:
        """``function(v)`` computed in the dtype of the physics and returned in that of ``v``."""
        dtype = _working_dtype(self.physics)
        if dtype is None or v.is_complex() or v.dtype == dtype:
            return function(v)
        result = function(v.to(dtype))
        return result.to(_like_kind(result.dtype, v.dtype)) if isinstance(result, torch.Tensor) else result

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """Shape of the measurement of a zero image."""
        with torch.no_grad():
            return cast(
                Shape,
                self._memo(
                    ("output", input_shape), lambda: tuple(self._apply(self._zeros(input_shape)).shape[1:])
                ),
            )

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """``input_shape`` if known, else the shape the physics' adjoint gives for a zero measurement.

        Raises:
            ShapeError: The physics has no adjoint to ask.
        """
        if self.input_shape is not None:
            return self.input_shape
        try:
            with torch.no_grad():
                return tuple(self.physics.A_adjoint(self._zeros(output_shape)).shape[1:])
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise ShapeError(
                f"{self.name}.input_shape_of",
                expected="a physics that knows its image size",
                found=f"one without img_size, and {type(error).__name__} from its adjoint",
                remedy="operators.from_deepinv(physics, input_shape=(C, H, W)) tells it.",
            ) from error

    def _apply(self, x: Tensor) -> Tensor:
        y: object = self._through(self.physics.A, x)
        if not isinstance(y, torch.Tensor):
            raise CapabilityError(
                self.name,
                expected="a measurement in one tensor",
                found=type(y).__name__,
                remedy="Wrap it in operators.Callable with a function that flattens and joins the parts.",
            )
        return y


@dataclasses.dataclass(frozen=True, eq=False)
class LinearDeepinvOperator(DeepinvOperator, LinearOperator):
    """A deepinv LinearPhysics: its ``A`` and ``A_adjoint``; prox, pseudo-inverse and norm are ours.

    deepinv's closed forms are not used: some are wrong on operators with a null space, and their iterative
    ones keep settings between calls.
    """

    def _adjoint(self, y: Tensor) -> Tensor:
        return cast(Tensor, self._through(self.physics.A_adjoint, y))


def _declared_shape(physics: Any) -> Shape | None:
    """Image shape that a physics declares about itself."""
    for attribute in ("img_size", "imsize", "input_shape"):
        size = getattr(physics, attribute, None)
        if isinstance(size, tuple | list | torch.Size) and len(size) == 3:
            return tuple(int(n) for n in size)
    width = getattr(physics, "img_width", None)
    return (1, int(width), int(width)) if isinstance(width, int) else None


def _accepted_shape(operator: DeepinvOperator) -> Shape | None:
    """A small image shape that a physics of free size takes, for the adjoint test."""
    for shape in ((3, 16, 16), (1, 16, 16), (2, 16, 16)):
        try:
            with torch.no_grad():
                operator._apply(operator._zeros(shape))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
            # Whatever the physics says, it does not take this shape; another may fit.
            continue
        return shape
    return None


def from_deepinv(physics: Any, input_shape: Shape | None = None) -> Operator:
    """A deepinv Physics as an operator.

    The physics is copied first, because its methods change it. Only the forward map is taken, not the noise
    and sensor models. A LinearPhysics must pass the adjoint test <A x, v> = <x, A_adjoint v>; other physics
    become nonlinear operators that autograd differentiates. A StackedPhysics becomes ``operators.stack`` of
    its members, whose measurement is one flat vector made by ``join``.

    Args:
        physics: Any ``deepinv.physics.Physics``.
        input_shape: (C, H, W) of the image; read from the physics where it knows it.

    Raises:
        DTypeError: ``physics`` is no deepinv Physics.
        ShapeError: ``input_shape`` is not (C, H, W), or the physics refuses every size tried.
        CapabilityError: The adjoint fails the test; the message gives the ratio of the inner products.
    """
    where = "from_deepinv"
    if not is_physics(physics):
        raise DTypeError(
            where,
            expected="a deepinv.physics.Physics",
            found=type(physics).__name__,
            remedy="operators.as_operator takes functions and scipy operators too.",
        )
    if input_shape is not None and len(input_shape) != 3:
        raise ShapeError(where, expected="input_shape (C, H, W)", found=str(tuple(input_shape)))
    shape = tuple(input_shape) if input_shape is not None else _declared_shape(physics)
    if _has_ancestor(physics, "deepinv.physics", "StackedPhysics"):
        from invrestore.operators._compose import stack

        members = [from_deepinv(member, input_shape) for member in physics.physics_list]
        return stack(*members, input_shape=shape)
    own = _copy_of(physics)
    if not _has_ancestor(physics, "deepinv.physics", "LinearPhysics"):
        return DeepinvOperator(own, shape)
    operator = LinearDeepinvOperator(own, shape)
    test_shape = shape or _accepted_shape(operator)
    if test_shape is None:
        raise ShapeError(
            where,
            expected="a physics that declares img_size",
            found=f"{operator.name}, which refuses images of 1, 2 or 3 channels and 16x16 pixels",
            remedy="from_deepinv(physics, input_shape=(C, H, W)) tells the size.",
        )
    _inner_product_test(
        f"{where}({operator.name})",
        operator,
        test_shape,
        "Correct A_adjoint, or use operators.Callable(physics.A), whose gradient autograd finds.",
    )
    return operator


@functools.lru_cache(maxsize=1)
def _linear_physics_class() -> Any:
    """The LinearPhysics subclass around our operators, made once when deepinv is first needed."""
    import deepinv

    class InvrestorePhysics(deepinv.physics.LinearPhysics):  # type: ignore[misc]
        """An invrestore operator as a deepinv LinearPhysics."""

        def __init__(self, operator: LinearOperator, img_size: Shape | None) -> None:
            super().__init__(img_size=img_size)
            self.operator = operator

        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            super()._apply(fn, recurse)
            tensors = self.operator.tensors() if "operator" in self.__dict__ else []
            real = next((t for t in tensors if t.is_floating_point()), None)
            if real is not None:
                moved = fn(real)
                self.operator = self.operator.to(moved.device).to(moved.dtype)
            return self

        def A(self, x: Tensor, **_: Any) -> Tensor:
            return self.operator(x)

        def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
            return self.operator.adjoint(y)

        def A_dagger(self, y: Tensor, *_: Any, **__: Any) -> Tensor:
            return self.operator.pinv(y)

        def prox_l2(self, z: Any, y: Tensor, gamma: PerImage, *_: Any, **__: Any) -> Tensor:
            if not isinstance(z, torch.Tensor):
                z = torch.full_like(self.operator.adjoint(y), 0.0 if z is None else z)
            return self.operator.prox_l2(z, y, gamma)

    return InvrestorePhysics


def to_deepinv(operator: LinearOperator, input_shape: Shape | None = None) -> Any:
    """A linear operator as a real ``deepinv.physics.LinearPhysics`` without noise.

    Its ``A``, ``A_adjoint``, ``A_dagger`` and ``prox_l2`` are the operator's own, so closed forms stay.

    Args:
        operator: A.
        input_shape: (C, H, W), which becomes ``img_size``; read from the operator where it knows it.

    Raises:
        DTypeError: ``operator`` is not linear.
    """
    if not isinstance(operator, LinearOperator):
        raise DTypeError("to_deepinv", expected="a LinearOperator", found=type(operator).__name__)
    return _linear_physics_class()(operator, input_shape or operator.input_shape)


class _Product(torch.autograd.Function):
    """Matrix times a batch of vectors through scipy; its own derivative is the product with the adjoint."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, matrix: Any, adjoint: bool) -> Tensor:
        ctx.matrix, ctx.adjoint = matrix, adjoint
        work = v.detach().to("cpu", torch.float64 if v.dtype == torch.float64 else torch.float32)
        columns = work.numpy().T
        product = matrix.rmatmat(columns) if adjoint else matrix.matmat(columns)
        return torch.from_numpy(product.T.copy()).to(v.device, v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(grad, ctx.matrix, not ctx.adjoint), None, None


@dataclasses.dataclass(frozen=True, eq=False)
class ScipyOperator(LinearOperator):
    """A scipy LinearOperator acting on flattened images; built by ``from_scipy``.

    Products run on the CPU in numpy; images on another device are copied there and back.

    Args:
        matrix: Real ``scipy.sparse.linalg.LinearOperator`` of shape (M, C H W).
        image_shape: (C, H, W).
        measurement_shape: Shape of one measurement, with M numbers.
    """

    matrix: scipy.sparse.linalg.LinearOperator
    image_shape: Shape
    measurement_shape: Shape

    image_range: ClassVar[bool] = False

    @property
    def input_shape(self) -> Shape:
        """(C, H, W)."""
        return self.image_shape

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """As given."""
        return self.measurement_shape

    def _apply(self, x: Tensor) -> Tensor:
        y = _Product.apply(x.flatten(1), self.matrix, False)
        return cast(Tensor, y.reshape(-1, *self.measurement_shape))

    def _adjoint(self, y: Tensor) -> Tensor:
        x = _Product.apply(y.flatten(1), self.matrix, True)
        return cast(Tensor, x.reshape(-1, *self.image_shape))


def from_scipy(matrix: Any, input_shape: Shape, output_shape: Shape | None = None) -> LinearOperator:
    """A scipy LinearOperator or sparse matrix as an operator on images.

    Args:
        matrix: Real, of shape (M, C H W), acting on images flattened in C order; with ``rmatvec``.
        input_shape: (C, H, W).
        output_shape: Shape of one measurement; (M,) if None.

    Raises:
        DTypeError: ``matrix`` is neither, or complex.
        ShapeError: Its size is not that of the shapes.
        CapabilityError: It has no adjoint, or one that fails the inner-product test.

    Example:
        >>> import scipy.sparse
        >>> A = from_scipy(scipy.sparse.eye_array(4) * 2, (1, 2, 2), (1, 2, 2))
        >>> A(torch.ones(1, 1, 2, 2)).sum().item()
        8.0
    """
    where = "from_scipy"
    if not is_scipy(matrix):
        raise DTypeError(
            where,
            expected="a scipy LinearOperator or sparse matrix",
            found=type(matrix).__name__,
            remedy="scipy.sparse.csr_array(a) converts a numpy matrix.",
        )
    from scipy.sparse.linalg import aslinearoperator

    linear = aslinearoperator(matrix)
    if linear.dtype is not None and linear.dtype.kind == "c":
        raise DTypeError(
            where,
            expected="a real operator",
            found=str(linear.dtype),
            remedy="Stack real and imaginary parts as two real operators.",
        )
    if len(input_shape) != 3 or math.prod(input_shape) != linear.shape[1]:
        raise ShapeError(
            where,
            expected=f"input_shape (C, H, W) with {linear.shape[1]} numbers",
            found=str(tuple(input_shape)),
        )
    shape = (linear.shape[0],) if output_shape is None else tuple(output_shape)
    if math.prod(shape) != linear.shape[0]:
        raise ShapeError(where, expected=f"output_shape with {linear.shape[0]} numbers", found=str(shape))
    operator = ScipyOperator(linear, tuple(input_shape), shape)
    remedy = "Give the LinearOperator a correct rmatvec."
    try:
        _inner_product_test(where, operator, operator.input_shape, remedy)
    except (NotImplementedError, AttributeError, TypeError) as error:
        if isinstance(error, CapabilityError):
            raise
        raise CapabilityError(
            where, expected="an operator with an adjoint", found="one without rmatvec", remedy=remedy
        ) from error
    return operator


def to_scipy(
    operator: LinearOperator, input_shape: Shape, dtype: torch.dtype = torch.float64
) -> scipy.sparse.linalg.LinearOperator:
    """A linear operator as ``scipy.sparse.linalg.LinearOperator`` on images flattened in C order.

    Args:
        operator: A; its tensors are converted to ``dtype``.
        input_shape: (C, H, W).
        dtype: torch.float64 or torch.float32.

    Raises:
        DTypeError: The operator is not linear.
        RangeError: ``dtype`` is another type.
        ShapeError: The operator refuses the shape, or has one set of tensors for each image.
    """
    where = "to_scipy"
    if not isinstance(operator, LinearOperator):
        raise DTypeError(where, expected="a LinearOperator", found=type(operator).__name__)
    if dtype not in (torch.float32, torch.float64):
        raise RangeError(where, expected="dtype torch.float64 or torch.float32", found=str(dtype))
    import numpy as np
    from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator

    own = operator.to(dtype)
    device = next((t.device for t in own.tensors()), torch.device("cpu"))
    with torch.no_grad():
        output_shape = tuple(own(torch.zeros(1, *input_shape, dtype=dtype, device=device)).shape[1:])

    def columns_through(function: Any, shape: Shape, columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        batch = torch.tensor(np.ascontiguousarray(columns.T), dtype=dtype, device=device)
        with torch.no_grad():
            return cast(
                "np.ndarray[Any, Any]", function(batch.reshape(-1, *shape)).flatten(1).T.cpu().numpy()
            )

    def forward(columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return columns_through(own, tuple(input_shape), columns)

    def backward(columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return columns_through(own.adjoint, output_shape, columns)

    return ScipyLinearOperator(
        shape=(math.prod(output_shape), math.prod(input_shape)),
        matvec=lambda v: forward(v.reshape(-1, 1))[:, 0],
        rmatvec=lambda v: backward(v.reshape(-1, 1))[:, 0],
        matmat=forward,
        rmatmat=backward,
        dtype=np.float64 if dtype == torch.float64 else np.float32,
    )
