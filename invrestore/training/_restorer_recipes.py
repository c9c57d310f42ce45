"""Recipes of the unified restorer, the X-GANs and the deep cascade, each for a GPU and for one processor core.

The recipes for a GPU hold the networks of the papers. Those for a core hold a small U-Net that is told what is
known about the damage (`RestorationUNet`, informed), trained by the distance to the true image first and
against the discriminator in a later part of the schedule: that is what an hour of a core trains well.
Those ending in `-paper-cpu` hold the networks and losses of the papers with fewer channels, to measure what the
published designs give in the same time; features come from the shipped classifier in place of VGG.
"""

from __future__ import annotations

from typing import Any

from invrestore.training._degradations import (
    Block,
    Blurred,
    Clutter,
    ColoredPixels,
    Compressed,
    Degradation,
    Noisy,
    Reduced,
    Sparse,
)
from invrestore.training._recipe import Optimizer, Source
from invrestore.training._restorer_recipe import RestorerRecipe, RestorerStage
from invrestore.training.losses import CASCADE_LAYERS, UNIFIED_LAYERS, XGAN_LAYERS

__all__ = ["PHOTOS", "PHOTO_LICENCE", "RESTORERS"]

PHOTOS = (Source(folder="bsds500", split=None), Source(folder="scenes"))
_MIXED = (*PHOTOS, Source(folder="faces128"))
PHOTO_LICENCE = (
    "Weights: as the package. Training images: BSDS500 (no licence stated; research use, cite Arbelaez et al. "
    "2011) and scene photos of the SUN database (no licence stated; research use)."
)
_MIXED_LICENCE = PHOTO_LICENCE[:-1] + ", and faces of Labeled Faces in the Wild (press photos; research use)."

_UNIFIED = (
    "A unified conditional GAN with bi-skip connections for denoising, deblurring and compressed images; Mao et "
    "al. (2016), Image Restoration Using Very Deep Convolutional Encoder-Decoder Networks"
)
_XGAN = "X-GANs: Image Reconstruction Made Easy for Extreme Cases"
_CASCADE = "A Deep Cascade of Neural Networks for Image Inpainting, Deblurring and Denoising"

_MUON = Optimizer(lr=2e-3)
# At 2e-3, batches of four whole squares drove a network of six scales off after 2200 steps.
_SLOW_MUON = Optimizer(lr=1e-3)
_SMALL_CRITIC = {"widths": [16, 32, 64, 96, 96], "hidden": 128}
_ADAM = Optimizer(kind="adamw", lr=2e-4, betas=(0.5, 0.9), warmup=0, schedule="constant")

# Unified ------------------------------------------------------------------------------------------------------

_EVERYDAY: tuple[Degradation, ...] = (Noisy(), Blurred(), Compressed())
_EVERYDAY_TESTS: dict[str, Degradation] = {
    "noise25": Noisy(sigma=(25 / 255, 25 / 255)),
    "blur": Blurred(side=(9, 27), width=(1.6, 1.6), sigma=(0.03, 0.03)),
    "jpeg10": Compressed(quality=(10, 10)),
    "jpeg40": Compressed(quality=(40, 40)),
}

_unified = RestorerRecipe(
    name="unified",
    architecture="BiSkipGenerator",
    sources=PHOTOS,
    scales=(0.7, 1.0),
    copies=3,
    degradations=_EVERYDAY,
    stages=(
        RestorerStage(until=0.6, patch=64, batch=32, l1=1.0),
        RestorerStage(patch=64, batch=32, l1=1.0, perceptual=0.01, adversarial=1e-3),
    ),
    optimizer=Optimizer(kind="adamw", lr=4e-4, betas=(0.9, 0.99)),
    discriminator_optimizer=_ADAM,
    critic_steps=5,
    perceptual_network="vgg16",
    perceptual_layers=UNIFIED_LAYERS,
    perceptual_distance="mse",
    test_folder="cbsd68",
    tests=_EVERYDAY_TESTS,
    minutes=60,
    licence=PHOTO_LICENCE,
    reference=_UNIFIED,
)

_UNIFIED_CPU: dict[str, Any] = {
    "checkpoint": "unified",
    "architecture": "RestorationUNet",
    "arguments": {"widths": [32, 64, 96, 128], "blocks": [1, 2, 2, 2], "informed": True},
    "sources": PHOTOS,
    "scales": (0.7, 1.0),
    "copies": 3,
    "stages": (
        RestorerStage(until=0.6, patch=64, batch=16, l1=1.0),
        RestorerStage(until=0.92, patch=96, batch=7, l1=1.0),
        RestorerStage(patch=64, batch=12, l1=1.0, adversarial=2e-4),
    ),
    "discriminator_optimizer": _ADAM,
    "discriminator_arguments": _SMALL_CRITIC,
    "test_folder": "cbsd68",
    "tests": _EVERYDAY_TESTS,
    "licence": PHOTO_LICENCE,
    "reference": _UNIFIED,
}

_unified_cpu = RestorerRecipe(
    name="unified-cpu", degradations=_EVERYDAY, optimizer=_MUON, minutes=45, **_UNIFIED_CPU
)

_unified_last_cpu = RestorerRecipe(
    name="unified-last-cpu",
    start="unified",
    seed=1,
    # Blur is the hardest of the three: what the smooth inverse leaves depends on the kernel.
    degradations=(Noisy(), Blurred(weight=2.5), Compressed()),
    optimizer=Optimizer(lr=1e-3),
    minutes=40,
    **_UNIFIED_CPU,
)

_unified_reduced_cpu = RestorerRecipe(
    **_UNIFIED_CPU
    | {
        "name": "unified-reduced-cpu",
        "start": "unified",
        "seed": 2,
        # One task more than the paper has, and JPEG of all qualities: what makes a better prior of other problems.
        "degradations": (
            Noisy(),
            Blurred(weight=2.5),
            Compressed(),
            Compressed(quality=(5, 95), subsampling=("4:2:0", "4:4:4"), weight=0.5),
            Reduced(weight=1.5),
        ),
        "optimizer": Optimizer(lr=1e-3),
        "tests": _EVERYDAY_TESTS
        | {
            "x2": Reduced(factor=(2,), sigma=(0.0, 0.0)),
            "x4": Reduced(factor=(4,), sigma=(0.0, 0.0)),
            "x2_noise": Reduced(factor=(2,), sigma=(0.05, 0.05)),
        },
        "minutes": 75,
    }
)

_unified_paper_cpu = RestorerRecipe(
    **dict(_unified)
    | {
        "name": "unified-paper-cpu",
        "checkpoint": "unified-paper",
        "arguments": {"width": 32},
        "stages": (
            RestorerStage(until=0.7, patch=64, batch=16, l1=1.0),
            RestorerStage(patch=64, batch=16, l1=1.0, perceptual=0.01, adversarial=2e-4),
        ),
        "optimizer": Optimizer(lr=1e-3),
        "discriminator_arguments": _SMALL_CRITIC,
        "perceptual_network": "classifier",
        "perceptual_layers": {"relu3_2": 1.0},
        "minutes": 45,
    }
)

# X-GANs -------------------------------------------------------------------------------------------------------

_XGAN_CHOICES: dict[str, Any] = {
    "architecture": "ResidualGenerator",
    "sources": PHOTOS,
    "by_image": True,
    "upright": True,
    "optimizer": Optimizer(kind="adamw", lr=2e-4, betas=(0.5, 0.999), warmup=0),
    "discriminator": "MultiScaleDiscriminator",
    "adversary": "least-squares",
    "perceptual_network": "vgg19",
    "perceptual_layers": XGAN_LAYERS,
    "test_folder": "cbsd68",
    "minutes": 60,
    "licence": PHOTO_LICENCE,
    "reference": _XGAN,
}
_XGAN_CPU: dict[str, Any] = _XGAN_CHOICES | {
    "architecture": "RestorationUNet",
    "sources": _MIXED,
    "optimizer": _MUON,
    "discriminator_optimizer": Optimizer(
        kind="adamw", lr=2e-4, betas=(0.5, 0.99), warmup=0, schedule="constant"
    ),
    "discriminator_arguments": {"width": 16, "layers": 2},
    "perceptual_network": "",
    "perceptual_layers": {},
    "test_folder": "faces128",
    "test_split": "test",
    "minutes": 45,
    "licence": _MIXED_LICENCE,
}


def _xgan(name: str, points: bool, patch: int = 256, batch: int = 8, **choices: Any) -> RestorerRecipe:
    stage = RestorerStage(
        patch=patch,
        batch=batch,
        adversarial=1.0,
        matching=10.0,
        perceptual=10.0,
        points=10.0 if points else 0.0,
    )
    return RestorerRecipe(name=name, stages=(stage,), **(_XGAN_CHOICES | choices))


def _xgan_cpu(name: str, points: bool, patch: int, **choices: Any) -> RestorerRecipe:
    weight = 0.1 if points else 0.0
    stages = (
        RestorerStage(until=0.5, patch=patch, batch=16 * 64**2 // patch**2, l1=1.0, points=weight),
        RestorerStage(until=0.85, patch=128, batch=4, l1=1.0, points=weight),
        RestorerStage(patch=128, batch=4, l1=1.0, points=weight, adversarial=2e-3, matching=2e-2),
    )
    return RestorerRecipe(
        name=f"{name}-cpu", **({"checkpoint": name, "stages": stages} | _XGAN_CPU | choices)
    )


_SPARSE: dict[str, Any] = {
    "degradations": (Sparse(),),
    "tests": {
        f"{'sobel' if guided else 'uniform'}{percent}": Sparse(keep=(percent / 100,) * 2, guided=guided)
        for guided in (0, 1)
        for percent in (1, 5, 20)
    },
}
_COLOURED: dict[str, Any] = {
    "degradations": (ColoredPixels(),),
    "tests": {f"hit{percent}": ColoredPixels(amount=(percent / 100,) * 2) for percent in (85, 90, 95)},
}
_SQUARES: dict[str, Any] = {
    "degradations": (
        Block(told=0.5),
        Block(size=(16, 64), centred=0.0, told=0.5, weight=0.5),
        Clutter(size=(8, 64)),
    ),
    "tests": {
        "white": Block(told=0.0),
        "hole": Block(told=1.0),
        "cluttered": Clutter(size=(32, 64)),
    },
}
_LARGE_SQUARES: dict[str, Any] = {
    "degradations": (
        Block(size=(128, 128), told=0.0),
        Clutter(size=(16, 128)),
    ),
    "tests": {"white": Block(size=(64, 64), told=0.0), "cluttered": Clutter(size=(16, 64))},
}
_WIDE = {"widths": [24, 48, 80, 112, 128, 128], "blocks": [1, 1, 1, 2, 2, 2], "informed": True}
_SCATTERED = {"widths": [32, 64, 96, 128, 128], "blocks": [1, 1, 2, 2, 1], "informed": True}

_xgan_block_last_cpu = _xgan_cpu(
    "xgan-block-last",
    points=True,
    patch=128,
    arguments=_WIDE,
    optimizer=_SLOW_MUON,
    **_SQUARES
    | {
        "checkpoint": "xgan-block",
        "start": "xgan-block",
        "seed": 1,
        # To find a square of another picture takes longest to learn; squared errors do not let it pass as small.
        "degradations": (
            Block(told=0.5),
            Block(size=(16, 64), centred=0.0, told=0.5, weight=0.5),
            Clutter(size=(8, 64), weight=4.0),
        ),
        "stages": (
            RestorerStage(until=0.9, patch=128, batch=4, l1=1.0, mse=4.0),
            RestorerStage(patch=128, batch=4, l1=1.0, mse=4.0, adversarial=2e-3, matching=2e-2),
        ),
        "minutes": 60,
    },
)

_xgan_sparse_last_cpu = _xgan_cpu(
    "xgan-sparse-last",
    points=True,
    # Whole faces: between the samples of one in a hundred pixels, only the coarse scales see enough of them.
    patch=128,
    arguments=_SCATTERED,
    optimizer=_SLOW_MUON,
    **_SPARSE | {"checkpoint": "xgan-sparse", "start": "xgan-sparse", "seed": 1, "minutes": 60},
)

_xgan_colornoise_last_cpu = _xgan_cpu(
    "xgan-colornoise-last",
    points=False,
    patch=128,
    arguments=_SCATTERED | {"residual": False},
    optimizer=_SLOW_MUON,
    **_COLOURED | {"checkpoint": "xgan-colornoise", "start": "xgan-colornoise", "seed": 1, "minutes": 60},
)

_xgan_sparse_paper_cpu = _xgan(
    "xgan-sparse-paper-cpu",
    points=True,
    patch=128,
    batch=4,
    **_SPARSE
    | {
        "checkpoint": "xgan-sparse-paper",
        "arguments": {"width": 24},
        "sources": _MIXED,
        "discriminator_arguments": {"width": 16},
        "perceptual_network": "classifier",
        "perceptual_layers": {"relu1_1": 1 / 16, "relu2_1": 1 / 8, "relu3_1": 1 / 4, "relu4_1": 1.0},
        "test_folder": "faces128",
        "test_split": "test",
        "minutes": 45,
        "licence": _MIXED_LICENCE,
    },
)

# Deep cascade -------------------------------------------------------------------------------------------------

_cascade = RestorerRecipe(
    name="cascade",
    architecture="Cascade",
    sources=PHOTOS,
    by_image=True,
    upright=True,
    degradations=(Block(told=0.0),),
    stages=(
        RestorerStage(until=0.4, patch=128, batch=32, mse=1.0),
        RestorerStage(until=0.6, patch=128, batch=32, mse=1.0, perceptual=0.01, adversarial=1e-3),
        RestorerStage(until=0.75, patch=128, batch=32, mse=1.0, trains="refiner"),
        RestorerStage(patch=128, batch=32, mse=1.0, trains="both"),
    ),
    optimizer=Optimizer(kind="adamw", lr=4e-4, betas=(0.5, 0.99)),
    adversary="wasserstein-clip",
    critic_steps=5,
    discriminator_optimizer=Optimizer(kind="rmsprop", lr=5e-5, warmup=0, schedule="constant"),
    perceptual_network="vgg16",
    perceptual_layers=CASCADE_LAYERS,
    perceptual_distance="mse",
    test_folder="cbsd68",
    tests={"hole": Block(told=0.0)},
    minutes=60,
    licence=PHOTO_LICENCE,
    reference=_CASCADE,
)

_cascade_cpu = RestorerRecipe(
    name="cascade-cpu",
    checkpoint="cascade",
    architecture="Cascade",
    arguments={"generator": "RestorationUNet", "arguments": _WIDE, "width": 24},
    sources=_MIXED,
    by_image=True,
    upright=True,
    degradations=(
        Block(told=1.0, weight=3.0),
        Block(size=(16, 64), centred=0.0, told=1.0),
    ),
    stages=(
        RestorerStage(until=0.55, patch=128, batch=8, l1=1.0, mse=1.0),
        RestorerStage(until=0.7, patch=128, batch=8, l1=1.0, mse=1.0, adversarial=1e-4),
        RestorerStage(until=0.78, patch=64, batch=16, mse=1.0, trains="refiner"),
        RestorerStage(patch=128, batch=6, l1=1.0, mse=1.0, trains="both"),
    ),
    optimizer=_SLOW_MUON,
    adversary="wasserstein-penalty",
    discriminator_optimizer=_ADAM,
    discriminator_arguments=_SMALL_CRITIC,
    test_folder="faces128",
    test_split="test",
    tests={"hole": Block(told=1.0), "square": Block(size=(32, 32), centred=0.0, told=1.0)},
    minutes=45,
    licence=_MIXED_LICENCE,
    reference=_CASCADE,
)

_cascade_paper_cpu = RestorerRecipe(
    **dict(_cascade)
    | {
        "name": "cascade-paper-cpu",
        "checkpoint": "cascade-paper",
        "arguments": {"arguments": {"widths": [32, 64, 128, 192, 192]}, "width": 48},
        "sources": _MIXED,
        "stages": (
            RestorerStage(until=0.4, patch=128, batch=8, mse=1.0),
            RestorerStage(until=0.6, patch=128, batch=8, mse=1.0, perceptual=0.01, adversarial=1e-3),
            RestorerStage(until=0.75, patch=64, batch=16, mse=1.0, trains="refiner"),
            RestorerStage(patch=128, batch=8, mse=1.0, trains="both"),
        ),
        "discriminator_arguments": _SMALL_CRITIC,
        "perceptual_network": "classifier",
        "perceptual_layers": {"relu1_1": 0.25, "relu2_1": 0.25, "relu3_2": 0.25, "relu4_2": 0.25},
        "test_folder": "faces128",
        "test_split": "test",
        "minutes": 45,
        "licence": _MIXED_LICENCE,
    }
)

RESTORERS = (
    _unified,
    _unified_cpu,
    _unified_last_cpu,
    _unified_reduced_cpu,
    _unified_paper_cpu,
    _xgan("xgan-sparse", points=True, **_SPARSE),
    _xgan("xgan-colornoise", points=False, **_COLOURED),
    _xgan("xgan-block", points=True, **_LARGE_SQUARES),
    _xgan_cpu("xgan-sparse", points=True, patch=64, arguments=_SCATTERED, **_SPARSE),
    _xgan_sparse_last_cpu,
    _xgan_cpu(
        "xgan-colornoise", points=False, patch=64, arguments=_SCATTERED | {"residual": False}, **_COLOURED
    ),
    _xgan_colornoise_last_cpu,
    _xgan_cpu("xgan-block", points=True, patch=128, arguments=_WIDE, optimizer=_SLOW_MUON, **_SQUARES),
    _xgan_block_last_cpu,
    _xgan_sparse_paper_cpu,
    _cascade,
    _cascade_cpu,
    _cascade_paper_cpu,
)
"""All of them; `training.RECIPES` has them by name."""
