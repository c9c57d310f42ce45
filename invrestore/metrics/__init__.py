"""How close a restored image is to the true one; one score for each image of a batch.

Every score is of the images as given: RGB, float, nothing clamped, rounded or cropped. Protocols that do
otherwise are spelled out by the caller with ``rgb_to_y``, ``crop`` and ``quantize``::

    psnr(crop(rgb_to_y(quantize(x)), 4), crop(rgb_to_y(x_true), 4))
"""

from invrestore.metrics._lpips import lpips
from invrestore.metrics._pixel import mae, mse, psnr
from invrestore.metrics._protocol import crop, quantize, rgb_to_y
from invrestore.metrics._running import PSNR, SSIM, RunningScore
from invrestore.metrics._ssim import ssim

__all__ = [
    "PSNR",
    "SSIM",
    "RunningScore",
    "crop",
    "lpips",
    "mae",
    "mse",
    "psnr",
    "quantize",
    "rgb_to_y",
    "ssim",
]
