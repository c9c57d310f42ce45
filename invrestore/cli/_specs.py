"""The grammar ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE`` of operators, priors and corruptions."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from invrestore.errors import DTypeError, RangeError, UnknownNameError

__all__ = ["Entry", "Spec", "choice", "file", "integer", "number", "parse"]


def number(text: str) -> float:
    """A number such as 1.6 or 2e-3."""
    return float(text)


def integer(text: str) -> int:
    """A whole number."""
    return int(text)


def file(text: str) -> Path:
    """The path of a file."""
    return Path(text)


def choice(*names: str) -> Callable[[str], str]:
    """One of the given names."""

    def convert(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    convert.__doc__ = f"One of {', '.join(names)}."
    return convert


@dataclasses.dataclass(frozen=True)
class Entry:
    """One name of a catalogue.

    Attributes:
        build: Makes the object from the converted options, given by keyword, and what ``Spec.build`` adds.
        options: How the text of each option is converted.
        needs: Groups of options of which exactly one must be given.
    """

    build: Callable[..., Any]
    options: Mapping[str, Callable[[str], Any]] = dataclasses.field(default_factory=dict)
    needs: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Spec:
    """A parsed text: the entry it names and its options, converted."""

    name: str
    entry: Entry
    options: Mapping[str, Any]

    def build(self, **context: Any) -> Any:
        """The object the text describes."""
        return self.entry.build(**self.options, **context)


def parse(flag: str, text: str, catalogue: Mapping[str, Entry]) -> Spec:
    """Read ``NAME`` or ``NAME:KEY=VALUE,...``.

    Args:
        flag: The option it was given to, as "--operator"; starts every message.
        text: What the user wrote.
        catalogue: The names there are.

    Raises:
        UnknownNameError: The name or an option's name is not there; the nearest is suggested.
        DTypeError: An option's value cannot be converted.
        RangeError: An option is missing, doubled, or excludes another.
    """
    name, _, rest = text.partition(":")
    name = name.strip().lower()
    if name not in catalogue:
        raise UnknownNameError.suggest(flag, flag.lstrip("-"), name, catalogue)
    entry, where = catalogue[name], f"{flag} {name}"
    options: dict[str, Any] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in entry.options:
            raise _unknown_option(where, name, key, entry)
        if not equals or not value:
            raise RangeError(where, expected=f"{key}=VALUE", found=repr(part))
        if key in options:
            raise RangeError(where, expected=f"{key} once", found="it twice")
        convert = entry.options[key]
        try:
            options[key] = convert(value)
        except ValueError as error:
            expected = str(convert.__doc__).rstrip(".")
            raise DTypeError(
                where, expected=f"{key} to be {expected[0].lower()}{expected[1:]}", found=repr(value)
            ) from error
    for group in entry.needs:
        given = [key for key in group if key in options]
        if len(given) != 1:
            raise RangeError(
                where,
                expected=f"one of {', '.join(group)}" if len(group) > 1 else f"the option {group[0]}",
                found=" and ".join(given) if given else "none",
                remedy=f"For example {name}:{group[0]}=...",
            )
    return Spec(name, entry, options)


def _unknown_option(where: str, name: str, key: str, entry: Entry) -> UnknownNameError:
    if not entry.options:
        return UnknownNameError(where, expected="no options", found=repr(key))
    near = difflib.get_close_matches(key, list(entry.options), n=1)
    return UnknownNameError(
        where,
        expected=f"options out of {', '.join(entry.options)}",
        found=repr(key),
        remedy=f"Did you mean {near[0]}?" if near else "",
    )
