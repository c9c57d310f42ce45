"""The images that no training may see, because published scores are measured on them.

Each is known by two hashes: of its file, and of its decoded pixels, which survive a lossless change of format
(the 68 images of CBSD68 are stored as PNG in one place and as JPEG in another).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from PIL import Image

from invrestore.data._files import ImageFile

__all__ = ["fingerprints", "reserved", "reserved_set", "write_reserved"]

_LIST = "reserved.txt"
_DIGITS = 16  # 64 bits: a chance hit among a million images and some thousand entries has probability 1e-10.


def fingerprints(encoded: bytes) -> tuple[str, str]:
    """Hash an encoded image: (file hash, hash of the size and RGB pixels), 16 hexadecimal digits each.

    Raises:
        OSError: Pillow cannot decode the bytes.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        rgb = image.convert("RGB")
    pixels = hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes())
    return hashlib.sha256(encoded).hexdigest()[:_DIGITS], pixels.hexdigest()[:_DIGITS]


@cache
def reserved() -> dict[str, str]:
    """Map every reserved hash to the name of the test set it belongs to."""
    entries: dict[str, str] = {}
    for line in resources.files("invrestore.data").joinpath(_LIST).read_text().splitlines():
        if line and not line.startswith("#"):
            file_hash, pixel_hash, name = line.split()
            entries[file_hash] = entries[pixel_hash] = name
    return entries


def reserved_set(encoded: bytes) -> str | None:
    """Name the test set that holds this encoded image, or None when it is free to train on."""
    known = reserved()
    return next((known[mark] for mark in fingerprints(encoded) if mark in known), None)


def write_reserved(sets: dict[str, Iterable[ImageFile]], path: str | Path) -> int:
    """Write the list of reserved images; returns the number of entries.

    Args:
        sets: Images of each test set, by name.
        path: The list to write, `invrestore/data/reserved.txt` in the source tree.
    """
    lines = ["# file hash, pixel hash, test set; see invrestore/data/_reserved.py"]
    for name, images in sets.items():
        lines += sorted({" ".join((*fingerprints(image.read()), name)) for image in images})
    Path(path).write_text("\n".join(lines) + "\n")
    return len(lines) - 1
