"""The recipes of what the package ships and of the published networks it holds."""

from __future__ import annotations

from typing import Any, Literal

from invrestore.training._degradations import Blurred, Compressed, Reduced, Sparse
from invrestore.training._high_level_recipe import HighLevelRecipe, JointRecipe
from invrestore.training._recipe import DenoiserRecipe, GanRecipe, GanStage, Optimizer, Recipe, Source, Stage
from invrestore.training._restorer_recipes import PHOTO_LICENCE, PHOTOS, RESTORERS

__all__ = ["RECIPES"]

_DRUNET = (
    "Zhang et al. (2021), Plug-and-Play Image Restoration with Deep Denoiser Prior; "
    "Mohan et al. (2020), Robust and Interpretable Blind Image Denoising via Bias-Free CNNs"
)
_LIU = "Liu et al. (2018), When Image Denoising Meets High-Level Vision Tasks"


def _multiscale(level: int) -> DenoiserRecipe:
    return DenoiserRecipe(
        name=f"multiscale-{level}",
        architecture="MultiScaleDenoiser",
        sigma=(level / 255, level / 255),
        test_sigmas=(level / 255,),
        loss="mse",
        sources=PHOTOS,
        scales=(0.7, 1.0),
        copies=3,
        stages=(Stage(patch=48, batch=32),),
        optimizer=Optimizer(kind="adamw"),
        minutes=60,
        licence=PHOTO_LICENCE,
        reference=_LIU,
    )


_FACES = (Source(folder="faces64"),)
_STYLEGAN = (
    "Karras et al. (2020), Analyzing and Improving the Image Quality of StyleGAN; Larsen et al. (2016), "
    "Autoencoding beyond pixels using a learned similarity metric; Zhao et al. (2020), Differentiable "
    "Augmentation for Data-Efficient GAN Training"
)
_FACE_LICENCE = (
    "Weights: as the package. Training images: Labeled Faces in the Wild, deep-funneled (no licence stated; "
    "press photographs of real people, for research; biased in age, sex and origin)."
)
_FACES_CPU: dict[str, Any] = {
    "checkpoint": "faces64",
    # One layer: an encoder's codes pass a deeper mapping badly.
    "arguments": {"mapping_layers": 1},
    "sources": _FACES,
    "kl": 2.0,
    "features": 0.4,
    "reconstruction": 4.0,
    "encoded": 0.75,
    "adversarial": 0.1,
    "r1": 0.05,
    "penalised": 2,
    "licence": _FACE_LICENCE,
    "reference": _STYLEGAN,
}
_FACES_GPU: dict[str, Any] = {
    "checkpoint": "faces64",
    "arguments": {
        "generator_widths": [128, 192, 192, 192],
        "encoder_widths": [64, 96, 160, 160],
        "discriminator_widths": [64, 128, 192, 192],
    },
    "sources": _FACES,
    "encoder": "inverse",
    "compile": True,
    "licence": _FACE_LICENCE,
    "reference": _STYLEGAN,
}
_ENCODER_OPTIMIZER = Optimizer(kind="adamw", lr=1e-3, betas=(0.5, 0.99), clip_norm=2.0)

_DCGAN: dict[str, Any] = {
    "checkpoint": "dcgan64",
    "architecture": "DCGAN",
    "sources": _FACES,
    "stages": (GanStage(patch=64, batch=64),),
    "encoder": "none",
    "augment": (),
    "minutes": 60,
    "licence": _FACE_LICENCE,
    "reference": "Radford et al. (2016), Unsupervised Representation Learning with Deep Convolutional "
    "Generative Adversarial Networks",
}

_SCENES6, _CAMVID = "highlevel/scenes6.zip", "highlevel/camvid"
_SCENE_CLASSES = ["buildings", "forest", "glacier", "mountain", "sea", "street"]
_ROAD_CLASSES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
]
_UNLABELLED = 11
_LABELLED = (Source(folder=_SCENES6), Source(folder=_CAMVID))
_SMALL_DENOISER = {"channels": 3, "widths": [24, 48, 96], "blocks": [1, 1, 2]}
_SCENES6_LICENCE = "scenes6 (Intel image classification, no licence stated; research use)"
_CAMVID_LICENCE = "CamVid (CC BY-NC 4.0, personal and research use)"
_HIGH_LEVEL_LICENCE = f"Weights: as the package. Training images: {_SCENES6_LICENCE} and {_CAMVID_LICENCE}."


def _joint(task: Literal["classification", "segmentation"], high_level: str, lam: float) -> JointRecipe:
    # Both recipes draw as many and as large crops of each set, so that only the loss tells them apart.
    scenes, roads = (96, 8), (176, 3)
    labelled, others = (roads, scenes) if task == "segmentation" else (scenes, roads)
    return JointRecipe(
        name=f"joint-{task}",
        checkpoint="denoiser-semantic" if task == "segmentation" else "",
        arguments=_SMALL_DENOISER,
        task=task,
        high_level=high_level,
        lam=lam,
        unit=0.3,
        ignore=_UNLABELLED if task == "segmentation" else None,
        sources=_LABELLED,
        test_folder=_CAMVID if task == "segmentation" else _SCENES6,
        test_images=24 if task == "segmentation" else 60,
        stages=(Stage(patch=labelled[0], batch=labelled[1]),),
        other_patch=others[0],
        other_batch=others[1],
        optimizer=Optimizer(lr=5e-4, warmup=20),
        ema=0.98,
        minutes=5,
        log_every=50,
        licence=_HIGH_LEVEL_LICENCE,
        reference=_LIU,
    )


_DENOISER_AGAIN: dict[str, Any] = {
    "checkpoint": "denoiser",
    "arguments": {"channels": 3, "widths": [32, 64, 128, 192], "blocks": [5, 4, 3, 2]},
    "start": "denoiser",
    "sigma_power": 1.25,
    "loss": "log-mse",
    "sources": PHOTOS[:1],
    "stages": (Stage(until=0.5, patch=64, batch=16), Stage(patch=128, batch=4)),
    "licence": PHOTO_LICENCE,
    "reference": _DRUNET,
}
"""What the trainings that begin from the shipped denoiser share."""

_ALL: tuple[Recipe, ...] = (
    HighLevelRecipe(
        name="classifier",
        architecture="Classifier",
        arguments={"classes": _SCENE_CLASSES},
        task="classification",
        sources=(Source(folder=_SCENES6),),
        test_folder=_SCENES6,
        stages=(Stage(patch=96, batch=32),),
        zoom=(1.0, 1.4),
        augment=("translation",),
        smoothing=0.1,
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05),
        ema=0.99,
        minutes=10,
        log_every=50,
        licence=f"Weights: as the package. Training images: {_SCENES6_LICENCE}.",
        reference="Simonyan and Zisserman (2015), Very Deep Convolutional Networks for Large-Scale Image "
        "Recognition",
    ),
    HighLevelRecipe(
        name="segmenter",
        architecture="Segmenter",
        arguments={"classes": _ROAD_CLASSES},
        task="segmentation",
        ignore=_UNLABELLED,
        sources=(Source(folder=_CAMVID),),
        test_folder=_CAMVID,
        stages=(Stage(patch=160, batch=8),),
        zoom=(0.9, 1.6),
        augment=("color",),
        balance=0.3,
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05),
        ema=0.99,
        minutes=10,
        log_every=50,
        licence=f"Weights: as the package. Training images: {_CAMVID_LICENCE}.",
        reference="Lin et al. (2017), Feature Pyramid Networks for Object Detection; Kirillov et al. (2019), "
        "Panoptic Feature Pyramid Networks",
    ),
    DenoiserRecipe(
        name="joint-start",
        arguments=_SMALL_DENOISER,
        loss="mse",
        sources=_LABELLED,
        stages=(Stage(patch=64, batch=16),),
        optimizer=Optimizer(lr=2e-3),
        minutes=10,
        licence=_HIGH_LEVEL_LICENCE,
        reference=_LIU,
    ),
    _joint("classification", "classifier", 0.25),
    _joint("segmentation", "segmenter", 0.5),
    DenoiserRecipe(
        name="denoiser-cpu",
        checkpoint="denoiser",
        arguments={"channels": 3, "widths": [32, 64, 128, 192], "blocks": [1, 2, 3, 2]},
        sigma_power=1.25,
        sources=PHOTOS,
        scales=(0.7, 1.0),
        copies=3,
        stages=(Stage(until=0.6, patch=64, batch=16), Stage(patch=128, batch=4)),
        optimizer=Optimizer(lr=2e-3),
        minutes=104,
        licence=PHOTO_LICENCE,
        reference=_DRUNET,
    ),
    DenoiserRecipe(
        name="denoiser-last-cpu",
        seed=5,
        optimizer=Optimizer(lr=1e-3),
        minutes=150,
        **_DENOISER_AGAIN,
    ),
    DenoiserRecipe(
        name="denoiser-taught-cpu",
        seed=6,
        taught=0.7,
        optimizer=Optimizer(lr=5e-4),
        minutes=40,
        **_DENOISER_AGAIN,
    ),
    DenoiserRecipe(
        name="denoiser-awake-cpu",
        seed=8,
        optimizer=Optimizer(lr=7e-4),
        minutes=75,
        **_DENOISER_AGAIN,
    ),
    DenoiserRecipe(
        name="denoiser-plugged-cpu",
        seed=9,
        plugged=0.35,
        problems=(
            Reduced(weight=3, sigma=(0, 0)),
            Sparse(weight=2, keep=(0.1, 0.6), guided=0),
            Blurred(weight=2, sigma=(0.01, 0.05)),
            Compressed(weight=1),
        ),
        optimizer=Optimizer(lr=5e-4),
        minutes=75,
        # Sides that all factors of the reduction divide.
        **_DENOISER_AGAIN | {"stages": (Stage(until=0.5, patch=96, batch=8), Stage(patch=144, batch=4))},
    ),
    DenoiserRecipe(
        name="denoiser-mapped-cpu",
        seed=7,
        taught=0.7,
        taught_views=2,
        maps=0.35,
        gray=0.1,
        optimizer=Optimizer(lr=5e-4),
        minutes=100,
        **_DENOISER_AGAIN,
    ),
    DenoiserRecipe(
        name="denoiser",
        checkpoint="denoiser",
        arguments={"channels": 3, "widths": [32, 64, 128, 256], "blocks": 4},
        sigma_power=1.25,
        sources=PHOTOS,
        scales=(0.7, 1.0),
        copies=3,
        stages=(Stage(patch=128, batch=64),),
        optimizer=Optimizer(lr=1e-3, warmup=500),
        compile=True,
        minutes=22,
        licence=PHOTO_LICENCE,
        reference=_DRUNET,
    ),
    DenoiserRecipe(
        name="denoiser-gray-cpu",
        checkpoint="denoiser-gray",
        arguments={"channels": 1, "widths": [32, 64, 128, 192], "blocks": [1, 2, 3, 2]},
        sigma_power=1.25,
        sources=PHOTOS,
        scales=(0.7, 1.0),
        copies=3,
        stages=(Stage(until=0.6, patch=64, batch=16), Stage(patch=128, batch=4)),
        optimizer=Optimizer(lr=2e-3),
        minutes=104,
        licence=PHOTO_LICENCE,
        reference=_DRUNET,
    ),
    DenoiserRecipe(
        name="multiscale-cpu",
        checkpoint="multiscale",
        architecture="MultiScaleDenoiser",
        arguments={"conditioned": True},
        sigma=(15 / 255, 60 / 255),
        test_sigmas=(25 / 255, 35 / 255, 50 / 255),
        loss="log-mse",
        sources=PHOTOS,
        scales=(0.7, 1.0),
        copies=3,
        stages=(Stage(patch=48, batch=8),),
        optimizer=Optimizer(lr=2e-3),
        minutes=60,
        licence=PHOTO_LICENCE,
        reference=_LIU,
    ),
    GanRecipe(
        name="faces64-cpu",
        stages=(
            GanStage(until=0.6, patch=64, batch=32, adversarial=False),
            GanStage(patch=64, batch=32),
        ),
        optimizer=Optimizer(kind="adamw", lr=6e-4, betas=(0.5, 0.99), warmup=200, clip_norm=2.0),
        # It begins when the rate has fallen by half, against a generator that has learnt for long.
        discriminator_optimizer=Optimizer(kind="adamw", lr=2e-3, betas=(0.5, 0.99), clip_norm=2.0),
        minutes=80,
        **_FACES_CPU,
    ),
    GanRecipe(
        name="faces64-last-cpu",
        start="faces64",
        seed=1,
        stages=(GanStage(patch=64, batch=32),),
        optimizer=Optimizer(kind="adamw", lr=2e-4, betas=(0.5, 0.99), warmup=200, clip_norm=2.0),
        discriminator_optimizer=Optimizer(kind="adamw", lr=6e-4, betas=(0.5, 0.99), clip_norm=2.0),
        minutes=15,
        **_FACES_CPU,
    ),
    GanRecipe(
        name="faces64-sharper-cpu",
        start="faces64",
        seed=2,
        stages=(GanStage(patch=64, batch=32),),
        optimizer=Optimizer(kind="adamw", lr=3e-4, betas=(0.5, 0.99), warmup=200, clip_norm=2.0),
        discriminator_optimizer=Optimizer(kind="adamw", lr=9e-4, betas=(0.5, 0.99), clip_norm=2.0),
        log_every=20,
        minutes=130,
        **_FACES_CPU | {"encoded": 0.6, "adversarial": 0.2},
    ),
    GanRecipe(
        name="faces64-encoder-cpu",
        start="faces64",
        seed=3,
        stages=(GanStage(patch=64, batch=64, adversarial=False, damaged=0.85),),
        optimizer=_ENCODER_OPTIMIZER,
        log_every=20,
        minutes=42,
        **_FACES_CPU,
    ),
    GanRecipe(
        name="faces64",
        stages=(GanStage(patch=64, batch=64),),
        optimizer=Optimizer(kind="adamw", lr=1e-3, betas=(0.0, 0.99), warmup=200, clip_norm=2.0),
        r1=0.05,
        penalised=8,
        minutes=22,
        **_FACES_GPU,
    ),
    GanRecipe(
        name="faces64-encoder",
        start="faces64",
        seed=3,
        stages=(GanStage(patch=64, batch=256, adversarial=False, damaged=0.85),),
        optimizer=_ENCODER_OPTIMIZER,
        reconstruction=4.0,
        minutes=5,
        **_FACES_GPU,
    ),
    GanRecipe(
        name="dcgan64", optimizer=Optimizer(kind="adamw", lr=2e-4, betas=(0.5, 0.999), warmup=0), **_DCGAN
    ),
    GanRecipe(
        name="dcgan64-cpu",
        arguments={"width": 32},
        # The published rate with the longer steps that a smaller network takes, falling to zero.
        optimizer=Optimizer(kind="adamw", lr=4e-4, betas=(0.5, 0.999), warmup=0),
        **_DCGAN,
    ),
    _multiscale(25),
    _multiscale(35),
    _multiscale(50),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*_ALL, *RESTORERS)}
"""Recipes by name. Those ending in `-cpu` suit one or two processor cores, the others one GPU."""
