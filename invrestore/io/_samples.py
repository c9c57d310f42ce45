"""Pictures stored as a few of their pixels: places and colours, coded without loss in one small file."""

from __future__ import annotations

import hashlib
import lzma
import math
import struct
import zlib
from typing import Any, TypeAlias

import numpy as np
import torch

from invrestore._checks import check_image
from invrestore._types import Tensor
from invrestore.errors import ImageFileError, RangeError, ShapeError
from invrestore.io._info import MAX_PIXELS

__all__ = ["decode_samples", "encode_samples"]

_Array: TypeAlias = "np.ndarray[Any, Any]"

_MAGIC = b"\x89IRZ\r\n"
_VERSION = 1
_DIGEST = 16
_HEADER = struct.Struct("<6sBBIII II")
"""Magic, version, channels, width, height, number of samples, length of the two blocks."""

_RAW, _LZMA, _ZLIB = 0, 1, 2
_BITMAP, _GAPS = 0, 1
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
"""Single bytes, without context: gaps and differences have none worth learning in a small file."""


def encode_samples(x: Tensor, mask: Tensor) -> bytes:
    """Code the pixels of an image where a mask is True, with 8 bits for each channel.

    Places are coded as gaps in reading order or as a bitmap, whichever is smaller; colours as differences of each
    sample to the one before it along a curve that visits neighbours one after the other (Morton order), green apart
    from red - green and blue - green. Both go through LZMA or zlib.

    Args:
        x: Image (1, 1 or 3, H, W); values are clipped to [0, 1] and rounded to 8 bits.
        mask: Boolean (H, W) or (1, 1, H, W), at least one True.

    Raises:
        ShapeError: Image and mask do not fit.
        RangeError: The mask is empty, or the image larger than ``MAX_PIXELS``.
    """
    where = "encode_samples"
    check_image(where, x)
    mask = mask.view(mask.shape[-2:])
    if x.shape[0] != 1 or x.shape[1] not in (1, 3) or x.shape[2:] != mask.shape:
        raise ShapeError(
            where,
            expected=f"x of shape (1, 1 or 3, {mask.shape[0]}, {mask.shape[1]}), as the mask",
            found=str(tuple(x.shape)),
        )
    height, width = mask.shape
    if height * width > MAX_PIXELS:
        raise RangeError(where, expected=f"at most {MAX_PIXELS} pixels", found=str(height * width))
    places = np.flatnonzero(mask.cpu().numpy())
    if not len(places):
        raise RangeError(where, expected="at least one kept pixel", found="none")
    levels = (x[0].detach().double().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    colours = levels.reshape(len(levels), -1)[:, places]
    positions = min(
        bytes([_BITMAP]) + _packed(np.packbits(mask.cpu().numpy()).tobytes()),
        bytes([_GAPS]) + _packed(_from_gaps(np.diff(places, prepend=-1) - 1)),
        key=len,
    )
    values = _packed(_differences(colours, _curve(places, width)))
    header = _HEADER.pack(
        _MAGIC, _VERSION, len(levels), width, height, len(places), len(positions), len(values)
    )
    body = header + positions + values
    return body + hashlib.sha256(body).digest()[:_DIGEST]


def decode_samples(
    data: bytes, *, name: str = "the file", max_pixels: int = MAX_PIXELS
) -> tuple[Tensor, Tensor]:
    """Read what :func:`encode_samples` made.

    Args:
        data: Content of the file.
        name: Name of the file, for messages.
        max_pixels: Larger pictures are refused before anything is unpacked.

    Returns:
        Image (1, C, H, W) in [0, 1], 0 where nothing is known, and the mask, boolean (1, 1, H, W).

    Raises:
        ImageFileError: The file is no such file, of a later version, damaged, or too large.
    """

    def refuse(expected: str, found: str, remedy: str = "") -> ImageFileError:
        return ImageFileError("decode_samples", expected=expected, found=f"{found} in {name}", remedy=remedy)

    whole = "a whole file of samples"
    if data[: len(_MAGIC)] != _MAGIC:
        raise refuse("a file of samples", "something else", "invrestore compress makes one.")
    if len(data) < _HEADER.size + _DIGEST:
        raise refuse(whole, f"only {len(data)} bytes", "It was cut short.")
    _, version, channels, width, height, count, first, second = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise refuse(f"version {_VERSION}", f"version {version}", "A later invrestore reads it.")
    if hashlib.sha256(data[:-_DIGEST]).digest()[:_DIGEST] != data[-_DIGEST:]:
        raise refuse(whole, "a checksum that does not fit", "It was damaged or cut short.")
    if not (1 <= width * height <= max_pixels):
        raise refuse(f"1 to {max_pixels} pixels", f"{width} x {height}")
    sizes_fit = len(data) == _HEADER.size + first + second + _DIGEST
    if not sizes_fit or channels not in (1, 3) or not 1 <= count <= width * height or first < 2:
        raise refuse(whole, "a header that contradicts itself", "It was not made by invrestore.")
    start = _HEADER.size
    try:
        places = _places(data[start : start + first], count, width * height)
        packed = _unpacked(data[start + first : start + first + second], channels * count)
    except (lzma.LZMAError, zlib.error, ValueError) as error:
        raise refuse(whole, "blocks that cannot be unpacked", "It was not made by invrestore.") from error
    colours = _from_differences(packed, _curve(places, width), channels)
    mask = np.zeros(height * width, dtype=bool)
    mask[places] = True
    levels = np.zeros((channels, height * width), dtype=np.uint8)
    levels[:, places] = colours
    image = torch.from_numpy(levels).view(1, channels, height, width).float() / 255
    return image, torch.from_numpy(mask).view(1, 1, height, width)


def _packed(block: bytes) -> bytes:
    """The block in the shortest of its codings, after a byte that says which."""
    candidates = (
        bytes([_RAW]) + block,
        bytes([_LZMA]) + lzma.compress(block, format=lzma.FORMAT_RAW, filters=_FILTERS),
        bytes([_ZLIB]) + zlib.compress(block, 9),
    )
    return min(candidates, key=len)


def _unpacked(block: bytes, size: int | None, most: int = 0) -> bytes:
    """What ``_packed`` was given: exactly ``size`` bytes, or at most ``most``. Never unpacks more than allowed."""
    limit = most if size is None else size
    if not block:
        raise ValueError("an empty block")
    kind, body = block[0], block[1:]
    if kind == _RAW:
        found = body
    elif kind == _LZMA:
        found = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(body, limit + 1)
    elif kind == _ZLIB:
        found = zlib.decompressobj().decompress(body, limit + 1)
    else:
        raise ValueError("an unknown coding")
    if len(found) > limit or (size is not None and len(found) != size):
        raise ValueError("another length")
    return found


def _from_gaps(gaps: _Array) -> bytes:
    """Unknown pixels before each sample: a byte, or 255 as often as it fits and the rest."""
    long, rest = np.divmod(gaps, 255)
    lengths = long + 1
    out = np.full(int(lengths.sum()), 255, dtype=np.uint8)
    out[np.cumsum(lengths) - 1] = rest
    return out.tobytes()


def _places(block: bytes, count: int, pixels: int) -> _Array:
    kind, body = block[0], block[1:]
    if kind == _BITMAP:
        bits = np.unpackbits(np.frombuffer(_unpacked(body, math.ceil(pixels / 8)), dtype=np.uint8))
        places = np.flatnonzero(bits[:pixels])
        if bits[pixels:].any():
            raise ValueError("samples outside the picture")
    elif kind == _GAPS:
        codes = np.frombuffer(_unpacked(body, None, count + pixels // 255), dtype=np.uint8).astype(np.int64)
        ends = codes != 255
        if not len(codes) or not ends[-1]:
            raise ValueError("an unfinished gap")
        places = np.cumsum(codes)[ends] + np.arange(int(ends.sum()))
    else:
        raise ValueError("unknown positions")
    if len(places) != count or places[-1] >= pixels:
        raise ValueError("another number of samples")
    return places


def _curve(places: _Array, width: int) -> _Array:
    """Order in which samples are visited: along the Morton curve, which keeps neighbours together."""
    row, column = (part.astype(np.uint64) for part in np.divmod(places, width))
    return np.argsort(_spread(row) << np.uint64(1) | _spread(column), kind="stable")


def _spread(n: _Array) -> _Array:
    """Bits of n moved to the even places."""
    for shift, kept in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        n = (n | n << np.uint64(shift)) & np.uint64(kept)
    return n


def _differences(colours: _Array, order: _Array) -> bytes:
    values = colours[:, order].copy()
    if len(values) == 3:
        # uint8 arithmetic wraps around, which the decoder undoes.
        values[0] -= values[1]
        values[2] -= values[1]
    values[:, 1:] -= values[:, :-1].copy()
    return values.tobytes()


def _from_differences(block: bytes, order: _Array, channels: int) -> _Array:
    values = np.frombuffer(block, dtype=np.uint8).reshape(channels, -1)
    values = np.cumsum(values, axis=1, dtype=np.uint8)
    if channels == 3:
        values[0] += values[1]
        values[2] += values[1]
    colours = np.empty_like(values)
    colours[:, order] = values
    return colours
