"""Any function as an operator, and anything that can serve as one."""

from __future__ import annotations

import dataclasses
from collections import abc
from typing import Any, ClassVar

import torch

from invrestore._types import Shape, Tensor
from invrestore.errors import DTypeError, ShapeError
from invrestore.operators._base import Operator

__all__ = ["Callable", "as_operator"]


@dataclasses.dataclass(frozen=True, eq=False)
class Callable(Operator):
    """``A(x) = function(x)`` for any function that autograd can differentiate; it counts as nonlinear.

    Args:
        function: Takes (B, C, H, W), returns a tensor with the same batch axis; must treat images
            independently and have no side effects. A torch.nn.Module is used as it is, in the mode it is in.
        input_shape: (C, H, W), or None where any size fits.
        output_shape: Shape of one measurement. None: found by applying the function to zeros when needed.

    Raises:
        DTypeError: ``function`` is not callable or does not return a tensor.
        ShapeError: The result has another batch size.
        CapabilityError: ``vjp`` was asked for and the function cuts the gradient.

    Example:
        >>> A = Callable(torch.sqrt)
        >>> A(torch.full((1, 1, 1, 1), 4.0)).item()
        2.0
    """

    function: abc.Callable[[Tensor], Tensor]
    input_shape: Shape | None = dataclasses.field(default=None, kw_only=True)
    output_shape: Shape | None = dataclasses.field(default=None, kw_only=True)

    image_range: ClassVar[bool] = False

    def __post_init__(self) -> None:
        given: object = self.function
        if isinstance(given, type) or not callable(given):
            found = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
            raise DTypeError(
                self.name,
                expected="a function of one tensor",
                found=found,
                remedy="Make an instance first." if isinstance(given, type) else "",
            )

    def _probe(self, input_shape: Shape) -> Tensor:
        tensors = self.tensors()
        like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
        with torch.no_grad():
            return self._apply(torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device))

    def tensors(self) -> list[Tensor]:
        """Parameters and buffers of a module; none of a plain function."""
        f: object = self.function
        return [*f.parameters(), *f.buffers()] if isinstance(f, torch.nn.Module) else []

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """``output_shape`` if given, else the shape the function gives for zeros."""
        return self.output_shape or tuple(self._probe(input_shape).shape[1:])

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """``input_shape`` if given, else the measurement's own shape if the function keeps it.

        Raises:
            ShapeError: The function changes shapes; give ``input_shape``.
        """
        if self.input_shape is not None:
            return self.input_shape
        if len(output_shape) == 3:
            try:
                kept = self.output_shape_of(output_shape) == tuple(output_shape)
            except (RuntimeError, ValueError, TypeError, IndexError):
                # The function says in its own way that it does not take such an image.
                kept = False
            if kept:
                return output_shape
        raise ShapeError(
            f"{self.name}.input_shape_of",
            expected="a function that keeps the image shape",
            found=f"a measurement of shape {tuple(output_shape)}",
            remedy="operators.Callable(function, input_shape=(C, H, W)) tells the image size.",
        )

    def _apply(self, x: Tensor) -> Tensor:
        y: object = self.function(x)
        if not isinstance(y, torch.Tensor):
            raise DTypeError(
                self.name, expected="the function to return a torch.Tensor", found=type(y).__name__
            )
        if y.ndim == 0 or y.shape[0] != x.shape[0]:
            raise ShapeError(
                self.name,
                expected=f"the function to return one measurement for each of {x.shape[0]} images",
                found=str(tuple(y.shape)),
                remedy="It must keep the batch axis.",
            )
        return y


def as_operator(
    operator: Any, *, input_shape: Shape | None = None, measurement_shape: Shape | None = None
) -> Operator:
    """The argument as an Operator: what ``solve`` calls first.

    Args:
        operator: An Operator (returned as it is), a deepinv Physics, a scipy LinearOperator or sparse
            matrix, or a function or module from images to measurements (nonlinear).
        input_shape: (C, H, W) of the image where the object does not know it.
        measurement_shape: Shape of one measurement; a square scipy operator on as many numbers is then
            taken to act on images of that shape.

    Raises:
        DTypeError: The argument is none of these.
        ShapeError: A scipy operator whose image shape is not known.
        CapabilityError: The adjoint of the physics or matrix fails the inner-product test.
    """
    from invrestore.operators._interop import from_deepinv, from_scipy, is_physics, is_scipy

    if isinstance(operator, Operator):
        return operator
    if is_physics(operator):
        return from_deepinv(operator, input_shape)
    if is_scipy(operator):
        rows, columns = operator.shape
        shape = measurement_shape
        if input_shape is not None:
            fits = shape is not None and torch.Size(shape).numel() == rows
            return from_scipy(operator, input_shape, shape if fits else None)
        if shape is not None and len(shape) == 3 and rows == columns == torch.Size(shape).numel():
            return from_scipy(operator, shape, shape)
        raise ShapeError(
            "as_operator",
            expected="a scipy operator with a known image shape",
            found=f"a {rows} x {columns} operator and a measurement of shape {shape}",
            remedy="operators.from_scipy(matrix, input_shape=(C, H, W)) tells it.",
        )
    if isinstance(operator, type):
        raise DTypeError(
            "as_operator",
            expected="an operator",
            found=f"the class {operator.__name__}",
            remedy=f"Make an instance: {operator.__name__}(...).",
        )
    if callable(operator):
        return Callable(operator, input_shape=input_shape)
    raise DTypeError(
        "as_operator",
        expected="an invrestore operator, a deepinv Physics, a scipy operator or a function",
        found=type(operator).__name__,
        remedy="A matrix as numpy array: operators.from_scipy(scipy.sparse.csr_array(matrix), input_shape).",
    )
