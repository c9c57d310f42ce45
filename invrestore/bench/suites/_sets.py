"""Image sets that several suites share, and how images are cut."""

from __future__ import annotations

import dataclasses

from invrestore._types import Tensor
from invrestore.bench._types import ImageSet

__all__ = [
    "CBSD68",
    "CBSD68_FIRST_8",
    "FACES_128",
    "KODAK24",
    "KODAK500",
    "PHOTOS_128",
    "SET5",
    "SET12",
    "TRAINING_FACES",
    "TRAINING_FACES_128",
    "TRAINING_PHOTOS",
    "multiple_of_12",
]


def centre(x: Tensor, side: int) -> Tensor:
    """The square of this side in the middle of images (B, C, H, W)."""
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def centre_128(x: Tensor) -> Tensor:
    """The middle 128 x 128 pixels."""
    return centre(x, 128)


def multiple_of_12(x: Tensor) -> Tensor:
    """As much of the image from the top left corner as 2, 3 and 4 divide."""
    return x[..., : x.shape[-2] // 12 * 12, : x.shape[-1] // 12 * 12]


def kodak_500(x: Tensor) -> Tensor:
    """The 500 x 500 pixels of a Kodak picture that the FFDNet authors' set holds."""
    landscape = x.shape[-1] > x.shape[-2]
    return x[..., 6:506, 134:634] if landscape else x[..., 134:634, 6:506]


SET5 = ImageSet("set5", "Set5", "set5")
CBSD68 = ImageSet("cbsd68", "CBSD68", "cbsd68")
CBSD68_FIRST_8 = dataclasses.replace(CBSD68, first=8, label="CBSD68, first 8")
KODAK24 = ImageSet("kodak24", "Kodak24", "kodak24")
KODAK500 = ImageSet("kodak500", "Kodak24, 500 x 500 crops", "kodak24", crop=kodak_500)
SET12 = ImageSet("set12", "Set12 (gray)", "set12", gray=True)
PHOTOS_128 = ImageSet("photos128", "CBSD68, middle 128 x 128", "cbsd68", crop=centre_128, examples="bsds500")
FACES_128 = ImageSet("faces128", "Faces, 128 x 128", "faces128", split="test", first=100, examples="faces128")
TRAINING_PHOTOS = ImageSet(
    "bsds-train",
    "BSDS500 train, middle 128 x 128",
    "bsds500",
    split="train",
    first=8,
    crop=centre_128,
    examples="bsds500",
)
TRAINING_FACES = ImageSet(
    "faces64-train", "Faces, train", "faces64", split="train", first=24, examples="faces64"
)
TRAINING_FACES_128 = ImageSet(
    "faces128-train", "Faces, train", "faces128", split="train", first=8, examples="faces128"
)
