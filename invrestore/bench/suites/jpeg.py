"""JPEG compression at four qualities."""

from invrestore.bench._degradations import Compressed
from invrestore.bench._types import Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import KODAK24, TRAINING_PHOTOS

__all__ = ["SUITE"]

SUITE = Suite(
    name="jpeg",
    title="JPEG artefacts",
    summary="Colour pictures compressed at quality 10, 20, 30 and 40 with halved chroma, restored.",
    images=(KODAK24,),
    tuning=(TRAINING_PHOTOS,),
    tasks=tuple(
        Task(f"quality-{q}", f"quality {q}", Compressed(q), curve="quality", level=q)
        for q in (10, 20, 30, 40)
    ),
    protocol=Protocol(
        "Compressed in colour, 4:2:0, tables of libjpeg; estimates are clamped and rounded to 8 bits; PSNR and "
        "SSIM of luma (BT.601), no border crop.",
        luma=True,
    ),
    rows=(
        *(Row(name) for name in ("input", "tv", "wavelet", "dictionary", "bm3d")),
        Row("unified", fixed={"refine": True}),
        Row("unified-paper", fixed={"refine": True}),
        Row("denoiser"),
    ),
    axis="JPEG quality",
    notes=("The restorer's answer is the nearest image that the encoder rounds to the same file.",),
)
