"""Pictures from a few of their pixels."""

from invrestore.bench._degradations import Sparse
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import FACES_128, PHOTOS_128, TRAINING_PHOTOS

__all__ = ["SUITE"]

SUITE = Suite(
    name="sparse",
    title="Sparse samples",
    summary="1 to 20 % of the pixels are kept, drawn uniformly or where the Sobel gradient is large.",
    images=(FACES_128, PHOTOS_128),
    tuning=(TRAINING_PHOTOS,),
    tasks=tuple(
        Task(
            f"{name}-{percent}",
            f"{percent} %, {name}",
            Sparse(percent / 100, guided=name == "guided"),
            curve=name,
            level=percent,
        )
        for name in ("uniform", "guided")
        for percent in (1, 2, 5, 10, 20)
    ),
    protocol=Protocol(
        "Image i draws its pixels from seed i; estimates are clamped and rounded to 8 bits; RGB PSNR, no border crop.",
    ),
    rows=(
        *(Row(name) for name in ("input", "biharmonic", "tv", "tgv", "wavelet", "dictionary", "low-rank")),
        Row("xgan-sparse", fixed={"refine": True}),
        Row("xgan-sparse-paper", fixed={"refine": True}),
        Row("denoiser"),
    ),
    axis="kept pixels in %",
    notes=("Every method keeps the known pixels; the restorer's answer has them put back.",),
)
