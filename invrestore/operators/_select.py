"""Operators and fidelities with one kernel, mask or bound per image, cut down to some of the images."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, TypeVar

import torch

from invrestore._types import Tensor
from invrestore.operators._base import Operator
from invrestore.operators._callable import Callable
from invrestore.operators._interop import DeepinvOperator

__all__ = ["depends_on_place", "select"]

T = TypeVar("T")


def depends_on_place(operator: Operator) -> bool:
    """Whether the operator may treat images by their place in the batch in a way ``select`` cannot see.

    So it may be with functions and physics of others, which keep masks and kernels where they like.
    """
    if isinstance(operator, Callable | DeepinvOperator):
        return True
    values = [getattr(operator, f.name) for f in dataclasses.fields(operator)]
    members = [m for v in values for m in (v if isinstance(v, tuple) else (v,)) if isinstance(m, Operator)]
    return any(depends_on_place(m) for m in members)


def select(value: T, index: Tensor, batch: int, axes: int = 4) -> T:
    """A copy whose per-image tensors are ``t[index]``; the value itself where it has none.

    A tensor counts as per-image if its first axis is ``batch`` > 1 long and it has ``axes`` axes, or is the factor of
    a scaled operator.

    Args:
        value: Operator or fidelity, a frozen dataclass.
        index: Places of the images wanted, (N,), repeats allowed.
        batch: Number of images the value was made for.
        axes: 4 for masks and kernels; those of the measurement for the weights and bounds of a fidelity.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        old = getattr(value, field.name)
        new = _selected(old, index, batch, axes, field.name)
        if new is not old:
            changes[field.name] = new
    if not changes:
        return value
    # The checks at construction have been passed, and some constructors take other arguments.
    chosen = copy.copy(value)
    chosen.__dict__.pop("_memory", None)
    for name, new in changes.items():
        object.__setattr__(chosen, name, new)
    return chosen


def _selected(old: Any, index: Tensor, batch: int, axes: int, name: str) -> Any:
    if isinstance(old, torch.Tensor):
        # Other tensors, such as one weight for each channel, may be as long as the batch by chance.
        fits = old.ndim == axes or (name == "factor" and old.ndim == 1)
        return old[index] if fits and old.shape[0] == batch > 1 else old
    if isinstance(old, Operator):
        return select(old, index, batch, axes)
    if isinstance(old, tuple) and any(isinstance(m, Operator) for m in old):
        new = tuple(_selected(m, index, batch, axes, name) for m in old)
        return old if all(a is b for a, b in zip(old, new, strict=True)) else new
    return old
