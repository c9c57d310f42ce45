"""The report of a run: one HTML file that needs no network, and the numbers as JSON and CSV."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invrestore.bench._curves import Line, chart, key
from invrestore.bench._results import MethodInfo, Picture, Results
from invrestore.bench._tables import METRICS, Metric, Table, csv_text
from invrestore.errors import ImageFileError
from invrestore.io._write import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["write_report"]

_ALIASES = {"truth": "Truth", "measured": "Measured"}

_BUDGET = 7_000_000
"""Bytes of pictures in the page; written in base64 they take a third more."""


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write ``report.html``, ``results.json``, ``scores.csv``, ``table.csv`` and ``times.csv``.

    Each file is written whole or not at all and replaces an earlier one. ``scores.csv`` (every image) and
    ``table.csv`` (means, spread, paired differences to the reference row) depend on the scores alone: equal
    scores give equal bytes. Seconds and memory are in ``times.csv``; JSON and HTML hold everything. In JSON
    an infinite PSNR is the string ``"inf"``.

    Args:
        results: The run.
        folder: Where to write; created if it is not there.

    Returns:
        The files written, the page first.

    Raises:
        UnknownNameError: A score names a row, image set or task that the run does not list.
        RangeError: An image has two scores of one row and task.
        ImageFileError: A picture is missing, or a file cannot be written.
    """
    table = Table(results)
    files = {
        "report.html": _page(table),
        "results.json": _json(table, folder),
        "scores.csv": csv_text(table.score_records()),
        "table.csv": csv_text(table.mean_records()),
        "times.csv": csv_text(table.time_records()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_bytes(folder / name, text.encode(), force=True)
    return [folder / name for name in files]


def _json(table: Table, folder: Path) -> str:
    results = table.results
    content = {
        **{field: getattr(results, field) for field in ("suite", "title", "summary", "protocol", "tuning")},
        "notes": list(results.notes),
        "image_sets": results.image_sets,
        "tasks": results.tasks,
        "axis": results.axis,
        "curves": {task: {"curve": name, "level": level} for task, (name, level) in results.curves.items()},
        "methods": [dataclasses.asdict(info) for info in results.methods],
        "reference": table.reference,
        "table": table.mean_records(),
        "times": table.time_records(),
        "published": [
            {"method": method, "images": images, "task": task, "psnr": psnr}
            for (method, images, task), psnr in results.published.items()
        ],
        "scores": [dataclasses.asdict(score) for score in results.scores],
        "pictures": [
            {**dataclasses.asdict(picture), "path": os.path.relpath(picture.path, folder)}
            for picture in results.pictures
        ],
        "environment": results.environment,
    }
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Turn what JSON does not have into what it has: infinity into "inf", NaN into null, others into text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _page(table: Table) -> str:
    import jinja2

    results = table.results
    files = resources.files("invrestore.bench")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(files.joinpath("report.html").read_text("utf-8"))
    groups, sources, words = _pictures(table)
    pictures = {"groups": groups, "sources": sources, "reference": table.reference}
    data = {"differences": _differences(table), "pictures": pictures}
    numbers = {info.name: number for number, info in enumerate(results.methods)}
    return template.render(
        r=results,
        style=files.joinpath("report.css").read_text("utf-8"),
        script=files.joinpath("report.js").read_text("utf-8"),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        facts=_facts(table),
        numbers=numbers,
        reference=table.reference,
        metrics=table.metrics,
        compared=[info for info in results.methods if any(s.method == info.name for s in results.scores)],
        left_out=[info for info in results.methods if info.left_out],
        sets=[_set(table, images) for images in results.image_sets if table.tasks(images)],
        curves=_curves(table),
        keys={info.name: key(numbers[info.name], info.group) for info in results.methods},
        pictures=words,
        settings={info.name: _settings(info, results) for info in results.methods},
        environment=list(_flat(results.environment)),
    )


def _facts(table: Table) -> list[tuple[str, str]]:
    """How many of what, for under the heading."""
    results = table.results
    images = {(score.images, score.index) for score in results.scores}
    rows = {score.method for score in results.scores}
    tasks = {score.task for score in results.scores}
    counts = (
        (len(images), "image"),
        (len(tasks), "task"),
        (len(rows), "method"),
        (len(results.scores), "score"),
    )
    return [
        (f"{count:,}".replace(",", "\u202f"), word if count == 1 else f"{word}s") for count, word in counts
    ]


# --- Tables ----------------------------------------------------------------------------------------------


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\u2212")


def _seconds(value: float) -> str:
    if value < 0.001:
        return "< 0.001"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _set(table: Table, images: str) -> dict[str, Any]:
    """Everything the template shows of one image set."""
    results = table.results
    tasks = table.tasks(images)
    published = [
        task for task in tasks if any((i.name, images, task) in results.published for i in results.methods)
    ]
    marks = {
        (metric.name, task): table.marks(metric, images, task) for metric in table.metrics for task in tasks
    }
    columns = {column: number for number, column in enumerate(table.columns())}
    indices = {score.index for score in results.scores if score.images == images}
    metrics = [
        metric for metric in table.metrics if any(table.expected(metric.name, images, t) for t in tasks)
    ]
    return {
        "name": images,
        "label": results.image_sets[images],
        "count": len(indices),
        "metrics": metrics,
        "remarks": _remarks(table, images),
        "tasks": [
            {"name": t, "label": results.tasks[t], "number": columns[images, t], "published": t in published}
            for t in tasks
        ],
        "rows": [
            {
                "info": info,
                "cells": {
                    (metric.name, task): _cell(table, metric, images, task, info, marks[metric.name, task])
                    for metric in metrics
                    for task in tasks
                },
                "published": {task: _published(table, images, task, info) for task in published},
                "costs": {task: _cost(table, images, task, info) for task in tasks},
            }
            for info in table.rows(images)
        ],
    }


def _cell(
    table: Table, metric: Metric, images: str, task: str, info: MethodInfo, marks: Mapping[str, str]
) -> dict[str, Any] | None:
    summary = table.summary(metric.name, images, task, info.name)
    if summary.n == 0:
        return None
    return {
        "value": summary.mean,
        "text": _number(summary.mean, metric.digits),
        "spread": "" if math.isnan(summary.std) else f"± {_number(summary.std, metric.digits)}",
        "mark": marks.get(info.name, ""),
        "missing": summary.n < table.expected(metric.name, images, task),
        "infinite": summary.infinite,
    }


def _remarks(table: Table, images: str) -> list[str]:
    """Rows that miss images, and rows with infinite scores."""
    missing, infinite = [], []
    for info in table.rows(images):
        few, perfect = [], []
        for task in table.tasks(images):
            summary, expected = (
                table.summary("psnr", images, task, info.name),
                table.expected("psnr", images, task),
            )
            label = table.results.tasks[task]
            if 0 < summary.n < expected:
                few.append(f"{label} {summary.n} of {expected} images")
            if summary.infinite:
                perfect.append(f"{label} {summary.infinite} of {summary.n} images")
        if few:
            missing.append(f"\u2020 {info.label}: {', '.join(few)}.")
        if perfect:
            infinite.append(f"\u221e {info.label}: {', '.join(perfect)} equal the truth.")
    return missing + infinite


def _published(table: Table, images: str, task: str, info: MethodInfo) -> dict[str, str] | None:
    value = table.results.published.get((info.name, images, task))
    if value is None:
        return None
    ours = table.summary("psnr", images, task, info.name).mean
    difference = "" if not math.isfinite(ours) else _number(ours - value, 2, sign=True)
    return {"text": _number(value, 2), "difference": difference}


def _cost(table: Table, images: str, task: str, info: MethodInfo) -> dict[str, Any] | None:
    scores = table.scores(images, task, info.name).values()
    if not scores:
        return None
    seconds = sum(score.seconds for score in scores) / len(scores)
    memory = max(score.memory for score in scores)
    return {
        "seconds": seconds,
        "seconds_text": _seconds(seconds),
        "memory": memory,
        "memory_text": f"{memory:.0f}",
    }


def _differences(table: Table) -> dict[str, Any]:
    """Paired differences of all pairs of rows: by column, metric and the numbers of the two rows, smaller first.

    Each is [n, mean, half the width of the interval or null]; the opposite order has the opposite mean.
    """
    methods = table.results.methods
    found: dict[str, list[float | int | None]] = {}
    for number, column in enumerate(table.columns()):
        present = [n for n, info in enumerate(methods) if table.scores(*column, info.name)]
        for metric in table.metrics:
            for a in present:
                for b in present:
                    if a < b:
                        d = table.difference(metric.name, *column, methods[a].name, methods[b].name)
                        if d.n:
                            half = None if math.isnan(d.high) else round(d.high - d.mean, metric.digits + 2)
                            mean = round(d.mean, metric.digits + 2)
                            found[f"{number},{metric.name},{a},{b}"] = [d.n, mean, half]
    expected = {
        f"{number},{metric.name}": table.expected(metric.name, *column)
        for number, column in enumerate(table.columns())
        for metric in table.metrics
    }
    return {"pairs": found, "expected": expected}


# --- Curves ----------------------------------------------------------------------------------------------


def _curves(table: Table) -> list[dict[str, Any]]:
    """Charts of PSNR and SSIM over level, for each image set and curve with two levels or more."""
    results = table.results
    charts = []
    for images, label in results.image_sets.items():
        tasks = [task for task in table.tasks(images) if task in results.curves]
        for curve in dict.fromkeys(results.curves[task][0] for task in tasks):
            levels = sorted(
                (results.curves[task][1], task) for task in tasks if results.curves[task][0] == curve
            )
            if len(levels) < 2:
                continue
            heading = f"{label}, {curve}" if curve else label
            for metric in METRICS[:2]:
                lines = _lines(table, metric, images, levels)
                if lines:
                    charts.append(_chart(lines, metric, results.axis, heading))
            lines = _difference_lines(table, METRICS[0], images, levels)
            if lines:
                charts.append(
                    _chart(lines, METRICS[0], results.axis, heading, _label(table, table.reference))
                )
    return charts


def _label(table: Table, method: str) -> str:
    return next(info.label for info in table.results.methods if info.name == method)


def _lines(table: Table, metric: Metric, images: str, levels: list[tuple[float, str]]) -> list[Line]:
    lines = []
    for number, info in enumerate(table.results.methods):
        means = [(level, table.summary(metric.name, images, task, info.name).mean) for level, task in levels]
        points = tuple((level, mean) for level, mean in means if math.isfinite(mean))
        if points:
            lines.append(Line(number, info.label, info.group, points))
    return lines


def _difference_lines(
    table: Table, metric: Metric, images: str, levels: list[tuple[float, str]]
) -> list[Line]:
    """Restored rows minus the reference row, with confidence intervals; the reference is the line at zero."""
    lines = []
    for number, info in enumerate(table.results.methods):
        if info.group == "input":
            continue
        found = [
            (level, table.difference(metric.name, images, task, info.name, table.reference))
            for level, task in levels
        ]
        found = [(level, difference) for level, difference in found if difference.n]
        if found:
            points = tuple((level, difference.mean) for level, difference in found)
            errors = tuple(None if math.isnan(d.high) else d.high - d.mean for _, d in found)
            lines.append(Line(number, info.label, info.group, points, errors))
    return (
        lines
        if len(lines) > 1 and any(line.label == _label(table, table.reference) for line in lines)
        else []
    )


def _chart(
    lines: list[Line], metric: Metric, axis: str, heading: str, reference: str | None = None
) -> dict[str, Any]:
    """A chart fits its methods; the degraded images stay out of view where they would take most of the height."""

    def bounds(chosen: list[Line]) -> tuple[float, float]:
        values = [score for line in chosen for _, score in line.points]
        return min(values), max(values)

    whole = bounds(lines)
    restored = bounds([line for line in lines if line.group != "input"] or lines)
    shown = whole if whole[1] - whole[0] <= 1.5 * (restored[1] - restored[0]) else restored
    drawn = sorted(lines, key=lambda line: (line.group == "learned", line.number))
    what = metric.label if reference is None else f"{metric.label} minus that of {reference}"
    return {
        "heading": heading,
        "what": what,
        "errors": reference is not None,
        "cut": shown != whole,
        "svg": chart(
            drawn,
            title=f"{what} over {axis}: {heading}",
            axis=axis,
            scores=metric.unit,
            digits=metric.digits,
            bounds=shown,
            signed=reference is not None,
        ),
    }


# --- Pictures --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Form:
    """How pictures are put into the page.

    Attributes:
        crop: Side of the square cut out of the middle; None keeps all.
        quality: Of JPEG; None for PNG.
    """

    crop: int | None
    quality: int | None

    @property
    def words(self) -> str:
        part = (
            "Pictures are whole"
            if self.crop is None
            else f"Each is the middle {self.crop} x {self.crop} pixels"
        )
        kind = (
            "without loss"
            if self.quality is None
            else f"as JPEG of quality {self.quality} without chroma subsampling"
        )
        return f"{part}, {kind}."


_FORMS = (_Form(None, None), _Form(256, None), _Form(256, 95), _Form(192, 95), _Form(160, 92))


def _middle(image: Image, side: int) -> Image:
    """The middle of a picture, at most ``side`` pixels wide and high."""
    width, height = image.size
    w, h = min(side, width), min(side, height)
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h))


def _encode(image: Image, form: _Form) -> bytes:
    buffer = io.BytesIO()
    part = image if form.crop is None else _middle(image, form.crop)
    if form.quality is None:
        part.save(buffer, "PNG")
    else:
        part = part if part.mode in ("L", "RGB") else part.convert("RGB")
        part.save(buffer, "JPEG", quality=form.quality, subsampling=0)
    return buffer.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageFileError(
            "write_report",
            expected=f"the picture {path}",
            found=str(error.strerror or error),
            remedy="Run the benchmark again to make its pictures anew.",
        ) from error


def _fit(pictures: list[Picture]) -> tuple[dict[Picture, bytes], _Form]:
    """Pictures in the first form that fits the budget; in the last form, as many groups as fit."""
    import PIL.Image

    def size() -> int:
        return sum(map(len, {*files.values()}))

    files = {picture: _read(picture.path) for picture in pictures}
    whole, *smaller = _FORMS
    if size() <= _BUDGET:
        return files, whole
    largest = max(form.crop for form in smaller if form.crop)
    images = {
        picture: _middle(PIL.Image.open(io.BytesIO(data)), largest).copy() for picture, data in files.items()
    }
    for form in smaller:
        files = {picture: _encode(image, form) for picture, image in images.items()}
        if size() <= _BUDGET:
            return files, form
    kept: dict[Picture, bytes] = {}
    total = 0
    # The first image of every task comes before the second of any.
    for picture in sorted(pictures, key=lambda p: (p.index, p)):
        total += len(files[picture])
        if total > _BUDGET:
            kept = {p: data for p, data in kept.items() if _group(p) != _group(picture)}
            break
        kept[picture] = files[picture]
    return kept, _FORMS[-1]


def _group(picture: Picture) -> tuple[str, str, int]:
    return picture.images, picture.task, picture.index


def _pictures(table: Table) -> tuple[list[dict[str, Any]], list[str], str]:
    """Groups of pictures that belong together, the files they show, and how those were made, in words."""
    results = table.results
    names = ["truth", "measured", *(info.name for info in results.methods)]
    chosen = [picture for picture in results.pictures if picture.method in names]
    if not chosen:
        return [], [], ""
    files, form = _fit(chosen)
    sources: dict[bytes, int] = {data: number for number, data in enumerate(dict.fromkeys(files.values()))}
    sets, tasks = list(results.image_sets), list(results.tasks)
    groups: dict[tuple[str, str, int], list[Picture]] = {}
    for picture in sorted(files, key=lambda p: (sets.index(p.images), p.index, tasks.index(p.task))):
        groups.setdefault(_group(picture), []).append(picture)
    views = [
        _view(table, group, sorted(members, key=lambda p: names.index(p.method)), files, sources)
        for group, members in groups.items()
    ]
    missing = len({_group(picture) for picture in chosen}) - len(groups)
    words = form.words + (
        f" To keep this file small, {missing} more sets of pictures stay out of it." if missing else ""
    )
    return views, [f"{_mime(data)};base64,{base64.b64encode(data).decode()}" for data in sources], words


def _view(
    table: Table,
    group: tuple[str, str, int],
    members: list[Picture],
    files: Mapping[Picture, bytes],
    sources: Mapping[bytes, int],
) -> dict[str, Any]:
    import PIL.Image

    images, task, index = group
    labels = {info.name: info.label for info in table.results.methods} | _ALIASES
    found = {p.method: table.scores(images, task, p.method).get(index) for p in members}
    known = {
        method: score
        for method, score in found.items()
        if score is not None and not math.isnan(score.psnr + score.ssim)
    }
    best = max((score.psnr for score in known.values()), default=math.nan)
    names = [score.image for score in table.results.scores if (score.images, score.index) == (images, index)]
    shown = []
    for picture in members:
        score = known.get(picture.method)
        with PIL.Image.open(io.BytesIO(files[picture])) as opened:
            width, height = opened.size
        shown.append(
            {
                "method": picture.method,
                "label": labels[picture.method],
                "source": sources[files[picture]],
                "width": width,
                "height": height,
                "score": "" if score is None else f"{_number(score.psnr, 2)} dB / {_number(score.ssim, 3)}",
                "best": score is not None and len(known) > 1 and score.psnr == best,
            }
        )
    return {
        "images": images,
        "task": task,
        "index": index,
        "image": names[0] if names else f"image {index}",
        "pictures": shown,
    }


def _mime(data: bytes) -> str:
    return "data:image/png" if data.startswith(b"\x89PNG") else "data:image/jpeg"


# --- Settings and environment ----------------------------------------------------------------------------


def _settings(info: MethodInfo, results: Results) -> list[tuple[str, str]]:
    """Settings of a row with the tasks they hold for; tasks with the same settings share a line."""
    lines: dict[str, list[str]] = {}
    for task, settings in info.settings.items():
        if settings:
            text = ", ".join(f"{name} = {_setting(value)}" for name, value in settings.items())
            lines.setdefault(text, []).append(results.tasks.get(task, task))
    if len(lines) == 1 and len(*lines.values()) == len(info.settings):
        return [("all tasks", next(iter(lines)))]
    return [(", ".join(tasks), text) for text, tasks in lines.items()]


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Entries of nested mappings as pairs of a name and a text."""
    for name, value in values.items():
        label = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        elif isinstance(value, (list, tuple)):
            yield label, ", ".join(map(str, value))
        else:
            yield label, str(value)
