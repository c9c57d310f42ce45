"""Files with 16 bits for each sample, which Pillow cannot write in colour."""

from __future__ import annotations

import struct
import zlib
from typing import Any, TypeAlias

import numpy as np

from invrestore.errors import ImageFileError

__all__ = ["encode_png16", "encode_tiff16"]

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def encode_png16(samples: _Array, icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """PNG file of samples (H, W, C) of type uint16, C = 1 to 4: gray, gray and alpha, RGB, RGBA.

    Reference:
        Portable Network Graphics specification, third edition: sections 5 (chunks) and 9 (filters). Each
        row takes the filter, none, Sub or Up, whose residuals have the smallest sum of magnitudes.
    """
    height, width, channels = samples.shape
    colour_type = (0, 4, 2, 6)[channels - 1]
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    step = 2 * channels
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    above = np.zeros_like(rows)
    above[1:] = rows[:-1]
    candidates = np.stack([rows, rows - left, rows - above])
    cost = np.abs(candidates.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64)
    best = cost.argmin(0)
    filtered = np.concatenate([best.astype(np.uint8)[:, None], candidates[best, np.arange(height)]], 1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)),
    ]
    if icc is not None:
        parts.append(chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if exif is not None:
        parts.append(chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    parts += [chunk(b"IDAT", zlib.compress(filtered.tobytes())), chunk(b"IEND", b"")]
    return b"".join(parts)


def encode_tiff16(samples: _Array, icc: bytes | None = None) -> bytes:
    """Little-endian TIFF file of samples (H, W, C) of type uint16, one strip, deflated.

    Raises:
        ImageFileError: The file would exceed the 4 GB that TIFF can address.

    Reference:
        TIFF revision 6.0, section 2; Adobe Photoshop TIFF technical notes (2002) for compression 8.
    """
    height, width, channels = samples.shape
    data = zlib.compress(samples.astype("<u2").tobytes())
    short, long, undefined = 3, 4, 7
    entries: list[tuple[int, int, list[int] | bytes]] = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [16] * channels),
        (259, short, [8]),
        (262, short, [2 if channels >= 3 else 1]),
        (273, long, [0]),  # the strip's offset, known below
        (277, short, [channels]),
        (278, long, [height]),
        (279, long, [len(data)]),
        (284, short, [1]),
    ]
    if channels in (2, 4):
        entries.append((338, short, [2]))  # opacity that the colours are not multiplied by
    if icc is not None:
        entries.append((34675, undefined, icc))
    header = 8
    directory = 2 + 12 * len(entries) + 4
    extra = b""
    packed = []
    start = header + directory
    strip = start + sum(n + n % 2 for _, kind, v in entries if (n := len(_values(kind, v))) > 4)
    if strip + len(data) >= 2**32:
        raise ImageFileError(
            "save_image",
            expected="at most 4 GB in a TIFF file",
            found=f"{strip + len(data)} bytes",
            remedy="Use .png.",
        )
    for tag, kind, values in entries:
        value = _values(kind, [strip] if tag == 273 else values)
        if len(value) > 4:
            field = struct.pack("<I", start + len(extra))
            extra += value + b"\0" * (len(value) % 2)
        else:
            field = value.ljust(4, b"\0")
        packed.append(struct.pack("<HHI", tag, kind, len(values)) + field)
    table = struct.pack("<H", len(packed)) + b"".join(packed) + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, header) + table + extra + data


def _values(kind: int, values: list[int] | bytes) -> bytes:
    return values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{'HI'[kind - 3]}", *values)
