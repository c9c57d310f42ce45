"""Does denoising help machines see, and does joint training help more? Tables 2 and 3 of Liu et al. (2018), own data.

``python -m benchmarks.quality.highlevel --data DIR --runs DIR`` classifies the 720 test images of scenes6 and segments
the 233 of CamVid after noise of level 15, 30, 45 and 60 and a denoiser, writes the result files and the tables of
docs/highlevel.md. Denoisers that the run folder lacks are trained first; what is finished there is not done again, so
a killed run goes on where it was.

Rows: noisy; "separate", trained by the squared error alone; "joint", trained with the network that is used;
"cross-task", trained with the other one; on a part of the images BM3D and the larger shipped "denoiser". Separate and
joint denoisers begin from the same weights, and see the same images, noise and number of steps; there are
``--seeds`` of each kind.

``--units`` instead compares units of the squared error on CamVid's validation images.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.common import RESULTS
from invrestore import networks
from invrestore.bench import environment
from invrestore.data import find_images
from invrestore.io import write_bytes
from invrestore.metrics import psnr, quantize
from invrestore.training import RECIPES, adjust, confusion, mean_iou, train

SIGMAS = (15, 30, 45, 60)
START_STEPS, STEPS, UNIT_STEPS = 2500, 700, 200
PAGE = Path(__file__).resolve().parents[2] / "docs" / "highlevel.md"
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Task:
    """A test set and the network that is scored on it.

    Attributes:
        name: What the network does.
        folder: Test set inside the data folder.
        network: Name of the network in the catalogue.
        score: Name of the score.
        batch: Images denoised at once.
        every: Slow denoisers get every so many of the images.
    """

    name: str
    folder: str
    network: str
    score: str
    batch: int
    every: int


TASKS = (
    Task("classification", "highlevel/scenes6.zip", "classifier", "top-1", 60, 6),
    Task("segmentation", "highlevel/camvid", "segmenter", "mIoU", 16, 10),
)
IGNORE = 11
SLOW = ("bm3d", "denoiser")
"""Denoisers that get a part of the images."""
KINDS = ("separate", "classification", "segmentation")
ROWS = {"noisy": "noisy", "separate": "separate", "joint": "joint", "cross": "joint, cross-task"}
SLOW_ROWS = {"bm3d": "BM3D", "denoiser": "shipped `denoiser`"}


@dataclasses.dataclass(frozen=True)
class Images:
    """Test images (N, 3, H, W) in [0, 1], and their classes (N,) or maps (N, H, W)."""

    x: Tensor
    labels: Tensor


def load_images(task: Task, data: Path, split: str = "test") -> Images:
    """Decode the images of a test set, all of one size."""
    classes = networks.load(task.network).classes
    pixels, labels = [], []
    for file in find_images(data / task.folder, split):
        with Image.open(io.BytesIO(file.read())) as image:
            pixels.append(np.asarray(image.convert("RGB")))
        if file.mask is None:
            labels.append(np.array(classes.index(file.label)))
        else:
            with Image.open(file.mask) as mask:
                labels.append(np.asarray(mask))
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return Images(x, torch.from_numpy(np.stack(labels)).long())


def noisy_image(x: Tensor, sigma: int, seed: int) -> Tensor:
    """An image (3, H, W) with noise of its own seed; not clipped."""
    return x + sigma / 255 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def denoise(network: nn.Module | None, y: Tensor, sigma: int) -> Tensor:
    """What a network makes of a batch, in bfloat16 with the image itself in float32; 8-bit levels."""
    if network is None:
        return quantize(y)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return quantize(network(y, sigma / 255).float())


def bm3d(y: Tensor, sigma: int) -> Tensor:
    """Colour BM3D of one image (3, H, W).

    Its usual settings, but for how exactly it works out the variances of transformed blocks: that is meant for
    correlated noise. On white noise the quicker way took a fifth of the time at equal PSNR.
    """
    from bm3d import BM3DProfile, bm3d_rgb

    profile = BM3DProfile()
    profile.nf, profile.k, profile.num_threads = 16, 1, 1
    found = bm3d_rgb(y.permute(1, 2, 0).double().numpy(), sigma / 255, profile=profile)
    return quantize(torch.from_numpy(found).float().permute(2, 0, 1)[None])[0]


def judge(network: nn.Module, x: Tensor, labels: Tensor) -> np.ndarray:
    """Hits (B,) of a classifier, or confusion matrices (B, K, K) of a segmenter."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = network(x).argmax(1)
    if labels.ndim == 1:
        return (found == labels).numpy()
    count = len(network.classes)  # type: ignore[arg-type]
    return torch.stack(
        [confusion(f, label, count, IGNORE) for f, label in zip(found, labels, strict=True)]
    ).numpy()


def train_denoisers(data: Path, runs: Path, seeds: int) -> None:
    """Train what is missing: a common start, then denoisers of each kind for the same number of steps."""
    start = train_one("joint-start", runs / "start", data, steps=START_STEPS, test_folder="")
    for seed in range(seeds):
        for kind in KINDS:
            name = "joint-classification" if kind == "separate" else f"joint-{kind}"
            extra: dict[str, Any] = {"lam": 0.0} if kind == "separate" else {}
            if seed:
                extra["test_folder"] = ""  # Scores on the card are for those that may be shipped.
            train_one(name, runs / f"{kind}-{seed}", data, steps=STEPS, seed=seed, start=str(start), **extra)


def train_one(name: str, folder: Path, data: Path, **changes: Any) -> Path:
    """Train a recipe, or go on with it, unless its weights are there; returns the weights."""
    found = sorted(folder.glob(f"{name}.safetensors"))
    if found:
        return found[0]
    print(f"training {folder.name}", flush=True)
    done = train(
        adjust(RECIPES[name], checkpoint="", **changes), data, folder, resume=True, accelerator="cpu"
    )
    assert done.weights is not None
    return done.weights


def weights_of(runs: Path, kind: str, seed: int) -> Path:
    """Weights of one of the trained denoisers."""
    name = "joint-classification" if kind == "separate" else f"joint-{kind}"
    return runs / f"{kind}-{seed}" / f"{name}.safetensors"


def kind_of(row: str, task: Task) -> str:
    """Which denoisers a row of the table uses."""
    others = {"classification": "segmentation", "segmentation": "classification"}
    return {"joint": task.name, "cross": others[task.name]}.get(row, row)


def measure(data: Path, runs: Path, seeds: int) -> None:
    """Record the score of every image under every denoiser; what is recorded already is passed over."""
    records = runs / "records"
    records.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        images: Images | None = None
        high_level = networks.load(task.network)
        for denoiser, sigma in denoisers(seeds):
            path = records / f"{task.name}-{denoiser}-{sigma}.npz"
            if path.exists():
                continue
            images = images or load_images(task, data)
            network = load_denoiser(runs, denoiser)
            begun = time.perf_counter()
            psnrs, found = [], []
            step = task.every if denoiser in SLOW else 1
            numbers = range(0, len(images.x), step)
            for first in range(0, len(numbers), task.batch):
                chosen = list(numbers[first : first + task.batch])
                clean, labels = images.x[chosen], images.labels[chosen]
                if denoiser == "clean":
                    x = clean
                else:
                    y = torch.stack([noisy_image(images.x[i], sigma, i) for i in chosen])
                    x = (
                        torch.stack([bm3d(image, sigma) for image in y])
                        if denoiser == "bm3d"
                        else (denoise(network, y, sigma))
                    )
                psnrs.append(psnr(x, clean).numpy())
                found.append(judge(high_level, x, labels))
            seconds = time.perf_counter() - begun
            partial = path.with_suffix(".partial")
            with partial.open("wb") as stream:
                np.savez_compressed(
                    stream, psnr=np.concatenate(psnrs), found=np.concatenate(found), seconds=seconds
                )
            partial.replace(path)
            print(f"{path.stem}: {np.concatenate(psnrs).mean():.2f} dB, {seconds:.0f} s", flush=True)


def denoisers(seeds: int) -> Iterator[tuple[str, int]]:
    """Names of denoisers with the noise levels they are measured at."""
    yield "clean", 0
    trained = [f"{kind}-{seed}" for seed in range(seeds) for kind in KINDS]
    for name in ("noisy", *trained, *SLOW):
        for sigma in SIGMAS:
            yield name, sigma


def load_denoiser(runs: Path, name: str) -> nn.Module | None:
    """The network of that name, or None for rows without one."""
    if name in ("clean", "noisy", "bm3d"):
        return None
    if name == "denoiser":
        return networks.load("denoiser")
    kind, seed = name.rsplit("-", 1)
    return networks.load_file(weights_of(runs, kind, int(seed)))


class Records:
    """Scores of a task: of a set of images, and of resampled sets."""

    def __init__(self, task: Task, runs: Path, seeds: int, every: int = 1) -> None:
        self.task, self.folder, self.seeds, self.every = task, runs / "records", seeds, every
        count = len(self._load("noisy", SIGMAS[0])["psnr"])
        draws = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
        self.count = count
        self.weights = np.stack([np.bincount(d, minlength=count) for d in draws]).astype(np.float32)

    def _load(self, denoiser: str, sigma: int) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{self.task.name}-{denoiser}-{sigma}.npz") as record:
            found = dict(record)
        step = 1 if denoiser in SLOW else self.every
        return {key: value[::step] if value.ndim else value for key, value in found.items()}

    def names(self, row: str) -> list[str]:
        """Denoisers of a row, one for each seed."""
        kind = kind_of(row, self.task)
        return [f"{kind}-{seed}" for seed in range(self.seeds)] if kind in KINDS else [kind]

    def psnr(self, row: str, sigma: int) -> float:
        """Mean PSNR over images and seeds."""
        return float(np.mean([self._load(name, sigma)["psnr"].mean() for name in self.names(row)]))

    def seconds(self) -> float:
        """Time that all records of the task took."""
        return sum(float(self._load(name, sigma)["seconds"]) for name, sigma in denoisers(self.seeds))

    def scores(self, row: str, sigma: int) -> tuple[list[float], np.ndarray]:
        """Score of each seed in percent, and the mean over seeds on each resampled set of images."""
        each, resampled = [], []
        for name in self.names(row):
            found = self._load(name, sigma)["found"]
            each.append(float(self._score(found.sum(0, keepdims=True), len(found))[0]))
            sums = (self.weights @ found.reshape(len(found), -1).astype(np.float32)).reshape(
                -1, *found.shape[1:]
            )
            resampled.append(self._score(sums, len(found)))
        return each, np.mean(resampled, axis=0)

    def _score(self, sums: np.ndarray, count: int) -> np.ndarray:
        if sums.ndim == 1:
            return 100 * sums / count
        return 100 * mean_iou(torch.from_numpy(sums)).numpy()


def rows_of(records: Records, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Lines of the result file: rows of the table at every level, with intervals over images."""
    for row in names:
        for sigma in SIGMAS:
            each, resampled = records.scores(row, sigma)
            low, high = np.percentile(resampled, (2.5, 97.5))
            yield {
                "task": records.task.name,
                "row": row,
                "sigma": sigma,
                "images": records.count,
                "seeds": len(each),
                "score": round(float(np.mean(each)), 2),
                "low": round(float(low), 2),
                "high": round(float(high), 2),
                "lowest_seed": round(min(each), 2),
                "highest_seed": round(max(each), 2),
                "psnr": round(records.psnr(row, sigma), 2),
            }


PAIRS = (("separate", "noisy"), ("joint", "separate"), ("cross", "separate"), ("joint", "cross"))


def differences(records: Records) -> Iterator[dict[str, Any]]:
    """Differences of rows on the same images, with intervals over images."""
    for one, other in PAIRS:
        for sigma in SIGMAS:
            (a, first), (b, second) = records.scores(one, sigma), records.scores(other, sigma)
            low, high = np.percentile(first - second, (2.5, 97.5))
            yield {
                "task": records.task.name,
                "difference": f"{one} - {other}",
                "sigma": sigma,
                "images": records.count,
                "points": round(float(np.mean(a) - np.mean(b)), 2),
                "low": round(float(low), 2),
                "high": round(float(high), 2),
            }


def write_table(name: str, rows: list[dict[str, Any]]) -> None:
    """Write a result file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    target = RESULTS / "quality"
    target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / f"{name}.csv", text.getvalue().encode(), force=True)


def tables(runs: Path, seeds: int) -> Iterator[str]:
    """Markdown of the results."""
    every: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    seconds = 0.0
    for task in TASKS:
        whole, part = Records(task, runs, seeds), Records(task, runs, seeds, task.every)
        seconds += whole.seconds()
        rows, less = list(rows_of(whole, ROWS)), list(rows_of(part, ROWS | SLOW_ROWS))
        gaps = list(differences(whole))
        every += rows + less
        pairs += gaps
        each, _ = whole.scores("clean", 0)
        yield (
            f"**{task.name}, {task.score} in % and PSNR in dB, {whole.count} test images** "
            f"(clean images: {each[0]:.1f} %). Means over {seeds} training seeds; in brackets the 95 % interval over "
            "images.\n"
        )
        yield from grid(rows, ROWS)
        yield f"The same on every {task.every}th image ({part.count}), with slower denoisers:\n"
        yield from grid(less, ROWS | SLOW_ROWS)
        yield "Differences in points, all test images:\n"
        yield "| | " + " | ".join(f"sigma {s}" for s in SIGMAS) + " |"
        yield "|---" * (len(SIGMAS) + 1) + "|"
        for one, other in PAIRS:
            found = [r for r in gaps if r["difference"] == f"{one} - {other}"]
            cells = [f"{r['points']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]" for r in found]
            yield f"| {one} - {other} | " + " | ".join(cells) + " |"
        yield ""
    write_table("highlevel", every)
    write_table("highlevel-differences", pairs)
    machine = environment()
    write_bytes(
        RESULTS / "quality" / "highlevel-environment.json",
        (json.dumps(machine, indent=1) + "\n").encode(),
        force=True,
    )
    minutes = {
        path.parent.name: json.loads(path.read_text().splitlines()[-1])["minutes"]
        for path in sorted(runs.glob("*/log.jsonl"))
    }
    trained = sum(m for name, m in minutes.items() if name.rsplit("-", 1)[0] in (*KINDS, "start"))
    yield (
        f"Time on one core that other work shared: training of the {len(KINDS) * seeds + 1} denoisers {trained:.0f} "
        f"minutes, measuring {seconds / 60:.0f} minutes. Commit {machine['commit']}, torch "
        f"{machine['packages']['torch']}."
    )


def grid(rows: list[dict[str, Any]], labels: dict[str, str]) -> Iterator[str]:
    """A table with a line for each row and a column for each level."""
    yield "| | " + " | ".join(f"sigma {s}" for s in SIGMAS) + " |"
    yield "|---" * (len(SIGMAS) + 1) + "|"
    for name, label in labels.items():
        found = [row for row in rows if row["row"] == name]
        cells = [f"{r['score']:.1f} [{r['low']:.1f}, {r['high']:.1f}], {r['psnr']:.2f}" for r in found]
        yield f"| {label} | " + " | ".join(cells) + " |"
    yield ""


def compare_units(data: Path, runs: Path, units: list[float]) -> None:
    """Train with the segmenter for a while in each unit, and score validation images."""
    task = TASKS[1]
    images = load_images(task, data, "val")
    high_level = networks.load(task.network)
    start = train_one("joint-start", runs / "start", data, steps=START_STEPS, test_folder="")
    choices = [("lam 0", {"lam": 0.0})] + [(f"unit {unit:g}", {"unit": unit}) for unit in units]
    for name, changes in choices:
        folder = runs / name.replace(" ", "-")
        shared = {"steps": UNIT_STEPS, "start": str(start), "test_folder": ""}
        path = train_one("joint-segmentation", folder, data, **shared, **changes)
        network = networks.load_file(path)
        cells = []
        for sigma in SIGMAS:
            counts, psnrs = 0, []
            for first in range(0, len(images.x), task.batch):
                chosen = range(first, min(first + task.batch, len(images.x)))
                y = torch.stack([noisy_image(images.x[i], sigma, i) for i in chosen])
                x = denoise(network, y, sigma)
                psnrs.append(psnr(x, images.x[chosen.start : chosen.stop]))
                counts = counts + judge(high_level, x, images.labels[chosen.start : chosen.stop]).sum(0)
            score = 100 * float(mean_iou(torch.as_tensor(counts)))
            cells.append(f"{score:.1f} % {float(torch.cat(psnrs).mean()):.2f} dB")
        print(f"{name}: " + ", ".join(cells), flush=True)


def main() -> None:
    """Train what is missing, measure, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="data folder")
    parser.add_argument("--runs", type=Path, default=Path("runs/highlevel"), help="run folder")
    parser.add_argument("--seeds", type=int, default=3, help="trained denoisers of each kind")
    parser.add_argument("--units", type=float, nargs="+", help="compare units of the squared error instead")
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data DIR or set INVRESTORE_DATA")
    data = Path(options.data)
    if options.units:
        compare_units(data, options.runs, options.units)
        return
    train_denoisers(data, options.runs, options.seeds)
    measure(data, options.runs, options.seeds)
    start, end = "<!-- tables -->", "<!-- end of tables -->"
    before, found, rest = PAGE.read_text().partition(start)
    if not found or end not in rest:
        raise SystemExit(f"{PAGE.name} has no section for the tables: add the lines {start} and {end}")
    section = "\n".join(tables(options.runs, options.seeds))
    write_bytes(
        PAGE, (before + start + "\n" + section + "\n" + end + rest.partition(end)[2]).encode(), force=True
    )


if __name__ == "__main__":
    main()
