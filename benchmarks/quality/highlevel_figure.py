"""Pictures of what the tables of docs/highlevel.md average: crops, predicted classes and label maps at sigma 60.

``python -m benchmarks.quality.highlevel_figure --data DIR --runs DIR`` reads a run folder of
``benchmarks.quality.highlevel`` and writes docs/images/highlevel.png. Examples are chosen by rule: among the images
that BM3D denoised, the road scenes whose share of rightly labelled pixels gains the median and the most from joint
training, and the first three pictures whose class joint training rights.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.quality.highlevel import (
    IGNORE,
    TASKS,
    Images,
    Task,
    bm3d,
    denoise,
    load_denoiser,
    load_images,
    noisy_image,
)
from invrestore import networks
from invrestore.metrics import psnr, quantize
from invrestore.training import colour_map

SIGMA = 60
COLUMNS = ("noisy", "bm3d", "separate-0", "joint", "cross", "truth")
LABELS = ("noisy", "BM3D", "separate", "joint", "joint, cross-task", "truth")
CROP = 80
PANEL = 240
PAGE = Path(__file__).resolve().parents[2] / "docs" / "images" / "highlevel.png"


def column(images: Images, task: Task, runs: Path, name: str, number: int) -> Tensor:
    """One version (3, H, W) of a test image."""
    clean = images.x[number]
    if name == "truth":
        return clean
    y = noisy_image(clean, SIGMA, number)
    if name == "bm3d":
        return bm3d(y, SIGMA)
    other = {"classification": "segmentation", "segmentation": "classification"}[task.name]
    named = {"joint": f"{task.name}-0", "cross": f"{other}-0"}.get(name, name)
    return denoise(load_denoiser(runs, named), quantize(y[None]) if name == "noisy" else y[None], SIGMA)[0]


def records(runs: Path, task: Task, name: str) -> np.ndarray:
    """Recorded hits or confusion matrices of the images of BM3D's subset."""
    with np.load(runs / "records" / f"{task.name}-{name}-{SIGMA}.npz") as record:
        return record["found"][:: task.every]


def road_scenes(runs: Path, task: Task) -> list[int]:
    """The images with the median and the largest gain in rightly labelled pixels."""
    shares = []
    for name in (f"{task.name}-0", "separate-0"):
        counts = records(runs, task, name)
        shares.append(counts.trace(axis1=1, axis2=2) / counts.sum((1, 2)))
    order = np.argsort(shares[0] - shares[1])
    return [int(order[len(order) // 2]) * task.every, int(order[-1]) * task.every]


def righted(runs: Path, task: Task) -> list[int]:
    """The first images that the separate denoiser leads astray and the joint one does not."""
    right = records(runs, task, f"{task.name}-0") & ~records(runs, task, "separate-0")
    return [int(i) * task.every for i in np.flatnonzero(right)[:3]]


def panel(x: Tensor, size: tuple[int, int], smooth: bool = False) -> Image.Image:
    """An image (3, H, W) as a picture of the given size."""
    pixels = (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize(
        size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    )


def sheet(rows: Sequence[tuple[Sequence[Image.Image], Sequence[str]]]) -> Image.Image:
    """Rows of panels with a line of text below each panel, and the names of the columns above all."""
    line = 20
    width = len(COLUMNS) * (PANEL + 4)
    height = line + sum(row[0].height + line for row, _ in rows)
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for number, label in enumerate(LABELS):
        draw.text((number * (PANEL + 4) + 4, 2), label, "black", font=font)
    top = line
    for row, texts in rows:
        for number, (picture, text) in enumerate(zip(row, texts, strict=True)):
            left = number * (PANEL + 4)
            page.paste(picture, (left, top))
            draw.text((left + 4, top + picture.height + 1), text, "black", font=font)
        top += row[0].height + line
    return page


def busiest(x: Tensor) -> tuple[int, int]:
    """Corner of the square of side CROP with the most variation."""
    slope = x.diff(dim=1).abs().sum(0)[:, :-1] + x.diff(dim=2).abs().sum(0)[:-1]
    sums = torch.nn.functional.avg_pool2d(slope[None, None], CROP - 1, stride=4)[0, 0]
    best = int(sums.argmax())
    return 4 * (best // sums.shape[1]), 4 * (best % sums.shape[1])


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="data folder")
    parser.add_argument("--runs", type=Path, default=Path("runs/highlevel"), help="run folder")
    options = parser.parse_args()
    classify, segment = TASKS
    rows: list[tuple[list[Image.Image], list[str]]] = []
    network, images = networks.load(segment.network), load_images(segment, Path(options.data))
    for number in road_scenes(options.runs, segment):
        found = [column(images, segment, options.runs, name, number) for name in COLUMNS]
        top, left = busiest(images.x[number])
        crops = [panel(x[:, top : top + CROP, left : left + CROP], (PANEL, PANEL)) for x in found]
        scores = [f"{float(psnr(x[None], images.x[number][None])):.2f} dB" for x in found[:-1]]
        rows.append((crops, [*scores, f"test image {number}"]))
        truth = images.labels[number]
        with torch.no_grad():
            maps = [network(x[None])[0].argmax(0) for x in found[:-1]]
        known = truth != IGNORE
        shares = [f"{100 * float((m == truth)[known].float().mean()):.1f} % of pixels right" for m in maps]
        height = PANEL * truth.shape[0] // truth.shape[1]
        drawn = [panel(colour_map(m), (PANEL, height)) for m in (*maps, truth)]
        rows.append((drawn, [*shares, "true labels"]))
    network, images = networks.load(classify.network), load_images(classify, Path(options.data))
    for number in righted(options.runs, classify):
        found = [column(images, classify, options.runs, name, number) for name in COLUMNS]
        with torch.no_grad():
            names = [network.classes[int(network(x[None]).argmax())] for x in found[:-1]]
        scores = [
            f"{name}, {float(psnr(x[None], images.x[number][None])):.2f} dB"
            for name, x in zip(names, found[:-1], strict=True)
        ]
        true = f"{network.classes[int(images.labels[number])]}, test image {number}"
        rows.append(([panel(x, (PANEL, PANEL)) for x in found], [*scores, true]))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(PAGE, optimize=True)
    print(PAGE)


if __name__ == "__main__":
    main()
