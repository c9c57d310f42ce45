"""White Gaussian noise at four levels."""

from invrestore.bench._degradations import Noisy
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import CBSD68, KODAK24, KODAK500, SET12, TRAINING_PHOTOS

__all__ = ["SUITE"]

_TABLES = {
    # CBSD68 and the 500 x 500 crops of Kodak24 as printed in the papers; Set12 likewise.
    ("bm3d", "cbsd68"): {15: 33.52, 25: 30.71, 50: 27.38},
    ("dncnn-blind", "cbsd68"): {15: 33.89, 25: 31.23, 50: 27.92},
    ("ffdnet", "cbsd68"): {15: 33.87, 25: 31.21, 50: 27.96},
    ("bm3d", "kodak500"): {15: 34.28, 25: 31.68, 50: 28.46},
    ("dncnn-blind", "kodak500"): {15: 34.48, 25: 32.03, 50: 28.85},
    ("ffdnet", "kodak500"): {15: 34.63, 25: 32.13, 50: 28.98},
    ("bm3d", "set12"): {15: 32.37, 25: 29.97, 50: 26.72},
    ("low-rank", "set12"): {25: 30.26},
    # Kodak24 whole, as the paper of the three-scale network prints it; its DnCNN has 32.35, 30.76 and 29.16.
    ("bm3d", "kodak24"): {25: 31.81, 35: 30.04, 50: 28.62},
    ("multiscale", "kodak24"): {25: 32.39, 35: 30.83, 50: 29.27},
}

SUITE = Suite(
    name="awgn",
    title="Gaussian noise",
    summary="Denoising at σ = 15, 25, 35 and 50 of 255 by the protocol of the published tables.",
    images=(CBSD68, KODAK500, KODAK24, SET12),
    tuning=(TRAINING_PHOTOS,),
    tasks=tuple(
        Task(f"sigma-{level}", f"σ = {level}", Noisy(level / 255), curve="noise", level=level)
        for level in (15, 25, 35, 50)
    ),
    protocol=Protocol(
        "Noise is not clipped and drawn with seed 0 anew for each image; estimates are clamped and rounded to "
        "8 bits; PSNR over RGB (gray on Set12), no border crop.",
        seed="zero",
    ),
    rows=(
        Row("input"),
        Row("tv"),
        Row("wavelet"),
        Row("dictionary"),
        Row("k-svd"),
        Row("low-rank"),
        Row("bm3d"),
        Row("skimage-tv"),
        Row("ffdnet"),
        Row("dncnn-blind"),
        Row("dncnn", tasks=("sigma-15", "sigma-25", "sigma-50")),
        Row("multiscale"),
        Row("unified"),
        Row("unified-paper"),
        Row("denoiser"),
        Row("denoiser-ensemble", tasks=("sigma-15", "sigma-25", "sigma-50")),
    ),
    axis="noise level σ (of 255)",
    published={
        (method, images, f"sigma-{level}"): value
        for (method, images), values in _TABLES.items()
        for level, value in values.items()
    },
)
