"""Five kinds of damage to faces of 64 x 64 pixels."""

from invrestore.bench._degradations import Gray, Hole, Levels, Noisy, Reduced
from invrestore.bench._types import ImageSet, Protocol, Row, Suite, Task
from invrestore.bench.suites._sets import TRAINING_FACES

__all__ = ["SUITE"]

_CONTEXT = (
    "The slides that pose these tasks (GAN prior, maximum a posteriori) print, on CelebA and after dividing each "
    "image by its maximum, PSNR for hole / colour / x4 / noise / levels: TV 23.10 / - / 21.05 / 21.97 / 20.77, "
    "low rank 16.98 / - / 21.45 / 18.69 / 20.65, sparse 20.67 / - / 20.82 / 23.63 / 22.67, "
    "GAN 23.60 / 20.85 / 19.58 / 19.31 / 19.77. Other faces and another protocol: compare rows here, not numbers."
)

_RAW = "The raw row is the first stage of the pipeline above it: both share one search, which counts once."

SUITE = Suite(
    name="faces64",
    title="Faces, five kinds of damage",
    summary="500 held-out faces of 64 x 64 pixels; one prior for all five tasks, against priors made for each.",
    images=(ImageSet("faces64", "Faces, test", "faces64", split="test", examples="faces64"),),
    tuning=(TRAINING_FACES,),
    tasks=(
        Task("hole", "32 x 32 hole", Hole(32)),
        Task("colour", "colour from gray", Gray()),
        Task("x4", "enlarge x4", Reduced(4)),
        Task("noise", "noise, σ = 0.1", Noisy(0.1)),
        Task("levels", "5 levels", Levels(5)),
    ),
    protocol=Protocol(
        "RGB PSNR and SSIM of each image with data range 1, no clamping, no rounding, no border crop. Noise is not "
        "clipped; image i draws from seed i.",
        round8=False,
    ),
    rows=(
        Row("input"),
        Row("bicubic"),
        Row("biharmonic"),
        Row("tv"),
        Row("tgv"),
        Row("wavelet"),
        Row("low-rank", first={"x4": 400}),
        Row("dictionary"),
        Row("k-svd"),
        Row("coupled-dictionary"),
        Row("colour-regression"),
        Row("bm3d", first={"": 50}),
        Row("skimage-tv"),
        Row("deepinv-tv", first={"": 50}),
        Row("deepinv-wavelet", first={"": 50}),
        Row("denoiser"),
        Row("dcgan64-map"),
        Row("faces64-map"),
        Row("faces64"),
        # After the whole pipeline, whose first stage it is.
        Row("faces64-raw"),
    ),
    batch=50,
    notes=(_RAW, _CONTEXT),
)
