"""What a picture file holds besides its colours."""

from __future__ import annotations

import dataclasses
import os
from typing import TypeAlias

from invrestore._types import Tensor

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "ImageInfo", "PathLike"]

PathLike: TypeAlias = str | os.PathLike[str]

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
SUFFIXES = tuple(FORMATS)
"""File name endings that can be read and written, lower case."""

MAX_PIXELS = 100_000_000
"""Largest width times height that is decoded unless the caller allows more; 1.2 GB as float32 RGB."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageInfo:
    """What a file said about its picture besides the colours; ``save_image(like=...)`` puts it back.

    Attributes:
        format: "PNG", "JPEG", "TIFF" or "WEBP".
        bits: Bits of each sample as stored, 8 or 16 (fewer count as 8, 9 to 15 as 16).
        alpha: Opacity (1, 1, H, W) in [0, 1], or None where the file has none.
        icc: ICC colour profile as stored, or None.
        exif: EXIF block without its orientation, which has been applied to the pixels, or None. TIFF tags
            are not kept.
    """

    format: str
    bits: int = 8
    alpha: Tensor | None = None
    icc: bytes | None = None
    exif: bytes | None = None

    def without_alpha(self) -> ImageInfo:
        """Copy that no longer holds an opacity, for formats that cannot store one."""
        return dataclasses.replace(self, alpha=None)
