"""Which parts of the latent search pay: each setting of ``priors.Latent`` changed alone, on faces.

Run, or go on where an earlier call stopped::

    python -m benchmarks.quality.latent_ablation --data DIR --split train --faces 100

Every row is the prior out of the catalogue with one choice changed, on the tasks of the suite `faces64` and under its
protocol. Faces are evenly spaced over a split. Defaults are chosen on ``--split train``, which the generator has seen:
differences between rows count there, not their level. ``--split test`` reports, on people it has not seen, what was
chosen; nothing is chosen on it. Every batch of faces is recorded at once under the run folder. The table goes to
`benchmarks/results/VERSION/quality/latent-ablation-SPLIT.csv` and, as Markdown, to the screen; ``--table`` prints it
from what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import RESULTS
from invrestore import networks, priors, solve
from invrestore._version import __version__
from invrestore.bench import SUITES, ImageSet, Task, environment
from invrestore.bench._images import find, load
from invrestore.bench._run import score
from invrestore.bench._tables import csv_text, paired_difference, summarise
from invrestore.io import write_bytes
from invrestore.priors import Latent

__all__ = ["VARIANTS", "Variant", "main", "markdown", "records", "scores_of", "variants_of"]

SUITE = SUITES["faces64"]
BATCH = 20
"""Faces restored together and recorded at once."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        part: What is varied.
        name: How.
        settings: Fields of the prior that are changed.
        stage: The image that is scored: the answer, or that of an earlier stage of the pipeline.
        tasks: Tasks it differs on; None takes all.
    """

    part: str
    name: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stage: str = "answer"
    tasks: tuple[str, ...] | None = None


_FROM_TABLE = {"encoder": None, "restarts": 1, "mean_start": False}
DEFAULT = Variant("default", "as shipped")
VARIANTS = (
    DEFAULT,
    Variant("start", "random", _FROM_TABLE | {"candidates": 1}),
    Variant("start", "best of 16", _FROM_TABLE | {"candidates": 16}),
    Variant("start", "encoder", {"candidates": 1, "restarts": 1, "mean_start": False}),
    Variant("start", "mean style", {"restarts": 1, "mean_start": True}),
    *(Variant("restarts", f"{n}", {"restarts": n}) for n in (2, 4, 8, 16)),
    *(Variant("steps", f"{n}", {"steps": n}) for n in (10, 50, 100, 300)),
    Variant("space", "z", {"space": "z"}),
    Variant("space", "w", {"space": "w"}),
    Variant("space", "w+", {"space": "w+"}),
    Variant("space", "w+, then layer 2", {"space": "w+", "layer": 2}),
    Variant("discriminator", "without", {"discriminator": None}),
    Variant("weights near holes", "without", {"importance": 0.0}, tasks=("hole",)),
    # By default 100 steps for noisy data, none for exact ones.
    Variant("adaptation", "without", {"adapt": 0}, tasks=("noise",)),
    Variant("adaptation", "100 steps", {"adapt": 100}, tasks=("hole", "colour", "x4", "levels")),
    Variant("evidence", "1/8", {"evidence": 0.125}),
    Variant("evidence", "1/2", {"evidence": 0.5}),
    Variant("evidence", "2", {"evidence": 2.0}),
    Variant("evidence", "8", {"evidence": 8.0}),
    Variant("blending", "without", stage="consistent", tasks=("hole", "colour", "x4")),
    Variant("blending", "value", {"blend": "value"}, tasks=("colour",)),
    *(
        Variant(
            "average with the denoiser",
            f"share {share:g}",
            {"denoised": share},
            tasks=("x4", "noise", "levels"),
        )
        for share in (0.0, 0.5, 0.7, 0.85, 1.0)
    ),
    Variant("all that follows the search", "without", stage="raw"),
)


def variants_of(prior: Latent, wanted: Sequence[str] | None = None) -> list[Variant]:
    """The rows that a prior can have: those whose part it offers.

    Args:
        prior: The prior.
        wanted: Parts to take; None takes all. The default is always there, to be compared with.

    Raises:
        SystemExit: There is no such part.
    """
    parts = dict.fromkeys(variant.part for variant in VARIANTS)
    for part in wanted or ():
        if part not in parts:
            raise SystemExit(f"no part {part!r}; there are {', '.join(parts)}")
    found = []
    for variant in VARIANTS:
        taken = wanted is None or variant.part in wanted or variant == DEFAULT
        styles = variant.part == "space" and variant.name != "z" and not prior.has_styles
        judges = variant.part == "discriminator" and prior.discriminator is None
        encodes = variant.name == "encoder" and prior.encoder is None
        if taken and not (styles or judges or encodes):
            found.append(variant)
    return found


def scores_of(prior: Latent, task: Task, clean: torch.Tensor, seeds: Sequence[int]) -> dict[str, Any]:
    """PSNR and SSIM of each face after each stage of one search, and seconds for a face.

    Args:
        prior: The prior with its settings; the search runs where its networks are.
        task: Damage.
        clean: Faces, (B, 3, H, W).
        seeds: One for each face.
    """
    problem = task.degrade(clean, seeds)
    assert problem.operator is not None
    device = next(iter(prior.tensors())).device
    y, operator = problem.y.to(device), problem.operator.to(device)
    began = time.perf_counter()
    solution = solve(y, operator, prior, sigma=problem.sigma)
    images = {name: x.cpu() for name, x in {"answer": solution.x, **solution.stages}.items()}
    found: dict[str, Any] = {"seconds": (time.perf_counter() - began) / len(clean)}
    for name, x in images.items():
        scored = score(SUITE.protocol, task.border, x, clean)
        found[name] = {k: [round(float(v), 5) for v in scored[k]] for k in ("psnr", "ssim")}  # type: ignore[union-attr]
    return found


@dataclasses.dataclass(frozen=True)
class Unit:
    """One batch of faces, one task, one set of settings: what is recorded at once."""

    task: Task
    settings: Mapping[str, Any]
    first: int
    last: int
    about: str

    @property
    def key(self) -> str:
        """Hash of what decides the scores."""
        parts = (self.about, sorted(self.settings.items()), self.task.degrade, self.first, self.last)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def path(self, folder: Path) -> Path:
        """Where its scores are written."""
        return folder / "records" / f"{self.task.name}-{self.key}.json"

    def read(self, folder: Path) -> dict[str, Any] | None:
        """Its scores, None if it has to be run."""
        try:
            content: dict[str, Any] = json.loads(self.path(folder).read_text())
        except (OSError, ValueError):
            return None
        return content


def _settings(prior: Latent) -> dict[str, Any]:
    """The prior's own choices, which a row changes one of."""
    values = {field.name: getattr(prior, field.name) for field in dataclasses.fields(prior)}
    return {
        name: v for name, v in values.items() if v is None or isinstance(v, bool | int | float | str | tuple)
    }


def _units(variant: Variant, tasks: Sequence[Task], count: int, about: str) -> list[Unit]:
    return [
        Unit(task, variant.settings, first, min(first + BATCH, count), about)
        for task in tasks
        if variant.tasks is None or task.name in variant.tasks
        for first in range(0, count, BATCH)
    ]


def records(
    variants: Sequence[Variant], tasks: Sequence[Task], count: int, about: str, folder: Path
) -> list[dict[str, Any]]:
    """One record for each row and task, from the batches that are finished."""
    values: dict[tuple[str, str, str], tuple[dict[int, float], dict[int, float], list[float]]] = {}
    for variant in variants:
        for unit in _units(variant, tasks, count, about):
            content = unit.read(folder)
            if content is None or variant.stage not in content:
                continue
            psnr, ssim, seconds = values.setdefault(
                (variant.part, variant.name, unit.task.name), ({}, {}, [])
            )
            psnr |= dict(enumerate(content[variant.stage]["psnr"], unit.first))
            ssim |= dict(enumerate(content[variant.stage]["ssim"], unit.first))
            seconds.append(content["seconds"])
    found = []
    for (part, name, task), (psnr, ssim, seconds) in values.items():
        reference = values.get((DEFAULT.part, DEFAULT.name, task), ({}, {}, []))
        difference = paired_difference(psnr, reference[0])
        summary = summarise(psnr.values())
        found.append(
            {
                "part": part,
                "choice": name,
                "task": task,
                "n": summary.n,
                "psnr_mean": round(summary.mean, 4),
                "psnr_std": round(summary.std, 4),
                "ssim_mean": round(summarise(ssim.values()).mean, 5),
                "psnr_difference": round(difference.mean, 4),
                "psnr_difference_low": round(difference.low, 4),
                "psnr_difference_high": round(difference.high, 4),
                "seconds": round(sum(seconds) / len(seconds), 3),
            }
        )
    return found


def markdown(found: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> str:
    """The table: PSNR / SSIM, difference of PSNR to the default, and the number of faces of an unfinished cell.

    A difference whose 95 % confidence interval holds 0 is in parentheses.
    """
    most = max((record["n"] for record in found), default=0)
    lines = ["| part | choice | " + " | ".join(task.label for task in tasks) + " | seconds a face |"]
    lines.append("|---" * (len(tasks) + 3) + "|")
    rows = dict.fromkeys((record["part"], record["choice"]) for record in found)
    for part, choice in rows:
        mine = {r["task"]: r for r in found if (r["part"], r["choice"]) == (part, choice)}
        cells = []
        for task in tasks:
            r = mine.get(task.name)
            if r is None:
                cells.append("")
                continue
            text = f"{r['psnr_mean']:.2f} / {r['ssim_mean']:.3f}"
            if part != DEFAULT.part and r["psnr_difference"] == r["psnr_difference"]:
                change = f"{r['psnr_difference']:+.2f}"
                sure = r["psnr_difference_low"] > 0 or r["psnr_difference_high"] < 0
                text += f", {change}" if sure else f", ({change})"
            cells.append(text if r["n"] == most else f"{text} [{r['n']} faces]")
        seconds = sum(r["seconds"] for r in mine.values()) / len(mine)
        lines.append(f"| {part} | {choice} | " + " | ".join(cells) + f" | {seconds:.1f} |")
    return "\n".join(lines)


def _faces(data: Path, split: str, count: int) -> list[torch.Tensor]:
    """Batches of faces, evenly spaced over the split."""
    images = ImageSet("faces64", "Faces", "faces64", split=split)  # type: ignore[arg-type]
    files = find(images, data)
    chosen = files[:: max(1, len(files) // count)][:count]
    if len(chosen) < count:
        raise SystemExit(f"the split {split} has {len(files)} faces, and {count} were asked for")
    return [
        torch.cat([load(images, f) for f in chosen[first : first + BATCH]])
        for first in range(0, count, BATCH)
    ]


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="training data folder"
    )
    parser.add_argument("--split", choices=("train", "test"), default="train", help="faces to take")
    parser.add_argument("--faces", type=int, default=100, help="how many")
    parser.add_argument("--prior", default="faces64", help="a generator of the catalogue")
    parser.add_argument("--parts", help="parts to vary, separated by commas; default: all")
    parser.add_argument("--tasks", help="names separated by commas; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs") / "latent-ablation", help="run folder")
    parser.add_argument("--device", default="cpu", help="where to search: cpu or cuda")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the training data folder with --data or INVRESTORE_DATA")
    prior = priors.load(options.prior)
    if not isinstance(prior, Latent):
        parser.error(f"{options.prior} is no generator")
    for network in (*prior.networks().values(), getattr(prior.denoiser, "network", None)):
        if network is not None:
            network.to(options.device)
    names = options.tasks.split(",") if options.tasks else [task.name for task in SUITE.tasks]
    tasks = [SUITE.task(name) for name in names]
    variants = variants_of(prior, options.parts.split(",") if options.parts else None)
    about = repr(
        (
            __version__,
            networks.card(options.prior).sha256,
            _settings(prior),
            options.split,
            options.faces,
            SUITE.protocol,
        )
    )
    if not options.table:
        faces = _faces(Path(options.data), options.split, options.faces)
        for variant in variants:
            chosen = dataclasses.replace(prior, **variant.settings)
            for unit in _units(variant, tasks, options.faces, about):
                if unit.read(options.out) is None:
                    found = scores_of(
                        chosen, unit.task, faces[unit.first // BATCH], range(unit.first, unit.last)
                    )
                    unit.path(options.out).parent.mkdir(parents=True, exist_ok=True)
                    write_bytes(unit.path(options.out), json.dumps(found).encode(), force=True)
                    mean = summarise(found["answer"]["psnr"]).mean
                    print(
                        f"{variant.part} {variant.name}, {unit.task.name} {unit.first}: {mean:.2f} dB, "
                        f"{found['seconds']:.1f} s a face",
                        flush=True,
                    )
    found_records = records(variants, tasks, options.faces, about, options.out)
    if not options.parts and not options.tasks:
        target = RESULTS / "quality"
        target.mkdir(parents=True, exist_ok=True)
        name = f"latent-ablation-{options.split}"
        write_bytes(target / f"{name}.csv", csv_text(found_records).encode(), force=True)
        write_bytes(
            target / f"{name}-environment.json",
            (json.dumps(environment(), indent=1) + "\n").encode(),
            force=True,
        )
    print(markdown(found_records, tasks))


if __name__ == "__main__":
    main()
