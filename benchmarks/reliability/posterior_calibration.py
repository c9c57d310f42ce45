"""Do the intervals of posterior samples hold the true pixel as often as they say?

``python -m benchmarks.reliability.posterior_calibration --data DIR`` measures it on crops of Set5 and Kodak, writes the
result file and the picture of the documentation, and prints its table. ``--tune`` instead tries settings of the
sampler on crops of BSDS500's training images, which is where its defaults come from.

With S samples that are drawn as the truth is, the truth lies between the k-th smallest and the k-th largest with
probability (S + 1 - 2k) / (S + 1), whatever the distribution: with 19 samples, 90 % for k = 1 and 50 % for k = 5.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import time
from pathlib import Path

import torch
from PIL import Image

import invrestore as ir
from benchmarks.common import add_noise, write_result
from invrestore.data import reserved_set
from invrestore.solvers import DiffPIR

SAMPLES = 19
RANKS = {0.9: 1, 0.5: 5}
SIDE = 96
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "uncertainty.png"


@dataclasses.dataclass(frozen=True)
class Task:
    """A measurement of known noise; ``unknown`` marks the pixels that the data leave open."""

    name: str
    operator: ir.Operator
    sigma: float
    unknown: torch.Tensor


def tasks(side: int) -> list[Task]:
    """Half the pixels missing, Gaussian blur with noise, and noise."""
    known = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0)) < 0.5
    everywhere = torch.ones_like(known)
    return [
        Task("half the pixels missing, no noise", ir.operators.Mask(known), 0.0, ~known),
        Task("blur 1.6, sigma 0.02", ir.operators.Blur(ir.kernels.gaussian(1.6)), 0.02, everywhere),
        Task("noise, sigma 25/255", ir.operators.Identity(), 25 / 255, everywhere),
    ]


def crop(path: Path, side: int) -> torch.Tensor:
    """The centre of an image."""
    x = ir.load_image(path)
    top, left = ((n - side) // 2 for n in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def test_crops(data: Path) -> torch.Tensor:
    """All of Set5 and every eighth image of Kodak."""
    paths = [*sorted((data / "set5").glob("*.png")), *sorted((data / "kodak24").glob("*.png"))[::8]]
    return torch.cat([crop(path, SIDE) for path in paths])


def training_crops(data: Path, count: int, side: int) -> torch.Tensor:
    """Training images of BSDS500 that belong to no test set."""
    paths = [
        path
        for path in sorted((data / "bsds500" / "train").glob("*.jpg"))
        if reserved_set(path.read_bytes()) is None
    ]
    return torch.cat([crop(path, side) for path in paths[:: len(paths) // count][:count]])


def measure(
    x: torch.Tensor, task: Task, prior: ir.Prior, sampler: DiffPIR
) -> tuple[dict[str, float], ir.Solution]:
    """Coverage, errors and spread over a batch of crops."""
    y = add_noise(task.operator(x), task.sigma)
    drawn = ir.solve(y, task.operator, prior, sigma=task.sigma, method=sampler)
    unknown = task.unknown.expand_as(x)
    ordered = drawn.samples.sort(dim=1).values
    row = {
        f"coverage_{round(100 * nominal)}": float(
            ((x >= ordered[:, k - 1]) & (x <= ordered[:, -k]))[unknown].float().mean()
        )
        for nominal, k in RANKS.items()
    }
    error = (drawn.x - x)[unknown].square().mean().sqrt()
    # The error of a mean of S draws from the true posterior has 1 + 1/S times their variance.
    spread = drawn.std[unknown].square().mean().sqrt() * (1 + 1 / sampler.samples) ** 0.5
    row |= {
        "error_over_spread": float(error / spread),
        "psnr_mean": float(ir.psnr(drawn.x, x).mean()),
        "psnr_sample": float(ir.psnr(drawn.samples[:, 0], x).mean()),
        "seconds": drawn.seconds,
    }
    return row, drawn


def tune(data: Path, prior: ir.Prior) -> None:
    """Settings of the sampler on training crops."""
    x = training_crops(data, 4, 64)
    for task in tasks(64):
        for steps, zeta, last in ((24, 0.3, 2), (24, 0.15, 2), (24, 0.6, 2), (24, 0.3, 1), (48, 0.2, 2)):
            for weight in (0.35, 0.7, 1.5, 3.0) if 0 < task.sigma < 0.05 else (DiffPIR.weight,):
                sampler = DiffPIR(SAMPLES, steps, zeta=zeta, last=last / 255, weight=weight)
                row, _ = measure(x, task, prior, sampler)
                print(
                    f"{task.name}: {steps} steps, zeta {zeta}, last {last}/255, weight {weight}:",
                    {name: round(value, 3) for name, value in row.items()},
                    flush=True,
                )


def report(data: Path, prior: ir.Prior) -> None:
    """The table of the documentation, its picture and the result file."""
    x = test_crops(data)
    rows, views = [], []
    sampler = DiffPIR(SAMPLES)
    for task in tasks(SIDE):
        row, drawn = measure(x, task, prior, sampler)
        y = add_noise(task.operator(x), task.sigma)
        single = ir.solve(y, task.operator, prior, sigma=task.sigma)
        row["psnr_single"] = float(ir.psnr(single.x, x).mean())
        rows.append({"task": task.name, **row})
        views.append((task.name, y, drawn))
        print(
            f"| {task.name} | {100 * row['coverage_50']:.0f} % | {100 * row['coverage_90']:.0f} % | "
            f"{row['error_over_spread']:.2f} | {row['psnr_single']:.2f} | {row['psnr_mean']:.2f} | "
            f"{row['psnr_sample']:.2f} |",
            flush=True,
        )
    draw(x, views)
    settings = dataclasses.asdict(sampler)
    path = write_result(
        "posterior_calibration",
        {"crops": f"{len(x)} of {SIDE}x{SIDE}", "network": "bfloat16", "sampler": settings, "rows": rows},
    )
    print(path)


def draw(x: torch.Tensor, views: list[tuple[str, torch.Tensor, ir.Solution]], image: int = 0) -> None:
    """Measurement, mean, two samples, standard deviation and error of one crop, one row for each task."""
    from matplotlib.figure import Figure

    titles = ("measurement", "mean", "one sample", "standard deviation", "|error| of the mean")
    figure = Figure(figsize=(2.1 * len(titles), 2.2 * len(views)), layout="constrained")
    axes = figure.subplots(len(views), len(titles))
    for row, (name, y, drawn) in zip(axes, views, strict=True):
        maps = (drawn.std[image], (drawn.x - x)[image].abs())
        top = float(torch.stack(maps).mean(1).quantile(0.99))
        for panel, picture in zip(row, (y[image], drawn.x[image], drawn.samples[image, 0]), strict=False):
            panel.imshow(picture.clamp(0, 1).permute(1, 2, 0))
        for panel, channel in zip(row[3:], maps, strict=True):
            shown = panel.imshow(channel.mean(0), cmap="magma", vmin=0, vmax=top)
        figure.colorbar(shown, ax=row[-1], fraction=0.05)
        row[0].set_ylabel(name, fontsize=8)
        for panel in row:
            panel.set(xticks=[], yticks=[])
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=9)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80)
    # 256 colours are enough for a page, and make a third of the file.
    Image.open(buffer).convert("RGB").quantize(256).save(PICTURE, optimize=True)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="data folder")
    parser.add_argument("--tune", action="store_true", help="try settings on training images")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the data folder with --data or INVRESTORE_DATA")
    prior = ir.priors.Denoiser(ir.networks.load("denoiser", dtype=torch.bfloat16))
    began = time.perf_counter()
    (tune if arguments.tune else report)(Path(arguments.data), prior)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
