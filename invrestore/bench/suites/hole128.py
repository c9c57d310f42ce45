"""The middle quarter of a picture is missing."""

from invrestore.bench._degradations import Hole
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._rows import FILLING
from invrestore.bench.suites._sets import FACES_128, PHOTOS_128, TRAINING_FACES_128

__all__ = ["SUITE"]

_CONTEXT = (
    "The deep cascade's paper prints PSNR / SSIM on BSD300: PatchMatch 17.12 / .828, context encoder 18.09 / .844, "
    "neural patch synthesis 18.33 / .850, its cascade 18.41 / .855. Other pictures: compare rows here, not numbers."
)

SUITE = Suite(
    name="hole128",
    title="A 64 x 64 hole in 128 x 128 pixels",
    summary="Hole filling as in the deep cascade's tables.",
    images=(FACES_128, PHOTOS_128),
    tuning=(TRAINING_FACES_128,),
    tasks=(Task("hole", "64 x 64 hole", Hole(64)),),
    protocol=Protocol("Estimates are clamped and rounded to 8 bits; RGB PSNR and SSIM of the whole picture."),
    rows=(
        *FILLING,
        Row("xgan-block", fixed={"refine": True}),
        Row("cascade", fixed={"refine": True}),
        Row("cascade-paper", fixed={"refine": True}),
        Row("denoiser"),
    ),
    notes=(_CONTEXT,),
)
