"""A restorer trained for JPEG as the prior of other problems: deblurring and missing pixels, against TV.

Run::

    python -m benchmarks.quality.restoration_prior --data DIR

``priors.Restoration(unified, [JPEG(q), ...])`` with one setting changed at a time is tried on crops of BSDS500's
training images; the best of each kind of problem is then measured on Set5, next to total variation with its automatic
weight and the shipped denoiser. Deblurring is that of the suite `deblur`: the eight kernels of Levin et al.,
circular borders, noise of 7.65/255. Half of the pixels are missing at random, drawn with the index of the image, and
the others exact. Estimates are clamped and rounded to 8 bits; PSNR of RGB. The result files are
`benchmarks/results/VERSION/restoration_prior_PROBLEM.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import write_result
from benchmarks.reliability.posterior_calibration import training_crops
from invrestore import metrics, priors, solve
from invrestore.bench import Degradation
from invrestore.bench._degradations import LevinBlur, Sparse, set_data_folder
from invrestore.bench._images import find, load
from invrestore.bench.suites._sets import SET5
from invrestore.operators import JPEG
from invrestore.priors import Prior, Restoration

__all__ = ["PROBLEMS", "TRIALS", "Setting", "main", "mean_psnr"]

PROBLEMS: dict[str, tuple[Degradation, ...]] = {
    "deblurring": tuple(LevinBlur(k, 7.65 / 255) for k in range(1, 9)),
    "half the pixels": (Sparse(0.5),),
}
TRIED: dict[str, tuple[Degradation, ...]] = {
    "deblurring": (LevinBlur(1, 7.65 / 255), LevinBlur(4, 7.65 / 255)),
    "half the pixels": PROBLEMS["half the pixels"],
}
"""What settings are tried on: the same, with two of the kernels."""

CROPS, SIDE = 4, 128


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the restorer is used.

    Attributes:
        qualities: First and last quality of the JPEGs it is asked to undo, with geometric steps between.
        strength: Standard deviation of its error.
        transforms: Images it is averaged over at each step.
        method: Solver.
        steps: Its steps; None takes those of the schedule.
    """

    qualities: tuple[int, int] = (5, 95)
    strength: float = Restoration.strength
    transforms: int = 4
    method: str = "hqs"
    steps: int | None = None

    def prior(self, restorer: Prior) -> Restoration:
        """The restorer as prior."""
        first, last = self.qualities
        ratio = (last / first) ** (1 / (OPERATORS - 1))
        jpegs = [JPEG(round(first * ratio**k), subsampling="4:4:4") for k in range(OPERATORS)]
        return Restoration(restorer, jpegs, strength=self.strength, transforms=self.transforms)


OPERATORS = 24
TRIALS: dict[str, tuple[Setting, ...]] = {
    "deblurring": (
        Setting(),
        Setting(transforms=0),
        Setting(transforms=1),
        Setting((20, 20)),
        Setting((5, 60)),
        Setting((10, 95)),
        Setting(strength=0.03),
        Setting(steps=24),
        Setting((20, 20), strength=0.05, transforms=1, method="red", steps=40),
        Setting((20, 20), strength=0.05, transforms=0, method="gradient", steps=60),
    ),
    "half the pixels": (
        Setting((20, 90)),
        Setting((20, 90), transforms=0),
        Setting((20, 90), transforms=1),
        Setting((40, 40)),
        Setting((10, 90)),
        Setting((20, 95)),
        Setting((30, 90)),
        Setting((20, 90), steps=20),
        Setting((20, 20), strength=0.05, transforms=1, method="red", steps=40),
    ),
}
"""Settings by problem: the first, then each part of it changed alone, then other solvers."""


def mean_psnr(
    images: Sequence[torch.Tensor],
    degradations: Sequence[Degradation],
    prior: Prior,
    setting: Setting | None = None,
) -> float:
    """Mean PSNR over images and degradations.

    Args:
        images: Each (B, 3, H, W).
        degradations: Each is applied to each image.
        prior: Restorer if there is a setting, else the prior itself.
        setting: How the restorer is used.
    """
    values, seed = [], 0
    model, options = prior, {}
    if setting is not None:
        model = setting.prior(prior)
        options = {"method": setting.method} | ({} if setting.steps is None else {"max_steps": setting.steps})
    for x in images:
        for degrade in degradations:
            problem = degrade(x, range(seed, seed + len(x)))
            assert problem.operator is not None
            found = solve(problem.y, problem.operator, model, sigma=problem.sigma, **options)  # type: ignore[arg-type]
            values.append(metrics.psnr(metrics.quantize(found.x), x))
        seed += len(x)
    return float(torch.cat(values).mean())


def main() -> None:
    """Try the settings, measure the best, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="training data folder"
    )
    parser.add_argument("--restorer", default="unified", help="trained for JPEG")
    parser.add_argument("--only", choices=PROBLEMS, help="one problem")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the training data folder with --data or INVRESTORE_DATA")
    data = Path(options.data)
    set_data_folder(data)
    restorer = priors.load(options.restorer)
    crops = [training_crops(data, CROPS, SIDE)]
    images = [load(SET5, file) for file in find(SET5, data)]
    for name, degradations in PROBLEMS.items():
        if options.only not in (None, name):
            continue
        tried = []
        best, chosen = -math.inf, TRIALS[name][0]
        for setting in TRIALS[name]:
            value = mean_psnr(crops, TRIED[name], restorer, setting)
            tried.append({**dataclasses.asdict(setting), "psnr": value})
            print(f"{name}: {setting}: {value:.2f}", flush=True)
            if value > best:
                best, chosen = value, setting
        row = {
            "restorer": options.restorer,
            "crops": f"{CROPS} of {SIDE}x{SIDE}",
            "setting": dataclasses.asdict(chosen),
            "tv": mean_psnr(images, degradations, priors.TV()),
            "denoiser": mean_psnr(images, degradations, priors.load("denoiser")),
            "restoration": mean_psnr(images, degradations, restorer, chosen),
            "tried": tried,
        }
        print(
            f"{name}, Set5: TV {row['tv']:.2f}, Restoration({options.restorer}) {row['restoration']:.2f} "
            f"({row['restoration'] - row['tv']:+.2f}), denoiser {row['denoiser']:.2f} dB; {chosen}",
            flush=True,
        )
        write_result(f"restoration_prior_{name.replace(' ', '_')}", row)


if __name__ == "__main__":
    main()
