"""White and cluttered blocks."""

from invrestore.bench._degradations import Clutter, Hole
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._rows import FILLING
from invrestore.bench.suites._sets import FACES_128, PHOTOS_128, TRAINING_FACES_128

__all__ = ["SUITE"]

_CONTEXT = (
    "The X-GANs report prints 24.99 dB / .85 for the white block and 23.16 dB / .82 for the cluttered one, at "
    "256 x 256 with blocks of up to 128 x 128 and on other pictures; here everything has half that size."
)

SUITE = Suite(
    name="block128",
    title="White and cluttered blocks",
    summary="A white square in the middle, or a square of another picture anywhere, in 128 x 128 pixels.",
    images=(FACES_128, PHOTOS_128),
    tuning=(TRAINING_FACES_128,),
    tasks=(
        Task("white", "white, 64 x 64", Hole(64, fill=1.0)),
        Task("cluttered", "cluttered, 8 to 64", Clutter(8, 64)),
    ),
    protocol=Protocol(
        "Image i draws from seed i; methods that fill holes are told where the block is, xgan-block is "
        "not; estimates are clamped and rounded to 8 bits; RGB PSNR, no border crop.",
    ),
    rows=(
        *FILLING,
        Row("cascade", fixed={"refine": True}),
        # It has only seen squares in the middle.
        Row("cascade-paper", fixed={"refine": True}, tasks=("white",)),
        Row("xgan-block", fixed={"blind": True}),
        Row("denoiser"),
    ),
    notes=(_CONTEXT,),
)
