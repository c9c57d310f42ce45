"""Eight camera-shake kernels with a little noise."""

from invrestore.bench._degradations import LevinBlur
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import CBSD68_FIRST_8, SET5, TRAINING_PHOTOS

__all__ = ["SUITE"]

SUITE = Suite(
    name="deblur",
    title="Deblurring, eight kernels of Levin et al.",
    summary="Known camera shake and noise of σ = 7.65/255: the protocol of IRCNN and DPIR.",
    images=(SET5, CBSD68_FIRST_8),
    tuning=(TRAINING_PHOTOS,),
    tasks=tuple(Task(f"levin-{k}", f"kernel {k}", LevinBlur(k, 7.65 / 255)) for k in range(1, 9)),
    protocol=Protocol(
        "True convolution with circular borders, noise not clipped, image i draws from seed i; estimates are "
        "clamped and rounded to 8 bits; RGB PSNR, no border crop.",
    ),
    rows=tuple(
        Row(name)
        for name in (
            "input",
            "tikhonov",
            "tv",
            "wavelet",
            "bm3d",
            "deepinv-tv",
            "deepinv-dpir",
            "unified",
            "unified-paper",
            "denoiser",
        )
    ),
)
