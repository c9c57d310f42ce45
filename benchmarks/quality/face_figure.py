"""The figure of the five tasks on faces, from a finished run of ``invrestore bench faces64``.

Run after the suite, which keeps the pictures of its first four faces; ``--limit 4`` is enough for the figure::

    python -m benchmarks.quality.face_figure runs/bench-faces64

A row for each task and a column for each method: the true face, what was measured, total variation, low rank, sparse
coding, a GAN searched as first proposed, and ours. Numbers are PSNR in dB of the face shown. The picture is written to
`docs/images/faces64.png`. With ``--task NAME`` the rows are faces of one task instead::

    python -m benchmarks.quality.face_figure runs/bench-faces64 --task hole --faces 0,1,2,3 \
        --out docs/images/faces64-holes.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from invrestore.bench import SUITES
from invrestore.cli._sheet import Cell, Row, contact_sheet
from invrestore.io import load_image, save_image

__all__ = ["COLUMNS", "figure", "main"]

COLUMNS = {
    "truth": "Real",
    "measured": "Input",
    "tv": "TV",
    "low-rank": "Low rank",
    "dictionary": "Sparse",
    "dcgan64-map": "GAN, plain MAP",
    "faces64": "Ours",
}
_PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "faces64.png"
_SIDE = 160
_PAPER = 0.98


def figure(run: Path, faces: list[int], columns: dict[str, str], task: str | None = None) -> torch.Tensor:
    """The contact sheet, (1, 3, H, W).

    Args:
        run: Run folder.
        faces: Number of the face in each task's row; the last one serves the tasks that are left.
        columns: Heading by name of the method, or "truth" or "measured".
        task: Name of the one task that all rows show, a row for each face.

    Raises:
        SystemExit: The run lacks a true picture.
    """
    with (run / "scores.csv").open(newline="") as stream:
        psnr = {(s["task"], s["method"], int(s["index"])): float(s["psnr"]) for s in csv.DictReader(stream)}
    suite = SUITES["faces64"]
    tasks = list(suite.tasks) if task is None else [suite.task(task)] * len(faces)
    rows = []
    for number, shown_task in enumerate(tasks):
        face = faces[min(number, len(faces) - 1)]
        folder = run / "pictures" / "faces64" / shown_task.name
        if not (folder / f"{face:05d}-truth.png").is_file():
            raise SystemExit(f"{folder} has no picture of face {face}: runs keep those of the first faces")
        shown = {name: psnr[key] for name in columns if (key := (shown_task.name, name, face)) in psnr}
        best = max(shown.values(), default=None)
        cells = []
        for name in columns:
            path = folder / f"{face:05d}-{name}.png"
            # A method that does not treat the task leaves its place empty.
            picture = load_image(path) if path.is_file() else torch.full((1, 3, _SIDE, _SIDE), _PAPER)
            value = shown.get(name)
            caption = "" if value is None else f"{value:.2f}"
            cells.append(Cell(picture, caption, best=value is not None and value == best))
        # The font of the sheet has no Greek letters.
        label = shown_task.label.replace("σ", "sigma")
        rows.append(Row(label if task is None else f"face {face}", tuple(cells)))
    title = "One prior, five kinds of damage" if task is None else tasks[0].label.replace("σ", "sigma")
    return contact_sheet(tuple(columns.values()), rows, side=_SIDE, title=title)


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of invrestore bench faces64")
    parser.add_argument("--faces", default="0,1,2,3,0", help="number of the face of each row")
    parser.add_argument("--task", help="show this task alone, a row for each face")
    parser.add_argument("--gan", default="dcgan64-map", help="method in the column of the plain GAN")
    parser.add_argument("--out", type=Path, default=_PICTURE, help="PNG to write")
    options = parser.parse_args()
    columns = {(options.gan if name == "dcgan64-map" else name): text for name, text in COLUMNS.items()}
    sheet = figure(options.run, [int(number) for number in options.faces.split(",")], columns, options.task)
    save_image(sheet, options.out, force=True)
    print(options.out)


if __name__ == "__main__":
    main()
