"""Are the schedules of plug-and-play at their best? Each setting is halved and doubled, on training images.

``python -m benchmarks.quality.tune_plug_and_play --data DIR`` restores crops of BSDS500's training images (none of them
in a test set) with the schedules in ``invrestore/solvers/_plug_and_play.py`` and with each of their settings
changed alone, also without flips or momentum, beside TV, prints the mean PSNR and writes the result file.
``--only NAME`` takes one kind of problem.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import invrestore as ir
from benchmarks.common import add_noise, write_result
from benchmarks.reliability.posterior_calibration import training_crops
from invrestore.solvers import HQS
from invrestore.solvers._plug_and_play import SCHEDULES

SIDE = 72
CROPS = 16
LIMITS = {"first": 1.0, "last": 1.0, "floor": 1.0, "weight": float("inf"), "scale": float("inf"), "steps": 48}
MOMENTUM = 0.2


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem, and the name of its schedule."""

    name: str
    schedule: str
    operator: ir.Operator
    sigma: float


def cases(data: Path, *, told: bool) -> list[Case]:
    """Every kind of problem that has a schedule of its own for denoisers, `told` the level of each pixel or not."""
    random = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    with np.load(data / "kernels" / "levin09.npz") as kernels:
        levin = torch.from_numpy(kernels["levin4"])[None, None]
    op = ir.operators
    noisy, exact = (f"{kind} pixels{', told' if told else ''}" for kind in ("noisy", "exact"))
    return [
        Case("motion blur, sigma 7.65/255", "noisy data", op.Blur(levin), 7.65 / 255),
        Case("blur 1.6, sigma 0.02", "noisy data", op.Blur(ir.kernels.gaussian(1.6)), 0.02),
        Case("half the pixels, sigma 0.05", noisy, op.Mask(random < 0.5), 0.05),
        Case("x2, sigma 0.02", "noisy small image", op.Downsample(2), 0.02),
        Case("half the pixels", exact, op.Mask(random < 0.5), 0.0),
        Case("a fifth of the pixels", exact, op.Mask(random < 0.2), 0.0),
        Case("x2", "exact data", op.Downsample(2), 0.0),
        Case("x3", "exact data", op.Downsample(3), 0.0),
        Case("x4", "exact data", op.Downsample(4), 0.0),
        Case("gray", "exact data", op.Grayscale(), 0.0),
        Case("5 levels", "interval", op.Quantize(5), 0.0),
        Case("9 levels", "interval", op.Quantize(9), 0.0),
    ]


def neighbours(tuned: HQS, case: Case) -> Iterator[tuple[str, HQS]]:
    """The schedule, and each setting that the problem feels halved and doubled."""
    yield "tuned", tuned
    used = ["first", "steps"]
    if tuned.last is not None:
        used.append("last")
    else:
        used.extend(["weight", "scale"] if case.sigma > 0 else ["floor"])
    for field in used:
        value = getattr(tuned, field)
        for factor in (0.5, 2):
            changed = type(value)(value * factor)
            if changed <= LIMITS[field]:
                yield f"{field} x {factor:g}", dataclasses.replace(tuned, **{field: changed})
    for change in (-MOMENTUM, MOMENTUM):
        if tuned.momentum + change >= 0:
            yield f"momentum {change:+g}", dataclasses.replace(tuned, momentum=tuned.momentum + change)
    if tuned.momentum:
        yield "no momentum, steps x 2", dataclasses.replace(tuned, momentum=0.0, steps=2 * tuned.steps)


def scaled(schedule: HQS, case: Case, y: torch.Tensor) -> HQS:
    """The schedule in units of the image range."""
    if schedule.last is None:
        return schedule
    error = float(case.operator.estimate_sigma(y).max())
    return dataclasses.replace(schedule, first=schedule.first * error, last=schedule.last * error)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="data folder")
    names = sorted(name for name in SCHEDULES if not name.startswith("restorer"))
    parser.add_argument("--only", choices=names, help="one schedule; the result file is left alone")
    parser.add_argument("--denoiser", default="denoiser", help="name of a denoiser in the catalogue")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the data folder with --data or INVRESTORE_DATA")
    data = Path(arguments.data)
    x = training_crops(data, CROPS, SIDE)
    denoiser = ir.priors.load(arguments.denoiser)
    rows = []
    for case in cases(data, told=denoiser.takes_maps):
        if arguments.only not in (None, case.schedule):
            continue
        y = add_noise(case.operator(x), case.sigma)
        tv = ir.solve(y, case.operator, ir.priors.TV(), sigma=case.sigma)
        row = {"case": case.name, "schedule": case.schedule, "tv": float(ir.psnr(tv.x, x).mean())}
        tuned = SCHEDULES[case.schedule]
        straight = dataclasses.replace(denoiser, flip=())
        variants = [(name, schedule, denoiser) for name, schedule in neighbours(tuned, case)]
        for name, schedule, prior in [*variants, ("no flips", tuned, straight)]:
            method = scaled(schedule, case, y)
            found = ir.solve(y, case.operator, prior, sigma=case.sigma, method=method, max_steps=method.steps)
            row[name] = float(ir.psnr(found.x, x).mean())
        rows.append(row)
        settings = [name for name in row if name not in ("case", "schedule", "tv", "tuned")]
        changes = ", ".join(f"{name} {row[name] - row['tuned']:+.2f}" for name in settings)
        print(f"{case.name}: TV {row['tv']:.2f}, tuned {row['tuned']:.2f}; {changes}", flush=True)
    if arguments.only is None:
        write_result("plug_and_play_tuning", {"crops": f"{CROPS} of {SIDE}x{SIDE}", "rows": rows})


if __name__ == "__main__":
    main()
