"""Images for training: find them in any folder, pack them into one file, draw them on the device.

The images that published scores are measured on are known by hash and never packed.
"""

from invrestore.data._files import ImageFile, find_images, layout
from invrestore.data._labelled import LabelledImages, LabelledPool, read_labelled
from invrestore.data._pack import (
    PackSummary,
    PatchPool,
    describe_pack,
    pack,
    read_labels,
    read_masks,
    read_pack,
)
from invrestore.data._pool import ImagePool, read_squares
from invrestore.data._reserved import fingerprints, reserved, reserved_set, write_reserved

__all__ = [
    "ImageFile",
    "ImagePool",
    "LabelledImages",
    "LabelledPool",
    "PackSummary",
    "PatchPool",
    "describe_pack",
    "find_images",
    "fingerprints",
    "layout",
    "pack",
    "read_labelled",
    "read_labels",
    "read_masks",
    "read_pack",
    "read_squares",
    "reserved",
    "reserved_set",
    "write_reserved",
]
