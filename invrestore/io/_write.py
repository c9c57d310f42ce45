"""Encode pictures and write files whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from invrestore._checks import check_finite, check_tensor
from invrestore._types import Tensor
from invrestore.errors import ImageFileError, RangeError, ShapeError
from invrestore.io._deep import encode_png16, encode_tiff16
from invrestore.io._info import FORMATS, SUFFIXES, ImageInfo, PathLike

__all__ = ["check_free", "check_target", "encode", "save_image", "write_bytes"]

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"lossless": True, "exact": True},
}


def save_image(
    x: Tensor, path: PathLike, *, force: bool = False, bits: int | None = None, like: ImageInfo | None = None
) -> None:
    """Write a picture; values are clipped to [0, 1] and rounded here and nowhere else.

    The file is written under a temporary name in the same folder and then renamed, so that it is whole or
    not there at all. PNG, TIFF and WebP are lossless; JPEG is written at quality 95 without chroma
    subsampling.

    Args:
        x: Gray or RGB picture (1, C, H, W) or (C, H, W), finite.
        path: Target; its ending decides the format: .png .jpg .jpeg .tif .tiff .webp.
        force: Replace an existing file.
        bits: 8 or 16; None takes those of ``like`` where the format can store them, else 8.
        like: What ``read`` returned with the original: opacity (resized if the picture has another size),
            colour profile (if it fits the number of channels) and EXIF are put back.

    Raises:
        ImageFileError: The target exists, cannot be written, or its format cannot store what was asked for.
        ShapeError: ``x`` is not one gray or RGB picture.
        RangeError: ``x`` holds NaN or infinities, or ``bits`` is neither 8 nor 16.
        DTypeError: ``x`` is not a floating-point tensor.
    """
    check_target(path, force=force, bits=bits, like=like)
    write_bytes(path, encode(x, Path(path).suffix, bits=bits, like=like), force=force)


def check_target(
    path: PathLike, *, force: bool = False, bits: int | None = None, like: ImageInfo | None = None
) -> None:
    """Raise what ``save_image`` would raise about its target, before the work that leads to the picture.

    Raises:
        ImageFileError: The target exists, cannot be written, or its format cannot store what was asked for.
        RangeError: ``bits`` is neither 8 nor 16.
    """
    path = Path(path)
    check_free(path, force=force)
    _check_format(path.suffix, bits, like)


def check_free(path: PathLike, *, force: bool = False) -> None:
    """Raise unless a file can be written there: the folder lets us and the name is free.

    Raises:
        ImageFileError: The target exists or cannot be written.
    """
    path = Path(path)
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long a name, a zero byte, a file for a folder
        raise ImageFileError(
            "save",
            expected="a name that the file system can hold",
            found=f"{str(path)[:80]!r} ({getattr(error, 'strerror', None) or error})",
            remedy="Choose another name.",
        ) from error
    if path.is_dir():
        raise ImageFileError(
            "save", expected="a file name", found=f"the folder {path}", remedy="Add a file name."
        )
    if not path.parent.is_dir():
        raise ImageFileError(
            "save", expected=f"an existing folder {path.parent}", found="none", remedy="Create it first."
        )
    if os.path.lexists(path) and not force:
        raise _exists(path)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ImageFileError(
            "save",
            expected=f"a folder {path.parent} that can be written to",
            found="one that cannot",
            remedy="Change its permissions or choose another.",
        )


def _exists(path: Path) -> ImageFileError:
    return ImageFileError(
        "save",
        expected="a file name that is free",
        found=f"{path}, which exists",
        remedy="Choose another name, or pass --force (force=True) to replace it.",
    )


def _check_format(suffix: str, bits: int | None, like: ImageInfo | None) -> str:
    if bits not in (None, 8, 16):
        raise RangeError("save_image", expected="bits 8 or 16", found=str(bits))
    format = FORMATS.get(suffix.lower())
    if format is None:
        raise ImageFileError(
            "save_image",
            expected=f"a file name ending in one of {' '.join(SUFFIXES)}",
            found=repr(suffix) if suffix else "no ending",
            remedy="PNG is lossless: .png?",
        )
    if bits == 16 and format in ("JPEG", "WEBP"):
        raise ImageFileError(
            "save_image",
            expected=f"8 bits, all that {format} can store",
            found="bits=16",
            remedy="Save as .png or .tif.",
        )
    if format == "JPEG" and like is not None and like.alpha is not None:
        raise ImageFileError(
            "save_image",
            expected="a picture without opacity, which JPEG cannot store",
            found="one with opacity",
            remedy="Save as .png, .tif or .webp, or pass like=info.without_alpha().",
        )
    return format


def encode(x: Tensor, suffix: str, *, bits: int | None = None, like: ImageInfo | None = None) -> bytes:
    """Return the bytes of the file that ``save_image`` writes.

    Args:
        x: Gray or RGB picture (1, C, H, W) or (C, H, W), finite.
        suffix: File name ending that decides the format, as ".png".
        bits: 8 or 16; None takes those of ``like`` where the format can store them, else 8.
        like: What to put back, as for ``save_image``.

    Raises:
        ImageFileError: The format is unknown or cannot store what was asked for.
        ShapeError: ``x`` is not one gray or RGB picture.
        RangeError: ``x`` holds NaN or infinities, or ``bits`` is neither 8 nor 16.
        DTypeError: ``x`` is not a floating-point tensor.
    """
    format = _check_format(suffix, bits, like)
    x = _one_picture(x)
    if bits is None:
        bits = 16 if like is not None and like.bits == 16 and format in ("PNG", "TIFF") else 8
    samples = _samples(x, like.alpha if like is not None else None, bits)
    colours = x.shape[0]
    icc = like.icc if like is not None else None
    # Bytes 16 to 20 of a profile name the colour space it describes; one for RGB says nothing about gray.
    if icc is not None and icc[16:20] != (b"RGB " if colours == 3 else b"GRAY"):
        icc = None
    exif = like.exif if like is not None else None
    if bits == 16:
        if format == "TIFF" and samples.shape[-1] == 2:
            raise ImageFileError(
                "save_image",
                expected="16-bit TIFF of gray, RGB or RGBA",
                found="gray with opacity, which few programs read",
                remedy="Save as .png.",
            )
        return encode_png16(samples, icc, exif) if format == "PNG" else encode_tiff16(samples, icc)
    return _encode8(samples, format, icc, exif)


def _one_picture(x: Tensor) -> Tensor:
    x = check_tensor("save_image", "x", x).detach()
    if x.ndim == 4 and x.shape[0] != 1:
        raise ShapeError(
            "save_image",
            expected="one picture (1, C, H, W)",
            found=str(tuple(x.shape)),
            remedy="Save x[i] one by one.",
        )
    picture = x[0] if x.ndim == 4 else x
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or picture.numel() == 0:
        last = x.ndim in (3, 4) and x.shape[-1] in (1, 3, 4)
        raise ShapeError(
            "save_image",
            expected="a gray or RGB picture (1, C, H, W) with C = 1 or 3",
            found=str(tuple(x.shape)),
            remedy="Images are channels-first; permute(0, 3, 1, 2)?" if last else "",
        )
    if picture.is_complex():
        raise RangeError(
            "save_image", expected="real values", found=str(x.dtype), remedy="x.real or x.abs()?"
        )
    check_finite("save_image", "x", picture)
    return picture


def _samples(x: Tensor, alpha: Tensor | None, bits: int) -> _Array:
    top = 2**bits - 1
    planes = [x]
    if alpha is not None:
        if alpha.shape[-2:] != x.shape[-2:]:
            alpha = torch.nn.functional.interpolate(
                alpha.float(), tuple(x.shape[-2:]), mode="bilinear", antialias=True, align_corners=False
            )
        planes.append(alpha[0].to(x.device))
    work = torch.promote_types(x.dtype, torch.float32)
    scaled = torch.cat([(p.to(work).clamp(0, 1) * top).round() for p in planes]).permute(1, 2, 0)
    return np.ascontiguousarray(scaled.cpu().numpy().astype(np.uint8 if bits == 8 else np.uint16))


def _encode8(samples: _Array, format: str, icc: bytes | None, exif: bytes | None) -> bytes:
    from PIL import Image

    image = Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    options = dict(_OPTIONS[format])
    if icc is not None:
        options["icc_profile"] = icc
    if exif is not None and format != "TIFF":
        options["exif"] = exif
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **options)
    except (OSError, ValueError) as error:  # WebP and JPEG limit the sides
        raise ImageFileError(
            "save_image",
            expected=f"a picture that {format} can store",
            found=f"{image.width} x {image.height} ({error})",
            remedy="Save as .png or .tif.",
        ) from error
    return buffer.getvalue()


def write_bytes(path: PathLike, data: bytes, *, force: bool = False) -> None:
    """Write a file whole or not at all, through a temporary name in the same folder.

    Args:
        path: Target.
        data: What the file shall hold.
        force: Replace an existing file.

    Raises:
        ImageFileError: The target exists, or the file cannot be written.
    """
    path = Path(path)
    check_free(path, force=force)
    try:
        with _partial(path) as partial:
            with partial.open("wb") as file:
                file.write(data)
            if force:
                os.replace(partial, path)
            else:
                _rename_unless_taken(partial, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise ImageFileError(
            "save",
            expected=f"{path} to be written",
            found=str(error.strerror or error),
            remedy="Make room, or choose another folder.",
        ) from error


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A free name beside ``path``, removed at the end whatever happens, an interrupt included."""
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _rename_unless_taken(partial: Path, path: Path) -> None:
    # A hard link fails if the name is taken, without a moment in between; some filesystems have none.
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(partial, path)
