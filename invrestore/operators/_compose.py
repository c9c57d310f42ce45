"""Algebra: composition, sums, multiples, adjoints and stacks of operators."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from invrestore._checks import check_shape, check_tensor, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.operators._base import DataStep, LinearOperator, Operator

__all__ = ["Adjoint", "Compose", "LinearCompose", "LinearStack", "Scaled", "Stack", "Sum", "compose", "stack"]


def _members(where: str, operators: object) -> tuple[Operator, ...]:
    """The operators as a tuple; raises unless there is at least one and all are Operators."""
    members = tuple(operators) if isinstance(operators, Sequence) else (operators,)
    for i, member in enumerate(members):
        if not isinstance(member, Operator):
            raise DTypeError(
                where,
                expected="operators",
                found=f"{type(member).__name__} at position {i}",
                remedy="operators.as_operator wraps physics, matrices and functions.",
            )
    if not members:
        raise RangeError(where, expected="at least one operator", found="none")
    return members


def _all_linear(operators: object) -> bool:
    members = operators if isinstance(operators, Sequence) else (operators,)
    return all(isinstance(member, LinearOperator) for member in members)


def compose(*operators: Operator) -> Operator:
    """``compose(A, B, C)(x) = A(B(C(x)))``; a LinearOperator if all are linear.

    Compositions among the arguments are dissolved; a single operator is returned as it is.

    Raises:
        ShapeError: Known shapes of neighbours disagree.
        DTypeError: An argument is no operator.

    Example:
        >>> from invrestore.operators import Identity
        >>> compose(Identity(), compose(Identity(), Identity())).operators.__len__()
        3
    """
    flat: list[Operator] = []
    for operator in _members("compose", operators):
        flat.extend(operator.operators if isinstance(operator, Compose) else (operator,))
    return flat[0] if len(flat) == 1 else Compose(tuple(flat))


@dataclasses.dataclass(frozen=True, eq=False)
class Compose(Operator):
    """``A_1(A_2(... A_n(x)))``. Made of linear operators only, it is a ``LinearCompose``.

    Args:
        operators: The operators from the outermost (applied last) to the innermost.

    Raises:
        ShapeError: Known shapes of neighbours disagree.
        DTypeError: A member is no operator.
    """

    operators: tuple[Operator, ...]

    def __new__(cls, operators: Any = ()) -> Compose:
        # The linear case needs an adjoint; the caller should not have to know which class has it.
        return object.__new__(LinearCompose if cls is Compose and _all_linear(operators) else cls)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.operators,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", _members(self.name, self.operators))
        for outer, inner in zip(self.operators, self.operators[1:], strict=False):
            given, needed = inner.output_shape, outer.input_shape
            if given is not None and needed is not None and tuple(given) != tuple(needed):
                raise ShapeError(
                    self.name,
                    expected=f"{outer.name} to take what {inner.name} gives, {tuple(given)}",
                    found=f"an operator on {tuple(needed)}",
                )

    @property
    def input_shape(self) -> Shape | None:
        """Input shape of the innermost operator."""
        return self.operators[-1].input_shape

    @property
    def image_range(self) -> bool:  # type: ignore[override]
        """Whether every member keeps the range of images."""
        return all(operator.image_range for operator in self.operators)

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """Shapes passed on from the innermost operator to the outermost."""
        for operator in reversed(self.operators):
            input_shape = operator.output_shape_of(input_shape)
        return input_shape

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """Shapes passed back from the outermost operator to the innermost."""
        for operator in self.operators:
            output_shape = operator.input_shape_of(output_shape)
        return output_shape

    def _check_input(self, x: object, where: str = "") -> Tensor:
        return self.operators[-1]._check_input(x, where or self.name)

    def _check_output(self, y: object, where: str) -> Tensor:
        return self.operators[0]._check_output(y, where)

    def _apply(self, x: Tensor) -> Tensor:
        for i, operator in enumerate(reversed(self.operators)):
            x = operator._apply(x) if i == 0 else operator(x)
        return x

    def estimate_sigma(self, y: Tensor) -> Tensor:
        """The outermost operator's estimate: it shapes the measurement."""
        return self.operators[0].estimate_sigma(y)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearCompose(Compose, LinearOperator):
    """``A_1 A_2 ... A_n`` of linear operators, with adjoint ``A_n^H ... A_1^H``."""

    operators: tuple[LinearOperator, ...]

    def _adjoint(self, y: Tensor) -> Tensor:
        for operator in self.operators:
            y = operator.adjoint(y)
        return y

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Product of the norms: an upper bound, shape () or (B,)."""
        shape = input_shape or self.input_shape
        bound = torch.ones(())
        for operator in reversed(self.operators):
            own = operator.norm(shape)
            bound = bound.to(own) * own
            shape = None if shape is None else operator.output_shape_of(shape)
        return bound


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(LinearOperator):
    """``A_1 x + ... + A_n x``.

    Args:
        operators: Linear operators with equal input and output shapes; sums among them are dissolved.

    Raises:
        ShapeError: Known shapes disagree.
        DTypeError: A member is no linear operator.
    """

    operators: tuple[LinearOperator, ...]

    def __post_init__(self) -> None:
        flat: list[LinearOperator] = []
        for operator in _members(self.name, self.operators):
            if not isinstance(operator, LinearOperator):
                raise DTypeError(
                    self.name,
                    expected="linear operators",
                    found=operator.name,
                    remedy="Write a sum of nonlinear maps as operators.Callable(lambda x: A(x) + B(x)).",
                )
            flat.extend(operator.operators if isinstance(operator, Sum) else (operator,))
        object.__setattr__(self, "operators", tuple(flat))
        for kind in ("input_shape", "output_shape"):
            known = {tuple(s) for s in (getattr(operator, kind) for operator in flat) if s is not None}
            if len(known) > 1:
                raise ShapeError(self.name, expected=f"operators of one {kind}", found=str(sorted(known)))

    @property
    def input_shape(self) -> Shape | None:
        """The first known input shape."""
        return next((o.input_shape for o in self.operators if o.input_shape is not None), None)

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """As the members'."""
        return self.operators[0].output_shape_of(input_shape)

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """As the members'."""
        return self.input_shape or self.operators[0].input_shape_of(output_shape)

    def _check_input(self, x: object, where: str = "") -> Tensor:
        return self.operators[0]._check_input(x, where or self.name)

    def _check_output(self, y: object, where: str) -> Tensor:
        return self.operators[0]._check_output(y, where)

    def _apply(self, x: Tensor) -> Tensor:
        total = self.operators[0]._apply(x)
        for operator in self.operators[1:]:
            part = operator(x)
            if part.shape != total.shape:
                raise ShapeError(
                    self.name,
                    expected=f"every member to give {tuple(total.shape)}",
                    found=f"{tuple(part.shape)} from {operator.name}",
                )
            total = total + part
        return total

    def _adjoint(self, y: Tensor) -> Tensor:
        total = self.operators[0]._adjoint(y)
        for operator in self.operators[1:]:
            total = total + operator.adjoint(y)
        return total

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Sum of the norms: an upper bound, shape () or (B,)."""
        shape = input_shape or self.input_shape
        norms = [operator.norm(shape) for operator in self.operators]
        bound = norms[0]
        for own in norms[1:]:
            bound = bound + own.to(bound.device)
        return bound


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(LinearOperator):
    """``c A x`` for a real number c.

    Args:
        operator: A.
        factor: c, finite: a number, or a tensor of shape () or (B,) with one number for each image.

    Raises:
        RangeError: ``factor`` is not finite.
        ShapeError: ``factor`` has more than one axis.
        DTypeError: ``operator`` is not linear, or ``factor`` no real number.
    """

    operator: LinearOperator
    factor: PerImage

    def __post_init__(self) -> None:
        if not isinstance(self.operator, LinearOperator):
            raise DTypeError(self.name, expected="a linear operator", found=type(self.operator).__name__)
        c = self.factor
        if isinstance(c, torch.Tensor):
            if c.is_complex() or c.dtype == torch.bool:
                raise DTypeError(self.name, expected="a real factor", found=str(c.dtype))
            if c.ndim > 1:
                raise ShapeError(self.name, expected="factor of shape () or (B,)", found=str(tuple(c.shape)))
            finite = bool(torch.isfinite(c.detach()).all())
        elif isinstance(c, bool) or not isinstance(c, int | float):
            raise DTypeError(self.name, expected="factor as a number or tensor", found=type(c).__name__)
        else:
            finite = math.isfinite(c)
        if not finite:
            raise RangeError(self.name, expected="a finite factor", found=str(c))

    @property
    def input_shape(self) -> Shape | None:
        """As the operator's."""
        return self.operator.input_shape

    @property
    def image_range(self) -> bool:  # type: ignore[override]
        """Whether the operator keeps the range of images and the factor is 1."""
        return self.operator.image_range and not isinstance(self.factor, torch.Tensor) and self.factor == 1

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """As the operator's."""
        return self.operator.output_shape_of(input_shape)

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """As the operator's."""
        return self.operator.input_shape_of(output_shape)

    def _check_input(self, x: object, where: str = "") -> Tensor:
        return self.operator._check_input(x, where or self.name)

    def _check_output(self, y: object, where: str) -> Tensor:
        return self.operator._check_output(y, where)

    def _times(self, v: Tensor) -> Tensor:
        return (expand(self.factor, v) * v).to(v.dtype)

    def _apply(self, x: Tensor) -> Tensor:
        return self._times(self.operator._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._times(self.operator._adjoint(y))

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """``|c| ||A||``, shape () or (B,)."""
        own = self.operator.norm(input_shape)
        return own * (self.factor.abs() if isinstance(self.factor, torch.Tensor) else abs(self.factor))

    def _inverse_factor(self, like: Tensor) -> Tensor:
        """1/c, and 0 where c is 0."""
        c = torch.as_tensor(self.factor, dtype=like.dtype, device=like.device)
        zero = c == 0
        return torch.where(zero, 0, 1 / torch.where(zero, 1, c))

    @property
    def has_closed_form(self) -> bool:
        """As the operator's."""
        return self.operator.has_closed_form

    def data_step(self, y: Tensor) -> DataStep:
        """The operator's own step for ``y / c`` with weight ``c^2 step``."""
        step_of = self.operator.data_step(y * expand(self._inverse_factor(y), y))
        square = self.factor * self.factor

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            return step_of(z, step * square)

        return step_from

    def pinv(self, y: Tensor) -> Tensor:
        """``A^+ y / c``, and 0 where c is 0."""
        return self.operator.pinv(y * expand(self._inverse_factor(y), y))

    def estimate_sigma(self, y: Tensor) -> Tensor:
        """The operator's estimate: noise is added after the factor."""
        return self.operator.estimate_sigma(y)


@dataclasses.dataclass(frozen=True, eq=False)
class Adjoint(LinearOperator):
    """``A^H`` as an operator of its own; ``Adjoint(A).H`` is ``A``.

    Args:
        operator: A, linear.

    Raises:
        DTypeError: ``operator`` is not linear.
    """

    operator: LinearOperator

    def __post_init__(self) -> None:
        if not isinstance(self.operator, LinearOperator):
            raise DTypeError(self.name, expected="a linear operator", found=type(self.operator).__name__)

    @property
    def input_shape(self) -> Shape | None:
        """Output shape of A."""
        return self.operator.output_shape

    @property
    def output_shape(self) -> Shape | None:
        """Input shape of A."""
        return self.operator.input_shape

    @property
    def image_range(self) -> bool:  # type: ignore[override]
        """False: adjoints need not keep the range."""
        return False

    @property
    def H(self) -> LinearOperator:
        """A itself."""
        return self.operator

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """As A's ``input_shape_of``."""
        return self.operator.input_shape_of(input_shape)

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """As A's ``output_shape_of``."""
        return self.operator.output_shape_of(output_shape)

    def _check_input(self, x: object, where: str = "") -> Tensor:
        return self.operator._check_output(x, where or self.name)

    def _check_output(self, y: object, where: str) -> Tensor:
        return self.operator._check_input(y, where)

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._apply(y)

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """The norm of A."""
        return self.operator.norm(None if input_shape is None else self.output_shape_of(input_shape))


def stack(*operators: Operator, input_shape: Shape | None = None) -> Stack:
    """Several measurements of one image as one operator; see ``Stack``.

    Example:
        >>> from invrestore.operators import Grayscale, Identity
        >>> A = stack(Identity(), Grayscale(), input_shape=(3, 4, 4))
        >>> A.output_shape
        (64,)
    """
    return Stack(operators, input_shape=input_shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Stack(Operator):
    """``x -> (A_1(x), ..., A_n(x))``, flattened and joined. Made of linear operators only, a ``LinearStack``.

    ``join`` makes ``y`` from the single measurements and ``split`` undoes it.

    Args:
        operators: The operators.
        input_shape: (C, H, W) of the image. Taken from the operators if one of them knows it; needed for
            ``split``, ``adjoint`` and ``solve``.

    Shapes:
        x: (B, C, H, W). y: (B, M_1 + ... + M_n).

    Raises:
        ShapeError: Known input shapes disagree, or the image size is needed and unknown.
        DTypeError: A member is no operator.
    """

    operators: tuple[Operator, ...]
    input_shape: Shape | None = dataclasses.field(default=None, kw_only=True)

    def __new__(cls, operators: Any = (), *, input_shape: Shape | None = None) -> Stack:
        return object.__new__(LinearStack if cls is Stack and _all_linear(operators) else cls)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.operators,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", _members(self.name, self.operators))
        shapes = [self.input_shape, *(operator.input_shape for operator in self.operators)]
        known = {tuple(shape) for shape in shapes if shape is not None}
        if len(known) > 1:
            raise ShapeError(self.name, expected="operators of one input shape", found=str(sorted(known)))
        object.__setattr__(self, "input_shape", known.pop() if known else None)

    @property
    def image_range(self) -> bool:  # type: ignore[override]
        """Whether every member keeps the range of images."""
        return all(operator.image_range for operator in self.operators)

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """(M_1 + ... + M_n,)."""
        return (sum(math.prod(operator.output_shape_of(input_shape)) for operator in self.operators),)

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """The known input shape; the length of y does not tell it."""
        return self._known_shape("input_shape_of")

    def _known_shape(self, method: str) -> Shape:
        if self.input_shape is None:
            raise ShapeError(
                f"{self.name}.{method}",
                expected="a stack that knows its image size",
                found="input_shape=None",
                remedy="stack(..., input_shape=(C, H, W)) sets it.",
            )
        return self.input_shape

    def _check_output(self, y: object, where: str) -> Tensor:
        y = check_tensor(where, "y", y)
        shape = None if self.input_shape is None else self.output_shape_of(self.input_shape)
        check_shape(where, "y", y, shape or (None,))
        return y

    def join(self, measurements: Sequence[Tensor]) -> Tensor:
        """(B, M) from one measurement for each operator.

        Raises:
            ShapeError: Their number, batch sizes or shapes do not fit.
        """
        where = f"{self.name}.join"
        if len(measurements) != len(self.operators):
            raise ShapeError(
                where, expected=f"{len(self.operators)} measurements", found=f"{len(measurements)} of them"
            )
        for operator, y in zip(self.operators, measurements, strict=True):
            known = None if self.input_shape is None else operator.output_shape_of(self.input_shape)
            check_tensor(where, "a measurement", y)
            if y.ndim < 2 or y.shape[0] != measurements[0].shape[0]:
                raise ShapeError(where, expected="measurements of one batch size", found=str(tuple(y.shape)))
            if known is not None:
                check_shape(where, f"the measurement of {operator.name}", y, known)
        return torch.cat([y.flatten(1) for y in measurements], 1)

    def split(self, y: Tensor) -> list[Tensor]:
        """One measurement (B, *output_shape) for each operator, from (B, M).

        Raises:
            ShapeError: The image size is unknown, or ``y`` has another length.
        """
        shape = self._known_shape("split")
        y = self._check_output(y, f"{self.name}.split")
        shapes = [operator.output_shape_of(shape) for operator in self.operators]
        parts = torch.split(y, [math.prod(s) for s in shapes], 1)
        return [part.reshape(-1, *s) for part, s in zip(parts, shapes, strict=True)]

    def _apply(self, x: Tensor) -> Tensor:
        return torch.cat([operator(x).flatten(1) for operator in self.operators], 1)

    def estimate_sigma(self, y: Tensor) -> Tensor:
        """Root mean square of the members' estimates, weighted by their number of samples."""
        parts = self.split(y)
        sizes = [part[0].numel() for part in parts]
        variances = [
            n * o.estimate_sigma(p) ** 2 for n, o, p in zip(sizes, self.operators, parts, strict=True)
        ]
        return (torch.stack(variances).sum(0) / sum(sizes)).sqrt()


@dataclasses.dataclass(frozen=True, eq=False)
class LinearStack(Stack, LinearOperator):
    """A stack of linear operators: ``A^H y = A_1^H y_1 + ... + A_n^H y_n``."""

    operators: tuple[LinearOperator, ...]

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = self.split(y)
        total = self.operators[0].adjoint(parts[0])
        for operator, part in zip(self.operators[1:], parts[1:], strict=True):
            total = total + operator.adjoint(part)
        return total

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Root of the sum of squared norms: an upper bound, shape () or (B,)."""
        shape = input_shape or self.input_shape
        norms = [operator.norm(shape) for operator in self.operators]
        square = norms[0] ** 2
        for own in norms[1:]:
            square = square + own.to(square.device) ** 2
        return square.sqrt()
