"""Four small photos in the public domain, for the demo and the examples; LICENSES.md names their sources."""

from __future__ import annotations

from pathlib import Path

from invrestore.errors import UnknownNameError

__all__ = ["PHOTOS", "photo"]

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
"""Names that ``photo`` knows."""


def photo(name: str) -> Path:
    """Path of a bundled photo, an 8-bit RGB PNG file of 264 x 264 pixels.

    Raises:
        UnknownNameError: There is no such photo.

    Example:
        >>> photo("coffee").name
        'coffee.png'
    """
    if name not in PHOTOS:
        raise UnknownNameError.suggest("photo", "photo", name, PHOTOS)
    return Path(__file__).parent / f"{name}.png"
