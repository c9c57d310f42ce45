"""One packed file of training images, and crops of it on any device."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invrestore.data._files import ImageFile
from invrestore.data._reserved import reserved_set
from invrestore.errors import ImageFileError, RangeError, TrainingError

__all__ = ["PackSummary", "PatchPool", "describe_pack", "pack", "read_labels", "read_masks", "read_pack"]


@dataclass(frozen=True)
class PackSummary:
    """What a packed file holds.

    Attributes:
        images: Number of images.
        size: Bytes of encoded images.
        refused: Reserved images left out, counted by test set.
        beyond: Images left out because the pack was full.
        unreadable: Names of files that Pillow could not decode.
    """

    images: int
    size: int
    refused: dict[str, int]
    unreadable: tuple[str, ...]
    beyond: int = 0


def pack(
    images: Sequence[ImageFile],
    path: str | Path,
    *,
    max_side: int | None = None,
    max_bytes: int | None = None,
    seed: int = 0,
    testing: bool = False,
    description: str = "",
) -> PackSummary:
    """Pack images into one file of bytes, leaving out the reserved test images.

    The encoded files are kept as they are, so a pack of JPEG photos is as small as the photos. The file is a
    safetensors archive with `bytes` (all files one after the other, uint8) and `starts` (int64, one more than
    images). Class names of images go into its header, and masks into `masks` and `mask_starts` in the same way, if
    there are any.

    Args:
        images: Images to pack.
        path: File to write.
        max_side: Larger images are reduced (Lanczos) to this longer side and stored as JPEG of quality 95,
            4:4:4. None keeps every file.
        max_bytes: Upper bound of the packed size: of more images, as many as fit are drawn at random, and keep their
            order. None packs all.
        seed: Of the images that are drawn.
        testing: The pack is for measuring, so reserved images may enter.
        description: A line on the origin of the images, kept in the file for :func:`describe_pack`.

    Raises:
        TrainingError: Nothing is left to train on, or the first image drawn is larger than max_bytes.
        ImageFileError: A file cannot be read.
    """
    drawn: dict[int, tuple[bytes, bytes, str | None]] = {}
    refused: dict[str, int] = {}
    unreadable: list[str] = []
    size = beyond = 0
    order = (
        np.arange(len(images)) if max_bytes is None else np.random.default_rng(seed).permutation(len(images))
    )
    for seen, index in enumerate(order.tolist()):
        image = images[index]
        encoded = image.read()
        try:
            name = None if testing else reserved_set(encoded)
            mask = b"" if image.mask is None else image.mask.read_bytes()
            if name is None and max_side is not None:
                encoded = _reduced(encoded, max_side)
                mask = _reduced(mask, max_side, mask=True) if mask else mask
        except OSError:
            unreadable.append(image.member or image.path.name)
            continue
        if name is not None:
            refused[name] = refused.get(name, 0) + 1
            continue
        if max_bytes is not None and size + len(encoded) + len(mask) > max_bytes:
            beyond = len(images) - seen
            break
        drawn[index] = encoded, mask, image.label
        size += len(encoded) + len(mask)
    if beyond and not drawn:
        remedy = "Set max_side to store large images smaller, or raise max_bytes."
        raise TrainingError(
            "data.pack", expected=f"at most {max_bytes} bytes", found="a larger image", remedy=remedy
        )
    if not drawn:
        remedy = "Reserved test images are never packed; give a folder with other images."
        found = f"{sum(refused.values())} reserved and {len(unreadable)} unreadable"
        raise TrainingError(
            "data.pack", expected="at least one image to train on", found=found, remedy=remedy
        )
    # Python's dictionaries know the order in which images were drawn, the pack that in which they came.
    parts, masks, labels = (list(column) for column in zip(*(drawn[k] for k in sorted(drawn)), strict=True))
    tensors = _joined("bytes", "starts", parts)
    if any(masks):
        tensors |= _joined("masks", "mask_starts", masks)
    header: dict[str, object] = {"images": len(parts), "refused": refused, "description": description}
    if any(labels):
        header["labels"] = labels
    summary = PackSummary(len(parts), size, refused, tuple(sorted(unreadable)), beyond)
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        save_file(tensors, str(partial), metadata={"invrestore": json.dumps(header)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return summary


def _joined(data: str, starts: str, parts: Sequence[bytes]) -> dict[str, Tensor]:
    return {
        data: torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8),
        starts: torch.tensor([0, *np.cumsum([len(part) for part in parts]).tolist()]),
    }


def _reduced(encoded: bytes, max_side: int, mask: bool = False) -> bytes:
    with Image.open(io.BytesIO(encoded)) as image:
        if max(image.size) <= max_side:
            return encoded
        pixels = image.copy() if mask else image.convert("RGB")
    scale = max_side / max(pixels.size)
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    buffer = io.BytesIO()
    if mask:
        pixels.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
    else:
        pixels.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def read_pack(path: str | Path) -> list[bytes]:
    """Return the encoded images of a packed file.

    Raises:
        ImageFileError: The file is missing, damaged or no pack.
    """
    try:
        with safe_open(str(path), framework="np") as archive:
            data, starts = archive.get_tensor("bytes"), archive.get_tensor("starts")
    except (OSError, SafetensorError) as error:
        raise _no_pack(path) from error
    return [data[a:b].tobytes() for a, b in pairwise(starts)]


def read_labels(path: str | Path) -> list[str | None]:
    """Return the class name of each image of a packed file, None where it has none.

    Raises:
        ImageFileError: The file is missing, damaged or no pack.
    """
    header = _header(path)
    labels: list[str | None] = header.get("labels") or [None] * header["images"]
    return labels


def read_masks(path: str | Path) -> list[np.ndarray | None]:
    """Return the class number of every pixel (H, W) of each image of a packed file, None where it has none.

    Raises:
        ImageFileError: The file is missing, damaged or no pack.
    """
    count = _header(path)["images"]
    try:
        with safe_open(str(path), framework="np") as archive:
            if "masks" not in archive.keys():
                return [None] * count
            data, starts = archive.get_tensor("masks"), archive.get_tensor("mask_starts")
    except (OSError, SafetensorError) as error:
        raise _no_pack(path) from error
    found: list[np.ndarray | None] = []
    for a, b in pairwise(starts):
        if a == b:
            found.append(None)
            continue
        with Image.open(io.BytesIO(data[a:b].tobytes())) as image:
            found.append(np.asarray(image if image.mode in ("L", "P") else image.convert("L")))
    return found


def describe_pack(path: str | Path) -> str:
    """Return a line on what a packed file holds: number of images and the description given to :func:`pack`.

    Raises:
        ImageFileError: The file is missing, damaged or no pack.
    """
    header = _header(path)
    return f"{header['images']} images of {header['description'] or 'an unnamed folder'}"


def _header(path: str | Path) -> dict[str, Any]:
    try:
        with safe_open(str(path), framework="np") as archive:
            header: dict[str, Any] = json.loads((archive.metadata() or {})["invrestore"])
        if not {"images", "description"} <= set(header):
            raise KeyError("images")
        return header
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _no_pack(path) from error


def _no_pack(path: str | Path) -> ImageFileError:
    remedy = "Pack the folder again."
    return ImageFileError("data.pack", expected="a file written by data.pack", found=str(path), remedy=remedy)


class PatchPool:
    """Decoded images on a device as one uint8 tensor, and random crops of them.

    Crops are gathered by index, so a batch needs no loop over images and no transfer from the host. Each crop
    is turned and mirrored at random (8 symmetries). Positions are uniform over all pixels of the pool, so
    large images give more crops than small ones.

    Args:
        images: uint8 images (H, W, 3).
        device: Where the pixels live and crops are made.
        by_image: Give every image that is large enough the same number of crops instead.
        upright: Mirror crops left to right only, for what has a top and a bottom.

    Raises:
        TrainingError: There are no images.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        device: torch.device | str = "cpu",
        *,
        by_image: bool = False,
        upright: bool = False,
    ) -> None:
        if not images:
            raise TrainingError("data.PatchPool", expected="at least one image", found="none")
        flat = np.concatenate([image.reshape(-1, 3) for image in images])
        self.pixels = torch.from_numpy(flat).to(device)
        self.sides = torch.tensor([image.shape[:2] for image in images], device=device)
        areas = self.sides.prod(dim=1)
        self.starts = areas.cumsum(0) - areas
        self.by_image, self.upright = by_image, upright
        self._weights: dict[int, Tensor] = {}

    @classmethod
    def from_pack(
        cls,
        path: str | Path,
        *,
        device: torch.device | str = "cpu",
        scales: tuple[float, float] = (1.0, 1.0),
        copies: int = 1,
        seed: int = 0,
        by_image: bool = False,
        upright: bool = False,
    ) -> PatchPool:
        """Decode a packed file, with reduced copies of every image.

        Args:
            path: File written by :func:`pack`.
            device: Where the pixels are kept.
            scales: Range of the random size of a copy, within (0, 1]; 1 keeps the image. Reduction (Lanczos)
                adds variety and hides traces of JPEG.
            copies: Copies of each image; the first has the size scales[1].
            seed: Of the random sizes.
            by_image: See the class.
            upright: See the class.

        Raises:
            RangeError: scales or copies make no sense.
            ImageFileError: The pack is missing or damaged.
        """
        if not 0 < scales[0] <= scales[1] <= 1 or copies < 1:
            raise RangeError(
                "PatchPool.from_pack",
                expected="0 < scales[0] <= scales[1] <= 1 and copies >= 1",
                found=f"scales={scales}, copies={copies}",
            )
        rng = np.random.default_rng(seed)
        images: list[np.ndarray] = []
        for encoded in read_pack(path):
            with Image.open(io.BytesIO(encoded)) as image:
                rgb = image.convert("RGB")
            for scale in (scales[1], *rng.uniform(*scales, size=copies - 1)):
                size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
                same = size == rgb.size
                images.append(np.asarray(rgb if same else rgb.resize(size, Image.Resampling.LANCZOS)))
        return cls(images, device, by_image=by_image, upright=upright)

    def crops(self, count: int, size: int, rng: torch.Generator) -> Tensor:
        """Draw random square crops.

        Args:
            count: Number of crops B.
            size: Side in pixels; images with a shorter side are passed over.
            rng: Random source on the pool's device.

        Returns:
            uint8 tensor (B, 3, size, size).

        Raises:
            TrainingError: No image is large enough.
        """
        return self.pixels[self._places(count, size, rng)[1]].permute(0, 3, 1, 2)

    def _places(self, count: int, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw crops: numbers of their images (B,), and the places of their pixels in the pool (B, size, size)."""
        device = self.pixels.device
        if size not in self._weights:
            room = (self.sides - size + 1).clamp(min=0).prod(dim=1).double()
            if not bool(room.any()):
                longest = int(self.sides.min(dim=1).values.max())
                remedy = "Use smaller patches or larger images."
                raise TrainingError(
                    "PatchPool.crops",
                    expected=f"an image of at least {size}x{size}",
                    found=f"{longest}",
                    remedy=remedy,
                )
            self._weights[size] = room.clamp(max=1) if self.by_image else room
        chosen = torch.multinomial(self._weights[size], count, replacement=True, generator=rng)
        place = torch.rand((count, 2), device=device, generator=rng)
        symmetry = torch.rand((count, 3), device=device, generator=rng) < 0.5
        if self.upright:
            symmetry[:, ::2] = False
        sides = self.sides[chosen]
        corner = (place * (sides - size + 1)).long()
        line = torch.arange(size, device=device)
        # Mirroring and transposition act on the indices, so the pixels are read once, already in place.
        rows = torch.where(symmetry[:, :1], line.flip(0), line)
        columns = torch.where(symmetry[:, 1:2], line.flip(0), line)
        rows, columns = rows + corner[:, :1], columns + corner[:, 1:]
        width = sides[:, 1, None, None]
        index = rows[:, :, None] * width + columns[:, None, :]
        index = torch.where(symmetry[:, 2, None, None], index.mT, index) + self.starts[chosen, None, None]
        return chosen, index
