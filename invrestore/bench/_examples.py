"""Training images that methods look things up in."""

from __future__ import annotations

import functools
import io
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from invrestore._types import Tensor
from invrestore.data import find_images, reserved_set
from invrestore.errors import ImageFileError

__all__ = ["examples_of_size"]


@functools.lru_cache(maxsize=2)
def examples_of_size(
    folder: str, channels: int, height: int, width: int, skip: int = 0, most: int | None = None
) -> Tensor:
    """Training images of a folder, scaled to cover the size and cut in the centre, uint8 (N, C, H, W).

    Images known to be test images are left out.

    Args:
        folder: Any layout that ``data.find_images`` knows; its training split.
        channels: 1 or 3.
        height: In pixels.
        width: In pixels.
        skip: Leave out this many first images.
        most: Take at most this many, evenly spaced; None takes all.

    Raises:
        ImageFileError: No such folder, or no image left.
    """
    mode = "RGB" if channels == 3 else "L"
    found = []
    with ExitStack() as stack:
        # An archive is opened once, not once for each image.
        archives: dict[Path, zipfile.ZipFile] = {}
        files = find_images(Path(folder), "train")[skip:]
        step = 1 if most is None else max(1, len(files) // most)
        for file in files[::step][:most]:
            if file.member is None:
                encoded = file.read()
            else:
                if file.path not in archives:
                    archives[file.path] = stack.enter_context(zipfile.ZipFile(file.path))
                encoded = archives[file.path].read(file.member)
            if reserved_set(encoded) is not None:
                continue
            with Image.open(io.BytesIO(encoded)) as image:
                fitted = ImageOps.fit(image.convert(mode), (width, height), Image.Resampling.LANCZOS)
            found.append(np.array(fitted).reshape(height, width, channels))
    if not found:
        raise ImageFileError("bench", expected="training images", found=f"none in {folder}")
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)
