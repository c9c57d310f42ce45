"""A restorer trained for JPEG as the prior of other problems: deblurring and missing pixels, against TV.

Run::

    python -m benchmarks.quality.restoration_prior --data DIR

``priors.Restoration(unified, JPEG(q))`` with each solver, quality and strength of a small grid is tried on crops of
BSDS500's training images; the best of each kind of problem is then measured on Set5, next to total variation with its
automatic weight and the shipped denoiser. Deblurring is that of the suite `deblur`: the eight kernels of Levin et al.,
circular borders, noise of 7.65/255. Half of the pixels are missing at random, drawn with the index of the image, and
the others exact. Estimates are clamped and rounded to 8 bits; PSNR of RGB. The result file is
`benchmarks/results/VERSION/restoration_prior.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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

__all__ = ["GRID", "PROBLEMS", "Setting", "main", "mean_psnr", "settings"]

PROBLEMS: dict[str, tuple[Degradation, ...]] = {
    "deblurring": tuple(LevinBlur(k, 7.65 / 255) for k in range(1, 9)),
    "half the pixels": (Sparse(0.5),),
}
TRIED: dict[str, tuple[Degradation, ...]] = {
    "deblurring": (LevinBlur(1, 7.65 / 255), LevinBlur(4, 7.65 / 255)),
    "half the pixels": PROBLEMS["half the pixels"],
}
"""What settings are tried on: the same, with two of the kernels."""

GRID: dict[str, tuple[Any, ...]] = {
    "method": ("hqs", "red", "gradient"),
    "quality": (10, 20, 40),
    "strength": (0.02, 0.05, 0.1),
}
STEPS = {"hqs": 24, "red": 40, "gradient": 60}
CROPS, SIDE = 4, 128


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the restorer is used.

    Attributes:
        method: Solver.
        quality: Of the JPEG it is asked to undo.
        strength: Standard deviation of its error.
    """

    method: str
    quality: int
    strength: float


def settings(exact: bool) -> Iterator[Setting]:
    """The grid; gradient descent has no exact data term, so it takes part with noisy data only."""
    for values in itertools.product(*GRID.values()):
        setting = Setting(**dict(zip(GRID, values, strict=True)))
        if not (exact and setting.method == "gradient"):
            yield setting


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
        model = Restoration(prior, JPEG(setting.quality), strength=setting.strength)
        options = {"method": setting.method, "max_steps": STEPS[setting.method]}
    for x in images:
        for degrade in degradations:
            problem = degrade(x, range(seed, seed + len(x)))
            assert problem.operator is not None
            found = solve(problem.y, problem.operator, model, sigma=problem.sigma, **options)  # type: ignore[arg-type]
            values.append(metrics.psnr(metrics.quantize(found.x), x))
        seed += len(x)
    return float(torch.cat(values).mean())


def main() -> None:
    """Try the grid, measure the best, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="training data folder"
    )
    parser.add_argument("--restorer", default="unified", help="trained for JPEG")
    parser.add_argument("--only", choices=PROBLEMS, help="one problem; the result file is left alone")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the training data folder with --data or INVRESTORE_DATA")
    data = Path(options.data)
    set_data_folder(data)
    restorer = priors.load(options.restorer)
    crops = [training_crops(data, CROPS, SIDE)]
    images = [load(SET5, file) for file in find(SET5, data)]
    rows = []
    for name, degradations in PROBLEMS.items():
        if options.only not in (None, name):
            continue
        tried = []
        for setting in settings(exact=name != "deblurring"):
            value = mean_psnr(crops, TRIED[name], restorer, setting)
            tried.append({**dataclasses.asdict(setting), "psnr": value})
            print(
                f"{name}: {setting.method}, quality {setting.quality}, {setting.strength}: {value:.2f}",
                flush=True,
            )
        best = max(tried, key=lambda entry: entry["psnr"])
        chosen = Setting(**{key: best[key] for key in GRID})
        row = {
            "problem": name,
            "setting": dataclasses.asdict(chosen),
            "tv": mean_psnr(images, degradations, priors.TV()),
            "denoiser": mean_psnr(images, degradations, priors.load("denoiser")),
            "restoration": mean_psnr(images, degradations, restorer, chosen),
            "tried": tried,
        }
        rows.append(row)
        print(
            f"{name}, Set5: TV {row['tv']:.2f}, Restoration({options.restorer}) {row['restoration']:.2f} "
            f"({row['restoration'] - row['tv']:+.2f}), denoiser {row['denoiser']:.2f} dB; {chosen}",
            flush=True,
        )
    if options.only is None:
        crops_of = f"{CROPS} of {SIDE}x{SIDE}"
        write_result("restoration_prior", {"restorer": options.restorer, "crops": crops_of, "rows": rows})


if __name__ == "__main__":
    main()
