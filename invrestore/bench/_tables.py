"""Statistics of a run: means over images, paired differences, marks, and the rows of the CSV files."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from invrestore.bench._results import MethodInfo, Results, Score
from invrestore.errors import RangeError, UnknownNameError

__all__ = [
    "METRICS",
    "Difference",
    "Metric",
    "Summary",
    "Table",
    "csv_text",
    "paired_difference",
    "summarise",
]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A measure of quality and how it is written.

    Attributes:
        name: Field of a score.
        label: Name in tables.
        unit: Its unit; empty for none.
        digits: Decimals of means in tables; two means that agree in these are equal.
        higher: Whether more is better.
    """

    name: str
    label: str
    unit: str
    digits: int
    higher: bool


METRICS = (
    Metric("psnr", "PSNR", "dB", 2, True),
    Metric("ssim", "SSIM", "", 3, True),
    Metric("lpips", "LPIPS", "", 3, False),
)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and spread of one metric over images.

    Attributes:
        n: Images with a score.
        infinite: How many of them are infinite: the estimate equals the truth. Mean and spread leave them out.
        mean: Mean; infinite if every score is.
        std: Standard deviation over images, with n - 1 in the denominator; NaN below two finite scores.
    """

    n: int
    infinite: int
    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of per-image differences of two rows, with its 95 % confidence interval.

    Attributes:
        n: Images that entered: scored by both rows, and finite in both.
        infinite: Common images left out because a score is infinite.
        mean: Mean difference; NaN without common images.
        low: Lower end of the interval; NaN below two images.
        high: Upper end.
    """

    n: int
    infinite: int
    mean: float
    low: float
    high: float


def summarise(values: Iterable[float]) -> Summary:
    """Mean and spread of the finite values.

    Args:
        values: One for each image; none is NaN.

    Example:
        >>> summarise([30.0, 32.0, float("inf")])
        Summary(n=3, infinite=1, mean=31.0, std=1.4142135623730951)
    """
    values = list(values)
    finite = [value for value in values if math.isfinite(value)]
    infinite = len(values) - len(finite)
    mean = float(np.mean(finite)) if finite else (math.inf if infinite else math.nan)
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    return Summary(len(values), infinite, mean, std)


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """Compare two rows image by image; the interval is that of the paired t-test.

    Args:
        values: Scores by image.
        reference: Scores of the row that is subtracted; only images in both count.

    Example:
        >>> difference = paired_difference({0: 30.0, 1: 31.0, 2: 29.0}, {0: 29.0, 1: 29.0})
        >>> difference.n, difference.mean
        (2, 1.5)
    """
    common = sorted(values.keys() & reference.keys())
    pairs = [(values[i], reference[i]) for i in common]
    differences = [a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    n = len(differences)
    if n == 0:
        return Difference(0, len(common), math.nan, math.nan, math.nan)
    mean = float(np.mean(differences))
    half = _quantile(n) * float(np.std(differences, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Difference(n, len(common) - n, mean, mean - half, mean + half)


@functools.cache
def _quantile(n: int) -> float:
    """Student's t at 97.5 % with n - 1 degrees of freedom."""
    from scipy import stats

    return float(stats.t.ppf(0.975, n - 1))


class Table:
    """The scores of a run, arranged by image set, task and row.

    A score that is NaN counts as missing. A row that misses images which another row has keeps its own mean,
    is marked wherever it is shown, and is neither best nor second best.

    Args:
        results: The run.

    Raises:
        UnknownNameError: A score names a row, image set or task that the run does not list.
        RangeError: An image has two scores of one row and task.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._scores: dict[tuple[str, str, str], dict[int, Score]] = {}
        self._values: dict[tuple[str, str, str, str], dict[int, float]] = {}
        rows = [info.name for info in results.methods]
        for score in results.scores:
            for kind, name, names in (
                ("row", score.method, rows),
                ("image set", score.images, results.image_sets),
                ("task", score.task, results.tasks),
            ):
                if name not in names:
                    raise UnknownNameError.suggest("write_report", kind, name, names)
            cell = self._scores.setdefault((score.images, score.task, score.method), {})
            if score.index in cell:
                raise RangeError(
                    "write_report",
                    expected="one score for each image",
                    found=f"two of {score.method} for image {score.index} of {score.images}, {score.task}",
                    remedy="Drop one of them.",
                )
            cell[score.index] = score
        self.metrics = tuple(
            metric
            for metric in METRICS
            if metric.name != "lpips" or any(score.lpips is not None for score in results.scores)
        )

    def tasks(self, images: str) -> list[str]:
        """Tasks with a score on this image set, in the order of the table."""
        scored = {task for set_, task, _ in self._scores if set_ == images}
        return [task for task in self.results.tasks if task in scored]

    def columns(self) -> list[tuple[str, str]]:
        """Image sets with their tasks, as far as there are scores."""
        return [(images, task) for images in self.results.image_sets for task in self.tasks(images)]

    def rows(self, images: str) -> list[MethodInfo]:
        """Rows with a score on this image set, in the order of the table."""
        scored = {method for set_, _, method in self._scores if set_ == images}
        return [info for info in self.results.methods if info.name in scored]

    def scores(self, images: str, task: str, method: str) -> dict[int, Score]:
        """Scores of a cell by image."""
        return self._scores.get((images, task, method), {})

    def values(self, metric: str, images: str, task: str, method: str) -> dict[int, float]:
        """Scores of one metric by image, in the order of the images; absent ones and NaN are left out."""
        key = (metric, images, task, method)
        if key not in self._values:
            cell = sorted(self.scores(images, task, method).items())
            found = {index: getattr(score, metric) for index, score in cell}
            self._values[key] = {i: v for i, v in found.items() if v is not None and not math.isnan(v)}
        return self._values[key]

    def summary(self, metric: str, images: str, task: str, method: str) -> Summary:
        """Mean and spread of a cell."""
        return summarise(self.values(metric, images, task, method).values())

    def expected(self, metric: str, images: str, task: str) -> int:
        """Number of images that at least one row has a score of."""
        every = (self.values(metric, images, task, info.name) for info in self.results.methods)
        return len(set().union(*every))

    def difference(self, metric: str, images: str, task: str, method: str, reference: str) -> Difference:
        """Paired difference of a row to another on the images that both have."""
        return paired_difference(
            self.values(metric, images, task, method), self.values(metric, images, task, reference)
        )

    def marks(self, metric: Metric, images: str, task: str) -> dict[str, str]:
        """Rows that are "best" and "second" by their means; rows that agree in all digits shown share a mark."""
        expected = self.expected(metric.name, images, task)
        means = {}
        for info in self.results.methods:
            summary = self.summary(metric.name, images, task, info.name)
            if summary.n == expected > 0:
                means[info.name] = round(summary.mean, metric.digits)
        if len(means) < 2:
            return {}
        first, *rest = sorted(set(means.values()), reverse=metric.higher)
        marks = {first: "best", **{value: "second" for value in rest[:1]}}
        return {name: marks[value] for name, value in means.items() if value in marks}

    @functools.cached_property
    def reference(self) -> str:
        """The row others are compared with unless a reader chooses: the best learned one, else the best.

        Best is the row scored in the most columns and, among those, of the largest mean of its columns' PSNR;
        empty without scores.
        """

        def strength(info: MethodInfo) -> tuple[int, float]:
            means = [self.summary("psnr", *column, info.name).mean for column in self.columns()]
            means = [mean for mean in means if not math.isnan(mean)]
            return len(means), sum(means) / max(len(means), 1)

        strengths = {info.name: strength(info) for info in self.results.methods}
        for groups in (("learned",), ("classical", "peer"), ("input",)):
            rows = [i.name for i in self.results.methods if i.group in groups and strengths[i.name][0]]
            if rows:
                return max(rows, key=strengths.__getitem__)
        return ""

    def score_records(self) -> list[dict[str, Any]]:
        """One record for each image, task and row: ``scores.csv``."""
        return [
            {
                "images": images,
                "task": task,
                "method": info.name,
                "index": index,
                "image": score.image,
                "psnr": score.psnr,
                "ssim": score.ssim,
                "lpips": score.lpips,
            }
            for images, task in self.columns()
            for info in self.results.methods
            for index, score in sorted(self.scores(images, task, info.name).items())
        ]

    def mean_records(self) -> list[dict[str, Any]]:
        """One record for each image set, task and row: ``table.csv``."""
        return [
            self._mean_record(images, task, info)
            for images, task in self.columns()
            for info in self.results.methods
            if self.scores(images, task, info.name)
        ]

    def _mean_record(self, images: str, task: str, info: MethodInfo) -> dict[str, Any]:
        record: dict[str, Any] = {"images": images, "task": task, "method": info.name, "label": info.label}
        for metric in METRICS:
            name, digits = metric.name, metric.digits + 2
            summary = self.summary(name, images, task, info.name)
            record[f"{name}_n"] = summary.n
            record[f"{name}_missing"] = self.expected(name, images, task) - summary.n
            if metric.name == "psnr":
                record["psnr_infinite"] = summary.infinite
            record[f"{name}_mean"] = _rounded(summary.mean, digits)
            record[f"{name}_std"] = _rounded(summary.std, digits)
        published = self.results.published.get((info.name, images, task))
        record["psnr_published"] = published
        record["reference"] = self.reference
        for metric in METRICS:
            name, digits = metric.name, metric.digits + 2
            difference = self.difference(name, images, task, info.name, self.reference)
            record[f"{name}_difference_n"] = difference.n
            record[f"{name}_difference"] = _rounded(difference.mean, digits)
            record[f"{name}_difference_low"] = _rounded(difference.low, digits)
            record[f"{name}_difference_high"] = _rounded(difference.high, digits)
        return record

    def time_records(self) -> list[dict[str, Any]]:
        """Seconds for an image and largest memory of each image set, task and row: ``times.csv``."""
        records = []
        for images, task in self.columns():
            for info in self.results.methods:
                scores = list(self.scores(images, task, info.name).values())
                if scores:
                    seconds = [score.seconds for score in scores]
                    records.append(
                        {
                            "images": images,
                            "task": task,
                            "method": info.name,
                            "n": len(scores),
                            "seconds_mean": _rounded(float(np.mean(seconds)), 6),
                            "seconds_median": _rounded(float(np.median(seconds)), 6),
                            "seconds_max": _rounded(max(seconds), 6),
                            "memory_max_mib": _rounded(max(score.memory for score in scores), 3),
                        }
                    )
        return records


def _rounded(value: float, digits: int) -> float | None:
    """Round for a file; NaN becomes None, and minus zero becomes zero."""
    return None if math.isnan(value) else round(value, digits) + 0.0


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV with a heading; None is an empty field, infinity is ``inf``."""
    if not records:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, records[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()
