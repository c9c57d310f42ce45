"""Picture files to float tensors in [0, 1] and back; the only place that knows 8 and 16 bits."""

from invrestore.io._info import MAX_PIXELS, SUFFIXES, ImageInfo
from invrestore.io._read import load_image, read
from invrestore.io._samples import decode_samples, encode_samples
from invrestore.io._write import check_free, check_target, encode, save_image, write_bytes

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageInfo",
    "check_free",
    "check_target",
    "decode_samples",
    "encode",
    "encode_samples",
    "load_image",
    "read",
    "save_image",
    "write_bytes",
]
