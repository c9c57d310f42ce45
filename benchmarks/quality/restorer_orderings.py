"""Do the papers' orderings hold here? Point loss l2 > l1 > none; cascade whole > GAN only > without pre-training.

Run, or go on where an earlier call stopped; every variant is trained once for each seed::

    python -m benchmarks.quality.restorer_orderings points --data DIR --minutes 6
    python -m benchmarks.quality.restorer_orderings cascade --data DIR --minutes 6

Each run is what ``invrestore train`` does with ``--point-loss``, ``--gan-only`` or ``--without pretraining``, a whole
schedule of that length; ``--steps`` makes runs equally long where the machine has other work. Scores are those of the
card, on held-out images. The table has means and standard deviations over seeds, then for each neighbouring pair the
difference and the number of seeds that agree. It is written to
`benchmarks/results/VERSION/quality/orderings-NAME.csv` and printed, also from a part of the runs (``--table``). With
``--recipe``, its name is added to that of the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from invrestore.bench import environment
from invrestore.bench._tables import csv_text, summarise
from invrestore.io import write_bytes
from invrestore.training import Recipe, ablate, adjust, load_recipe, prepare, train

__all__ = ["RECIPE", "VARIANTS", "folder_of", "main", "markdown", "metrics_of", "records", "run", "variants"]

RECIPE = {"points": "xgan-sparse-cpu", "cascade": "cascade-cpu"}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "points": {
        "point loss l2": {"point_loss": "l2"},
        "point loss l1": {"point_loss": "l1"},
        "point loss none": {"point_loss": "none"},
    },
    "cascade": {
        "whole cascade": {},
        "GAN only": {"gan_only": True},
        "without pre-training": {"without": "pretraining"},
    },
}
"""Ablations, best first as the papers have them."""


def variants(recipe: Recipe, ordering: str) -> dict[str, Recipe]:
    """The recipes to compare."""
    return {name: ablate(recipe, **changes) for name, changes in VARIANTS[ordering].items()}


def folder_of(out: Path, recipe: Recipe, seed: int) -> Path:
    """Run folder; runs of other lengths have others."""
    length = f"{recipe.steps}steps" if recipe.minutes is None else f"{recipe.minutes:g}min"
    return out / f"{recipe.name}-{length}-seed{seed}"


def metrics_of(out: Path, recipe: Recipe, seed: int) -> dict[str, float] | None:
    """Scores of a finished run by name, None before it has finished."""
    path = folder_of(out, recipe, seed) / f"{recipe.checkpoint or recipe.name}.json"
    try:
        found: Mapping[str, Any] = json.loads(path.read_text())["metrics"]
    except OSError:
        return None
    return {
        name: float(value)
        for name, value in found.items()
        if name.startswith(("psnr_", "ssim_")) and not name.endswith("_input")
    }


def run(out: Path, recipe: Recipe, seed: int, data: Path) -> None:
    """Train one variant with one seed, from its last checkpoint if there is one.

    Args:
        out: Holds the run folders.
        recipe: The variant.
        seed: Its seed.
        data: Folder of images, or one that ``training.prepare`` made.
    """
    folder = folder_of(out, recipe, seed)
    train(adjust(recipe, seed=seed, **_length(recipe)), data, folder, resume=True, say=lambda line: None)
    # A finished run needs neither its copy of the packed images nor its checkpoints.
    for pattern in ("*-images.safetensors", "checkpoint*.safetensors"):
        for file in folder.glob(pattern):
            file.unlink()


def _length(recipe: Recipe) -> dict[str, Any]:
    return {"steps": recipe.steps} if recipe.minutes is None else {"minutes": recipe.minutes}


def records(out: Path, chosen: Mapping[str, Recipe], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A record for each variant and score, over the seeds that have finished."""
    found = []
    for name, recipe in chosen.items():
        by_seed = {seed: m for seed in seeds if (m := metrics_of(out, recipe, seed)) is not None}
        for metric in dict.fromkeys(itertools.chain.from_iterable(by_seed.values())):
            values = {seed: metrics[metric] for seed, metrics in by_seed.items()}
            summary = summarise(values.values())
            found.append(
                {
                    "variant": name,
                    "metric": metric,
                    "seeds": " ".join(map(str, values)),
                    "values": " ".join(f"{value:.5f}" for value in values.values()),
                    "mean": round(summary.mean, 5),
                    "std": round(summary.std, 5),
                }
            )
    return found


def markdown(found: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Means and spreads, then what becomes of each neighbouring pair."""
    metrics = list(dict.fromkeys(record["metric"] for record in found))
    cells = {(record["variant"], record["metric"]): record for record in found}
    lines = ["| variant | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for name in names:
        texts = []
        for metric in metrics:
            r = cells.get((name, metric))
            digits = 2 if metric.startswith("psnr") else 3
            spread = "" if r is None or math.isnan(r["std"]) else f" ± {r['std']:.{digits}f}"
            texts.append("" if r is None else f"{r['mean']:.{digits}f}{spread}")
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    lines.append("")
    for better, worse in itertools.pairwise(names):
        parts = []
        for metric in metrics:
            pair = [cells.get((name, metric)) for name in (better, worse)]
            if None in pair:
                continue
            first, second = (
                dict(zip(r["seeds"].split(), map(float, r["values"].split()), strict=True))
                for r in pair  # type: ignore[index]
            )
            differences = [first[seed] - second[seed] for seed in first if seed in second]
            if differences:
                mean, agree = sum(differences) / len(differences), sum(d > 0 for d in differences)
                parts.append(f"{metric} {mean:+.3f} ({agree} of {len(differences)} seeds)")
        lines.append(f"- {better} > {worse}: {'; '.join(parts) or 'not measured'}")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ordering", choices=VARIANTS)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="training data folder"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=6.0, help="length of each run")
    length.add_argument("--steps", type=int, help="length of each run in steps instead")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--recipe", help="another recipe to ablate")
    parser.add_argument("--out", type=Path, default=Path("runs") / "orderings", help="holds the run folders")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    changes = {"minutes": options.minutes} if options.steps is None else {"steps": options.steps}
    recipe = adjust(load_recipe(options.recipe or RECIPE[options.ordering]), **changes)
    chosen = variants(recipe, options.ordering)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if not options.table:
        if options.data is None:
            parser.error("name the training data folder with --data or INVRESTORE_DATA")
        images = options.out / f"images-{recipe.name}"
        prepare(recipe, options.data, images)
        # Seed by seed, so that whatever has finished compares all variants.
        for seed, (name, one) in itertools.product(seeds, chosen.items()):
            if metrics_of(options.out, one, seed) is None:
                print(f"{name}, seed {seed}", flush=True)
                run(options.out, one, seed, images)
    found = records(options.out, chosen, seeds)
    if found:
        target = RESULTS / "quality"
        target.mkdir(parents=True, exist_ok=True)
        stem = f"orderings-{options.ordering}" + (f"-{recipe.name}" if options.recipe else "")
        write_bytes(target / f"{stem}.csv", csv_text(found).encode(), force=True)
        details = json.dumps({"length": changes, **environment()}, indent=1) + "\n"
        write_bytes(target / f"{stem}-environment.json", details.encode(), force=True)
    print(markdown(found, list(chosen)))


if __name__ == "__main__":
    main()
