"""Enlargement by 2, 3 and 4."""

from invrestore.bench._degradations import Reduced
from invrestore.bench._types import ImageSet, Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import TRAINING_PHOTOS, multiple_of_12

__all__ = ["SUITE"]

SUITE = Suite(
    name="superres",
    title="Super-resolution",
    summary="Bicubic reduction with antialiasing by 2, 3 and 4, undone.",
    images=(
        ImageSet("set5", "Set5", "set5", crop=multiple_of_12),
        ImageSet("set14", "Set14", "set14", crop=multiple_of_12),
    ),
    tuning=(TRAINING_PHOTOS,),
    tasks=tuple(
        Task(f"x{factor}", f"x{factor}", Reduced(factor), border=factor, curve="factor", level=factor)
        for factor in (2, 3, 4)
    ),
    protocol=Protocol(
        "Images are cut to multiples of 12; the reduced image is neither rounded nor noisy; estimates are "
        "clamped and rounded to 8 bits; PSNR of luma (BT.601), a border of the factor left out.",
        luma=True,
    ),
    rows=(
        *(Row(name) for name in ("bicubic", "tv", "tgv", "wavelet", "coupled-dictionary")),
        *(Row(name) for name in ("deepinv-tv", "deepinv-dpir")),
        Row("unified", fixed={"refine": True}),
        Row("denoiser"),
    ),
    notes=("The restorer's answer is the nearest image that is reduced to the given one.",),
    axis="factor",
    published={
        ("bicubic", "set5", "x2"): 33.66,
        ("bicubic", "set5", "x3"): 30.39,
        ("bicubic", "set5", "x4"): 28.42,
        ("bicubic", "set14", "x2"): 30.24,
        ("bicubic", "set14", "x4"): 26.00,
    },
)
