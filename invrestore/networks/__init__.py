"""Network architectures and the trained weights that come with the package.

Every denoiser is called as `network(x, sigma)`: x (B, C, H, W) in [0, 1], sigma in the same unit. Every
generator is called as `generator(z)`: z (N, D) standard normal, images (N, C, H, W) in [0, 1]. Every restorer
is called as `network(x)`: x (B, C, H, W) degraded, or with what is known about the degradation stacked below.
Every high-level network is called as `network(x)`: x (B, C, H, W) in [0, 1], logits of classes.
"""

from invrestore.networks._bi_skip import BiSkipGenerator
from invrestore.networks._blocks import DenoiserNetwork
from invrestore.networks._cascade import (
    Cascade,
    Critic,
    DeblurDenoise,
    InpaintingGenerator,
    InpaintingResNet,
)
from invrestore.networks._dcgan import DCGAN, DCGANDiscriminator, DCGANGenerator
from invrestore.networks._dncnn import DnCNN
from invrestore.networks._face_gan import Encoder, FaceGAN, ResidualDiscriminator, StyleGenerator
from invrestore.networks._high_level import Classifier, HighLevelNetwork, Segmenter
from invrestore.networks._latent import LatentModel
from invrestore.networks._multiscale import MultiScaleDenoiser
from invrestore.networks._restorer import RestorerNetwork
from invrestore.networks._tiles import tiled
from invrestore.networks._unet import RestorationUNet, UNet
from invrestore.networks._weights import ARCHITECTURES, Card, available, build, card, load, load_file, save
from invrestore.networks._xgan import MultiScaleDiscriminator, PatchDiscriminator, ResidualGenerator

__all__ = [
    "ARCHITECTURES",
    "DCGAN",
    "BiSkipGenerator",
    "Card",
    "Cascade",
    "Classifier",
    "Critic",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DeblurDenoise",
    "DenoiserNetwork",
    "DnCNN",
    "Encoder",
    "FaceGAN",
    "HighLevelNetwork",
    "InpaintingGenerator",
    "InpaintingResNet",
    "LatentModel",
    "MultiScaleDenoiser",
    "MultiScaleDiscriminator",
    "PatchDiscriminator",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "RestorationUNet",
    "RestorerNetwork",
    "Segmenter",
    "StyleGenerator",
    "UNet",
    "available",
    "build",
    "card",
    "load",
    "load_file",
    "save",
    "tiled",
]
