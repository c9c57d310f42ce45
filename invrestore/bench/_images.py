"""Load the images of a set."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from invrestore._types import Tensor
from invrestore.bench._types import ImageSet
from invrestore.data import ImageFile, find_images
from invrestore.errors import ImageFileError

__all__ = ["find", "load", "name_of"]


@functools.lru_cache(maxsize=64)
def find(images: ImageSet, data: Path) -> tuple[ImageFile, ...]:
    """The files of a set in a fixed order.

    Raises:
        ImageFileError: The folder is missing, holds no images, or not all that the set names.
    """
    found = find_images(data / images.folder, images.split)
    if images.names is not None:
        by_name = {name_of(file): file for file in found}
        missing = [name for name in images.names if name not in by_name]
        if missing:
            raise ImageFileError(
                "bench",
                expected=f"images {', '.join(missing)} in {images.folder}",
                found=f"{len(found)} others",
                remedy="The data folder is laid out as benchmarks/README.md says.",
            )
        found = [by_name[name] for name in images.names]
    if not found:
        raise ImageFileError(
            "bench",
            expected=f"images in {images.folder} of the data folder",
            found="none",
            remedy="The data folder is laid out as benchmarks/README.md says.",
        )
    return tuple(found[: images.first])


def name_of(file: ImageFile) -> str:
    """File name without folders and ending."""
    return Path(file.member or file.path.name).stem


def load(images: ImageSet, file: ImageFile) -> Tensor:
    """One image (1, C, H, W) in [0, 1], cropped as its set says.

    Gray sets are converted by luma = round(0.299 R + 0.587 G + 0.114 B).
    """
    with Image.open(io.BytesIO(file.read())) as picture:
        pixels = np.array(picture.convert("L" if images.gray else "RGB"))
    x = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)[None].float() / 255
    return x if images.crop is None else images.crop(x).contiguous()
