"""Search the settings of a suite's methods on training images.

The settings are written where the suite reads them::

    python -m benchmarks.quality.tune faces64 --data DIR [--methods tv,wavelet]

Each method is searched over its whole grid, task by task, by the mean PSNR of the suite's protocol over the
suite's tuning images, which are training images. The result replaces the entries of these methods in
`invrestore/bench/tuned/SUITE.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path
from typing import Any

import torch

from invrestore.bench import METHODS, SUITES, Method, Suite, Task
from invrestore.bench._degradations import set_data_folder
from invrestore.bench._images import find, load
from invrestore.bench._run import score

__all__ = ["main", "search"]

_FOLDER = Path(__file__).resolve().parents[2] / "invrestore" / "bench" / "tuned"


def search(
    suite: Suite, method: Method, task: Task, data: Path, fixed: dict[str, Any], limit: int | None = None
) -> list[tuple[float, dict[str, Any]]]:
    """Mean PSNR on the tuning images for every point of the grid, best first."""
    tried = []
    for values in itertools.product(*method.grid.values()):
        settings = dict(zip(method.grid, values, strict=True))
        total, count = 0.0, 0
        for images in suite.tuning:
            files = find(images, data)[:limit]
            for first in range(0, len(files), suite.batch):
                clean = torch.cat([load(images, file) for file in files[first : first + suite.batch]])
                seeds = (
                    [0] * len(clean) if suite.protocol.seed == "zero" else range(first, first + len(clean))
                )
                problem = task.degrade(clean, list(seeds))
                torch.manual_seed(0)
                examples = {"examples": str(data / images.examples)} if method.examples else {}
                estimate = method.run(problem, **fixed, **settings, **examples)
                found = score(suite.protocol, task.border, estimate, clean)["psnr"]
                assert found is not None
                total, count = total + float(found.sum()), count + len(clean)
        tried.append((total / count, settings))
    return sorted(tried, key=lambda entry: -entry[0])


def main() -> None:
    """Tune methods of a suite."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--methods", help="names separated by commas; default: every row that has a grid")
    parser.add_argument("--tasks", help="names separated by commas; default: all")
    parser.add_argument("--limit", type=int, help="only the first tuning images, for slow methods")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    set_data_folder(options.data)
    path = _FOLDER / f"{suite.name}.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    settings = content.setdefault("settings", {})
    wanted = options.methods.split(",") if options.methods else None
    for row in suite.rows:
        method = METHODS.get(row.method)
        if method is None or not method.grid or (wanted is not None and row.method not in wanted):
            continue
        for task in suite.tasks:
            if task.degrade.kind not in method.kinds or (
                row.tasks is not None and task.name not in row.tasks
            ):
                continue
            if options.tasks and task.name not in options.tasks.split(","):
                continue
            tried = search(suite, method, task, options.data, dict(row.fixed), options.limit)
            best_psnr, best = tried[0]
            settings.setdefault(method.name, {})[task.name] = best
            edges = [
                name
                for name, value in best.items()
                if value is not None and value in (method.grid[name][0], method.grid[name][-1])
            ]
            note = f"  at the edge of the grid: {', '.join(edges)}" if edges else ""
            print(
                f"{method.name} {task.name}: {best} {best_psnr:.2f} dB, worst {tried[-1][0]:.2f}{note}",
                flush=True,
            )
            names = ", ".join(
                f"{images.label} ({len(find(images, options.data))})" for images in suite.tuning
            )
            content["search"] = (
                f"Settings have the best mean PSNR over all points of each method's grid, task by task, on training "
                f"images: {names}. Methods without a grid run with their defaults."
            )
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
            partial.replace(path)


if __name__ == "__main__":
    main()
