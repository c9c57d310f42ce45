"""Decode PNG, JPEG, TIFF and WebP files, all 16 bits of a sample included."""

from __future__ import annotations

import difflib
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import torch

from invrestore._checks import check_choice, check_count
from invrestore._types import Tensor
from invrestore.errors import DTypeError, ImageFileError
from invrestore.io._info import MAX_PIXELS, ImageInfo, PathLike

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["load_image", "read"]

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ORIENTATION = 0x0112
_PHOTOMETRIC, _PLANAR = 262, 284  # TIFF tags
_OTHER_ORDER = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
# Everything Pillow's decoders raise on damaged files.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error),
)


def read(
    path: PathLike, *, dtype: torch.dtype = torch.float32, max_pixels: int = MAX_PIXELS
) -> tuple[Tensor, ImageInfo]:
    """Read a picture as stored, with what ``save_image(like=info)`` needs to write it back in kind.

    Colour pictures have 3 channels (palettes are looked up, CMYK is converted), gray ones 1. The EXIF
    orientation is applied. Values are the stored ones divided by the largest, 255 or 65535; no gamma or
    colour profile is applied.

    Args:
        path: PNG, JPEG, TIFF or WebP file, recognised by content. Of the pictures in a phone's
            multi-picture JPEG the first counts; animations and multi-page files are refused.
        dtype: Floating type of the tensor.
        max_pixels: Refuse pictures whose width times height is more, before decoding them.

    Shapes:
        Returns: (1, C, H, W) in [0, 1] with C = 1 or 3, and the ImageInfo.

    Raises:
        ImageFileError: The file is missing, unreadable, damaged, too large, or not a picture of these kinds.
        DTypeError: ``dtype`` is not a real floating type.
    """
    if not dtype.is_floating_point:
        raise DTypeError("read", expected="a floating-point dtype", found=str(dtype), remedy="torch.float32?")
    check_count("read", "max_pixels", max_pixels)
    path = Path(path)
    with _open(path) as file, warnings.catch_warnings():
        # Pillow warns about odd metadata, which has no bearing on the pixels.
        warnings.simplefilter("ignore")
        try:
            image = _decoder(file, path)
            _check_content(image, path, max_pixels)
            samples, bits = _samples(image, file, path)
            exif = image.getexif()
            samples = _upright(samples, exif.get(_ORIENTATION))
        except ImageFileError:
            raise
        except _DAMAGE as error:
            raise ImageFileError(
                "read",
                expected=f"a whole picture in {path}",
                found=f"a truncated, damaged or unsupported one ({_one_line(error)})",
                remedy="Fetch the file again, or export it as PNG.",
            ) from error
        icc, kept_exif = image.info.get("icc_profile"), _kept_exif(image, exif)
    work = torch.promote_types(dtype, torch.float32)
    x = torch.from_numpy(samples.astype(np.float64 if work == torch.float64 else np.float32))
    x = (x / (255 if bits <= 8 else 2**bits - 1)).to(dtype).permute(2, 0, 1)[None].contiguous()
    colours = 3 if x.shape[1] >= 3 else 1
    info = ImageInfo(
        format=str(image.format),
        bits=8 if bits <= 8 else 16,
        alpha=x[:, colours:].clone() if x.shape[1] > colours else None,
        icc=icc if isinstance(icc, bytes) and icc else None,
        exif=kept_exif,
    )
    return x[:, :colours].contiguous(), info


def load_image(
    path: PathLike,
    *,
    mode: str | None = None,
    dtype: torch.dtype = torch.float32,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a picture as a tensor (1, C, H, W) in [0, 1]; its opacity, if any, is left out.

    Args:
        path: PNG, JPEG, TIFF or WebP file with 8 or 16 bits for each sample.
        mode: None keeps the channels of the file (3 or 1); "gray" turns colours to luma
            0.299 R + 0.587 G + 0.114 B (BT.601); "rgb" repeats a gray channel three times.
        dtype: Floating type of the tensor.
        max_pixels: Refuse pictures whose width times height is more, before decoding them.

    Raises:
        ImageFileError: The file is missing, unreadable, damaged, too large, or not a picture of these kinds.
        UnknownNameError: ``mode`` is none of the above.
        DTypeError: ``dtype`` is not a real floating type.
    """
    if mode is not None:
        check_choice("load_image", "mode", mode, ("gray", "rgb"))
    x, _ = read(path, dtype=dtype, max_pixels=max_pixels)
    if mode == "gray" and x.shape[1] == 3:
        weights = torch.tensor(_LUMA, dtype=dtype if dtype == torch.float64 else torch.float32)
        return torch.einsum("bchw,c->bhw", x.to(weights.dtype), weights)[:, None].to(dtype)
    if mode == "rgb" and x.shape[1] == 1:
        return x.repeat(1, 3, 1, 1)
    return x


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise ImageFileError(
                "read", expected="a picture file", found=f"the folder {path}", remedy="Name one file in it."
            )
        if path.exists() and not path.is_file():
            raise ImageFileError("read", expected="a regular file", found=f"{path}, a device or pipe")
        return path.open("rb")
    except FileNotFoundError as error:
        raise ImageFileError(
            "read", expected="an existing file", found=f"{path}, which does not exist", remedy=_near(path)
        ) from error
    except ImageFileError:
        raise
    except (OSError, ValueError) as error:
        raise ImageFileError(
            "read",
            expected=f"a readable file {path}",
            found=_one_line(error),
            remedy="Check its permissions.",
        ) from error


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else ""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error.strerror if isinstance(error, OSError) and error.strerror else error).split())
    return text or type(error).__name__


def _decoder(file: BinaryIO, path: Path) -> ImageFile:
    """Pillow's decoder for the content; made directly, because Image.open has a size limit of its own."""
    from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    start = file.read(16)
    file.seek(0)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(file)
    if start.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(file)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TiffImagePlugin.TiffImageFile(file)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(file)
    raise ImageFileError(
        "read",
        expected="a PNG, JPEG, TIFF or WebP picture",
        found=f"{path}, which is empty" if not start else f"{path}, which starts with {start!r}",
        remedy="Convert it to PNG first; a wrong file ending does not matter.",
    )


def _check_content(image: ImageFile, path: Path, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageFileError(
            "read",
            expected=f"at most {max_pixels} pixels",
            found=f"{width} x {height} = {width * height} in {path}",
            remedy="Pass a larger max_pixels if the file is to be trusted.",
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageFileError(
            "read", expected="one picture", found=f"{frames} in {path}", remedy="Split it into single files."
        )


def _kept_exif(image: ImageFile, exif: Any) -> bytes | None:
    if image.format == "TIFF":  # there "EXIF" is the file's own directory, offsets and all
        return None
    if _ORIENTATION in exif:
        del exif[_ORIENTATION]
    return exif.tobytes() if len(exif) else None


def _samples(image: ImageFile, file: BinaryIO, path: Path) -> tuple[_Array, int]:
    """Samples (H, W, C), C = 1 or 3 plus 1 where there is opacity, and how many bits they use."""
    depth = _depth(image)
    if depth > 16 or image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ImageFileError(
            "read",
            expected="unsigned whole numbers of at most 16 bits",
            found=f"{depth}-bit samples of mode {image.mode} in {path}",
            remedy="Read it with your own reader and pass the array, scaled to [0, 1].",
        )
    if depth > 8:
        return _deep_samples(image, file, path, depth), depth
    gray = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if gray else "RGBA") if image.has_transparency_data else ("L" if gray else "RGB")
    samples = np.asarray(image.convert(mode))
    return samples.reshape(*samples.shape[:2], -1), 8


def _depth(image: ImageFile) -> int:
    if image.format == "TIFF":
        sizes: tuple[int, ...] = image.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
        return max(sizes)
    return 16 if any("16" in str(tile[3]) for tile in image.tile) else 8


def _deep_samples(image: ImageFile, file: BinaryIO, path: Path, depth: int) -> _Array:
    """Samples of more than 8 bits.

    Pillow has no mode for them in colour: its unpackers "RGB;16B" and "RGB;16L" (big and little endian)
    each keep the more significant byte of a sample. Decoding twice, the second time in the other byte
    order, gives the less significant one. Gray with opacity has one unpacker only, but its two 16-bit
    samples have the layout of one 8-bit RGBA pixel.
    """
    tiff: Any = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.uint16)
        if tiff.get(_PHOTOMETRIC) == 0:  # white is zero
            gray = (2**depth - 1) - gray
        return _keyed(gray[..., None], image.info.get("transparency"))
    layouts = {args if isinstance(args := tile[3], str) else (args or ("",))[0] for tile in image.tile}
    layout = next(iter(layouts)) if len(layouts) == 1 else ""
    if layout == "LA;16B":
        image._mode = "RGBA"
        pairs = np.asarray(_retiled(image, "RGBA")).astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2]
    if layout not in _OTHER_ORDER or tiff.get(_PLANAR, 1) != 1:
        raise ImageFileError(
            "read",
            expected="16-bit samples of gray, RGB or RGBA, stored pixel by pixel",
            found=f"the layout {'/'.join(sorted(map(str, layouts)))} in {path}",
            remedy="Save it as a 16-bit PNG first.",
        )
    high = np.asarray(image).astype(np.uint16)
    file.seek(0)
    low = np.asarray(_retiled(type(image)(file), _OTHER_ORDER[layout]))
    return _keyed(high << 8 | low, image.info.get("transparency"))


def _retiled(image: ImageFile, layout: str) -> ImageFile:
    """The image, not yet decoded, set to be unpacked as ``layout``."""

    def change(tile: Any) -> Any:
        args = layout if isinstance(tile[3], str) else (layout, *tile[3][1:])
        return type(tile)((*tile[:3], args)) if type(tile) is tuple else tile._replace(args=args)

    image.tile = [change(tile) for tile in image.tile]
    return image


def _keyed(samples: _Array, key: Any) -> _Array:
    """Samples with opacity 0 where all of them equal the transparent colour ``key``, if there is one."""
    if key is None:
        return samples
    opaque = (samples != np.asarray(key, dtype=np.uint16)).any(-1, keepdims=True)
    return np.concatenate([samples, opaque.astype(np.uint16) * 65535], -1)


def _upright(samples: _Array, orientation: object) -> _Array:
    """Samples turned and mirrored as the EXIF orientation 1 to 8 says."""
    if orientation not in range(2, 9):
        return samples
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
