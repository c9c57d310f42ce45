"""Every error that invrestore raises on purpose.

The tree, with the built-in each class also derives from so that existing handlers keep working::

    InvrestoreError
    ├── ShapeError        (ValueError)    a tensor has the wrong number of axes or the wrong size
    ├── DTypeError        (TypeError)     a tensor or argument has the wrong type
    ├── DeviceError       (RuntimeError)  tensors of one call live on different devices
    ├── RangeError        (ValueError)    a number is outside the range that makes sense, or not finite
    ├── UnknownNameError  (LookupError)   a name is not in a catalogue; the nearest names are suggested
    ├── CapabilityError   (TypeError)     an operator, prior or solver cannot do what was asked of it
    ├── ConvergenceError  (RuntimeError)  a solver diverged; carries the Solution reached so far
    ├── WeightsError      (ValueError)    a weights file is missing, damaged or belongs to another network
    ├── ImageFileError    (OSError)       a file is missing, unreadable, no image, or cannot be written
    └── TrainingError     (RuntimeError)  a training cannot start or go on

Every message has four parts: where, what was expected, what came, what to do next. The parts are also
fields, so that tests and tools need not parse text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invrestore.solvers import Solution

__all__ = [
    "CapabilityError",
    "ConvergenceError",
    "DTypeError",
    "DeviceError",
    "ImageFileError",
    "InvrestoreError",
    "RangeError",
    "ShapeError",
    "TrainingError",
    "UnknownNameError",
    "WeightsError",
]


class InvrestoreError(Exception):
    """Root of the tree; carries the four parts of the message.

    Args:
        where: Class and method, or function, that refused.
        expected: What it needs.
        found: What it was given.
        remedy: What the caller can do about it.

    Example:
        >>> str(RangeError("solve", expected="sigma in [0, 1]", found="25.0", remedy="Divide by 255?"))
        'solve: expected sigma in [0, 1], got 25.0. Divide by 255?'
    """

    def __init__(self, where: str, *, expected: str, found: str, remedy: str = "") -> None:
        self.where = where
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(where, expected, found, remedy)

    def __str__(self) -> str:
        message = f"{self.where}: expected {self.expected}, got {self.found}."
        return f"{message} {self.remedy}" if self.remedy else message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments need help to survive pickling between processes.
        return (_rebuild, (type(self), self.where, self.expected, self.found, self.remedy))


def _rebuild(
    cls: type[InvrestoreError], where: str, expected: str, found: str, remedy: str
) -> InvrestoreError:
    return cls(where, expected=expected, found=found, remedy=remedy)


class ShapeError(InvrestoreError, ValueError):
    """A tensor has the wrong number of axes or the wrong size."""


class DTypeError(InvrestoreError, TypeError):
    """A tensor or argument has the wrong type."""


class DeviceError(InvrestoreError, RuntimeError):
    """Tensors of one call live on different devices."""


class RangeError(InvrestoreError, ValueError):
    """A number is outside the range that makes sense, or is not finite."""


class UnknownNameError(InvrestoreError, LookupError):
    """A name is not in a catalogue.

    Example:
        >>> raise UnknownNameError.suggest("solve", "prior", "tvv", ["tv", "tikhonov"])
        Traceback (most recent call last):
        ...
        invrestore.errors.UnknownNameError: solve: expected a prior out of 'tikhonov', 'tv', got 'tvv'. Did you mean ...
    """

    @classmethod
    def suggest(cls, where: str, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Build the error with the nearest known names as remedy."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=2)
        remedy = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
        return cls(
            where, expected=f"a {kind} out of {', '.join(map(repr, names))}", found=repr(name), remedy=remedy
        )


class CapabilityError(InvrestoreError, TypeError):
    """An operator, prior or solver cannot do what was asked of it."""


class ConvergenceError(InvrestoreError, RuntimeError):
    """A solver diverged or met a number that is not finite.

    Attributes:
        solution: The best finite iterate with its history, or None.
    """

    solution: Solution | None = None


class WeightsError(InvrestoreError, ValueError):
    """A weights file is missing, damaged or belongs to another network."""


class ImageFileError(InvrestoreError, OSError):
    """A file is missing, unreadable, not an image, or cannot be written."""


class TrainingError(InvrestoreError, RuntimeError):
    """A training cannot start or cannot go on."""
