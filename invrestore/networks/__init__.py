"""Network architectures and the trained weights that come with the package.

Every denoiser is called as `network(x, sigma)`: x (B, C, H, W) in [0, 1], sigma in the same unit.
"""

from invrestore.networks._blocks import DenoiserNetwork
from invrestore.networks._dncnn import DnCNN
from invrestore.networks._multiscale import MultiScaleDenoiser
from invrestore.networks._tiles import tiled
from invrestore.networks._unet import UNet
from invrestore.networks._weights import ARCHITECTURES, Card, available, build, card, load, load_file, save

__all__ = [
    "ARCHITECTURES",
    "Card",
    "DenoiserNetwork",
    "DnCNN",
    "MultiScaleDenoiser",
    "UNet",
    "available",
    "build",
    "card",
    "load",
    "load_file",
    "save",
    "tiled",
]
