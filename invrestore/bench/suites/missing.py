"""Half and a fifth of the pixels of whole pictures."""

from invrestore.bench._degradations import Sparse
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import CBSD68_FIRST_8, SET5, TRAINING_PHOTOS

__all__ = ["SUITE"]

SUITE = Suite(
    name="missing",
    title="Missing pixels",
    summary="50 and 80 % of the pixels are missing, drawn uniformly; the others are exact.",
    images=(SET5, CBSD68_FIRST_8),
    tuning=(TRAINING_PHOTOS,),
    tasks=tuple(
        Task(
            f"missing-{percent}",
            f"{percent} % missing",
            Sparse(1 - percent / 100),
            curve="missing",
            level=percent,
        )
        for percent in (50, 80)
    ),
    protocol=Protocol(
        "Image i draws its pixels from seed i; estimates are clamped and rounded to 8 bits; RGB PSNR, no border crop.",
    ),
    rows=tuple(
        Row(name)
        for name in (
            "input",
            "biharmonic",
            "tv",
            "tgv",
            "wavelet",
            "dictionary",
            "low-rank",
            "deepinv-tv",
            "deepinv-dpir",
            "denoiser",
        )
    ),
    axis="missing pixels in %",
)
