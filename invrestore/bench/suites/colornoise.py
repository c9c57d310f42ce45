"""Random colours on most pixels."""

from invrestore.bench._degradations import ColoredPixels
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import FACES_128, PHOTOS_128, TRAINING_PHOTOS

__all__ = ["SUITE"]

SUITE = Suite(
    name="colornoise",
    title="Random colours on 85 to 95 % of the pixels",
    summary="Most pixels are replaced by random colours, and no method is told which.",
    images=(FACES_128, PHOTOS_128),
    tuning=(TRAINING_PHOTOS,),
    tasks=tuple(
        Task(f"hit-{percent}", f"{percent} %", ColoredPixels(percent / 100), curve="hit", level=percent)
        for percent in (85, 90, 95)
    ),
    protocol=Protocol(
        "Image i draws from seed i; estimates are clamped and rounded to 8 bits; RGB PSNR, no border crop.",
    ),
    rows=tuple(
        Row(name)
        for name in (
            "input",
            "median",
            "tv-l1",
            "consensus-tv",
            "skimage-tv",
            "bm3d",
            "xgan-colornoise",
            "denoiser",
        )
    ),
    axis="hit pixels in %",
)
