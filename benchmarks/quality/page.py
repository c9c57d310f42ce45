"""Turn runs of ``invrestore bench`` into the tables of `docs/benchmarks.md`.

Run after the suites that the page shows::

    python -m benchmarks.quality.page runs/bench-faces64 runs/bench-awgn

Each run's `table.csv` and environment are copied to `benchmarks/results/VERSION/quality/`, and the section of each
suite, between its two comment lines, is written anew. Numbers on the page come from these files alone.

The records of single images are packed to `benchmarks/results/VERSION/records/SUITE.zip`. Unpacked into a run folder,
they let a run go on from there: a new method, or new weights of one, is compared image by image with rows that ran
before. `--records-only` packs them and leaves the page as it is.

`--rows METHOD`, once or several times, takes these rows alone from the runs, as after new weights of one network, and
keeps the others as they were; the page then names both commits.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from invrestore.bench import SUITES, Suite
from invrestore.io import write_bytes

__all__ = ["main", "merged_rows", "merged_section", "packed_records", "section"]

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def _tables(rows: list[dict[str, str]], results: dict[str, Any]) -> Iterator[str]:
    """One table for each image set: a row for each method, PSNR / SSIM in each column."""
    for images, label in results["image_sets"].items():
        here = [row for row in rows if row["images"] == images and row["psnr_mean"]]
        tasks = [task for task in results["tasks"] if any(row["task"] == task for row in here)]
        if not here:
            continue
        most = {task: max(int(row["psnr_n"]) for row in here if row["task"] == task) for task in tasks}
        best = {
            task: max(
                float(row["psnr_mean"])
                for row in here
                if row["task"] == task and int(row["psnr_n"]) == most[task]
            )
            for task in tasks
        }
        yield f"**{label}**, {', '.join(str(n) for n in sorted(set(most.values())))} images, PSNR in dB / SSIM\n"
        shown = {row["method"] for row in here}
        whole = len(here) == len(shown) * len(tasks) and len(set(most.values())) == 1
        mean_column = whole and len(tasks) > 1 and not results["curves"]
        headings = [results["tasks"][task] for task in tasks] + ["mean"] * mean_column
        yield "| method | " + " | ".join(headings) + " |"
        yield "|---" * (len(headings) + 1) + "|"
        for method in results["methods"]:
            cells = []
            for task in tasks:
                found = [row for row in here if row["method"] == method["name"] and row["task"] == task]
                if not found:
                    cells.append("")
                    continue
                row = found[0]
                mean, count = float(row["psnr_mean"]), int(row["psnr_n"])
                text = f"{mean:.2f} / {float(row['ssim_mean']):.3f}"
                alone = sum(row["task"] == task for row in here) == 1
                text = f"**{text}**" if mean == best[task] and count == most[task] and not alone else text
                text += f" ({count})" if count != most[task] else ""
                text += f" [{float(row['psnr_published']):.2f}]" if row.get("psnr_published") else ""
                cells.append(text)
            if any(cells) and mean_column:
                mine = [row for row in here if row["method"] == method["name"]]
                psnr, ssim = (
                    sum(float(row[key]) for row in mine) / len(mine) for key in ("psnr_mean", "ssim_mean")
                )
                cells.append(f"{psnr:.2f} / {ssim:.3f}")
            if any(cells):
                yield f"| {method['label']} | " + " | ".join(cells) + " |"
        yield ""


def _single_images(
    scores: list[dict[str, str]], results: dict[str, Any], images: str, task: str
) -> Iterator[str]:
    """A table of the images of one set: PSNR of each method."""
    here = [score for score in scores if score["images"] == images and score["task"] == task]
    methods = [method for method in results["methods"] if any(s["method"] == method["name"] for s in here)]
    if not here:
        return
    yield f"**{results['image_sets'][images]}, {results['tasks'][task]}, image by image**, PSNR in dB\n"
    yield "| image | " + " | ".join(method["label"] for method in methods) + " |"
    yield "|---" * (len(methods) + 1) + "|"
    for name in sorted({score["image"] for score in here}):
        found = {score["method"]: float(score["psnr"]) for score in here if score["image"] == name}
        cells = [f"{found[m['name']]:.2f}" if m["name"] in found else "" for m in methods]
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def section(folder: Path, each: list[str]) -> str:
    """Markdown of one run; `each` names image sets and tasks, as set/task, whose single images are shown."""
    results = json.loads((folder / "results.json").read_text())
    rows = _read(folder / "table.csv")
    machine = results["environment"]
    lines = [f"## {results['title']}", "", results["summary"], f"Protocol: {results['protocol']}", ""]
    lines += _tables(rows, results)
    scores = _read(folder / "scores.csv")
    for pair in each:
        images, _, task = pair.partition("/")
        if images in results["image_sets"] and task in results["tasks"]:
            lines += _single_images(scores, results, images, task)
    lines += [f"{results['tuning']}", ""]
    lines += [f"{note}\n" for note in results["notes"]]
    lines.append(
        f"Commit {machine['commit']}, torch {machine['packages']['torch']}, {machine['cores']} cores, "
        f"{machine['gpu'] or 'no GPU'}."
    )
    return "\n".join(lines)


def merged_rows(
    old: list[dict[str, str]], new: list[dict[str, str]], methods: list[str], suite: Suite
) -> list[dict[str, str]]:
    """Rows of a table with those of some methods taken from another run, where it has them, in the suite's order."""

    def place(row: dict[str, str]) -> tuple[str, str, str]:
        return row["images"], row["task"], row["method"]

    taken = {place(row): row for row in new if row["method"] in methods}
    order = [
        (images.name, task.name, row.method)
        for images in suite.images
        for task in suite.tasks
        for row in suite.rows
    ]
    return sorted(
        ({place(row): row for row in old} | taken).values(), key=lambda row: order.index(place(row))
    )


def merged_section(text: str, rows: list[dict[str, str]], folder: Path, methods: list[str]) -> str:
    """The section of a suite with new rows: tables from `rows`, columns of single images from the run in `folder`."""
    results = json.loads((folder / "results.json").read_text())
    suite = SUITES[results["suite"]]
    labels = {row["method"]: row["label"] for row in rows}
    whole = {
        "image_sets": {images.name: images.label for images in suite.images},
        "tasks": {task.name: task.label for task in suite.tasks},
        "curves": suite.axis,
        "methods": [{"name": r.method, "label": labels[r.method]} for r in suite.rows if r.method in labels],
    }
    blocks = text.strip("\n").split("\n\n")
    tables = [k for k, block in enumerate(blocks) if block.startswith(("**", "|"))]
    single = [k for k in tables if "image by image" in blocks[k]]
    scores = _read(folder / "scores.csv")
    shown = []
    for k in single:
        heading, table = blocks[k], blocks[k + 1]
        for images, task in ((i, t) for i in whole["image_sets"] for t in whole["tasks"]):
            if heading.startswith(f"**{whole['image_sets'][images]}, {whole['tasks'][task]}, image by image"):
                here = [s for s in scores if (s["images"], s["task"]) == (images, task)]
                for method in methods:
                    found = {s["image"]: f"{float(s['psnr']):.2f}" for s in here if s["method"] == method}
                    table = _with_column(table, labels[method], found)
        shown += [heading, table]
    new = [labels[method] for method in methods]
    tail = [kept for block in blocks[tables[-1] + 1 :] if (kept := _without_rows(block, new))]
    commit = _ROWS.format("; ".join(new), results["environment"]["commit"])
    made = "\n".join(_tables(rows, whole)).strip("\n")
    return "\n\n".join([*blocks[: tables[0]], made, *shown, *tail, commit])


_ROWS = "Rows of {}: commit {}."


def _without_rows(block: str, labels: list[str]) -> str:
    """A paragraph below the tables; of one that names the commit of rows, what is left without some of them."""
    found = re.fullmatch(_ROWS.format("(.*)", "(.*)"), block)
    if found is None:
        return block
    left = [label for label in found[1].split("; ") if label not in labels]
    return _ROWS.format("; ".join(left), found[2]) if left else ""


def _with_column(table: str, label: str, cells: dict[str, str]) -> str:
    """A table of single images with other cells in the column of that label, for the images that have some."""
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    headings = [cell.strip() for cell in lines[0]]
    if label in headings:
        for line in lines[2:]:
            new = cells.get(line[0].strip())
            line[headings.index(label)] = line[headings.index(label)] if new is None else f" {new} "
    return "\n".join(f"|{'|'.join(line)}|" for line in lines)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _parts(page: str, name: str) -> tuple[str, str, str]:
    """The page up to the section of a suite, the section, and the page from its end on."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(start)
    middle, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{_PAGE.name} has no section {name}: add the lines {start} and {end}")
    return before + start, middle, end + after


def packed_records(folder: Path) -> bytes:
    """The record files of a run as a zip file, the same bytes for the same records."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted((folder / "records").rglob("*.json")):
            member = zipfile.ZipInfo(file.relative_to(folder).as_posix())
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, json.dumps(json.loads(file.read_text()), separators=(",", ":")))
    return stream.getvalue()


def main() -> None:
    """Pack the records of the given runs and rewrite their sections."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of invrestore bench")
    parser.add_argument("--each", action="append", default=[], metavar="SET/TASK", help="show single images")
    parser.add_argument(
        "--records-only", action="store_true", help="pack the records, leave the page as it is"
    )
    parser.add_argument(
        "--rows", action="append", default=[], metavar="METHOD", help="take these rows alone, keep the others"
    )
    options = parser.parse_args()
    page = _PAGE.read_text()
    for folder in options.runs:
        results = json.loads((folder / "results.json").read_text())
        name = results["suite"]
        target = RESULTS / "quality"
        if options.rows:
            table = target / f"{name}.csv"
            rows = merged_rows(_read(table), _read(folder / "table.csv"), options.rows, SUITES[name])
            before, middle, after = _parts(page, name)
            page = f"{before}\n{merged_section(middle, rows, folder, options.rows)}\n{after}"
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_bytes(table, text.getvalue().encode(), force=True)
            continue
        records = RESULTS / "records" / f"{name}.zip"
        records.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(records, packed_records(folder), force=True)
        if options.records_only:
            continue
        before, _, after = _parts(page, name)
        page = f"{before}\n{section(folder, options.each)}\n{after}"
        target.mkdir(parents=True, exist_ok=True)
        write_bytes(target / f"{name}.csv", (folder / "table.csv").read_bytes(), force=True)
        environment = json.dumps(results["environment"], indent=1) + "\n"
        write_bytes(target / f"{name}-environment.json", environment.encode(), force=True)
    write_bytes(_PAGE, page.encode(), force=True)


if __name__ == "__main__":
    main()
