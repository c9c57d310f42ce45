"""What a run leaves behind: scores of single images, a few pictures, and what is needed to repeat it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

__all__ = ["MethodInfo", "Picture", "Results", "Score"]


@dataclasses.dataclass(frozen=True, order=True)
class Score:
    """Scores of one image restored by one method.

    Attributes:
        method: Name of the method.
        images: Name of the image set.
        task: Name of the task.
        index: Position of the image in its set.
        image: Its file name.
        psnr: In dB.
        ssim: Structural similarity.
        lpips: Learned perceptual distance; None where its weights are not on disk or the image is gray.
        seconds: Time for this image: that of its batch divided by the number of images.
        memory: Largest memory of the process during the batch, in MiB above that before it.
    """

    method: str
    images: str
    task: str
    index: int
    image: str
    psnr: float
    ssim: float
    lpips: float | None
    seconds: float
    memory: float


@dataclasses.dataclass(frozen=True, order=True)
class Picture:
    """A picture kept for the report.

    Attributes:
        images: Name of the image set.
        task: Name of the task.
        index: Position of the image in its set.
        method: Name of the method, or "truth" or "measured".
        path: PNG file.
    """

    images: str
    task: str
    index: int
    method: str
    path: Path


@dataclasses.dataclass(frozen=True)
class MethodInfo:
    """What the report says of a row.

    Attributes:
        name: Name of the method.
        label: Name in the table.
        group: "input", "classical", "learned" or "peer".
        reference: Paper or library.
        settings: Settings by task.
        left_out: Why it did not run; empty if it ran.
    """

    name: str
    label: str
    group: str
    reference: str
    settings: dict[str, dict[str, Any]]
    left_out: str = ""


@dataclasses.dataclass(frozen=True)
class Results:
    """A whole run.

    Attributes:
        suite: Name of the suite.
        title: Heading.
        summary: What it measures.
        protocol: How estimates were scored, in words.
        notes: Remarks for under the table.
        tuning: How settings were found, in words.
        image_sets: Labels by name, in the order of the tables.
        tasks: Labels by name, in the order of the columns.
        curves: By task: name of the curve and level on its axis; absent for tasks on no curve.
        axis: Axis label of the curves.
        methods: Rows, in the order of the table.
        published: Published PSNR in dB by (method, image set, task).
        scores: Sorted.
        pictures: Sorted.
        environment: Versions, commit, machine.
    """

    suite: str
    title: str
    summary: str
    protocol: str
    notes: tuple[str, ...]
    tuning: str
    image_sets: dict[str, str]
    tasks: dict[str, str]
    curves: dict[str, tuple[str, float]]
    axis: str
    methods: tuple[MethodInfo, ...]
    published: dict[tuple[str, str, str], float]
    scores: tuple[Score, ...]
    pictures: tuple[Picture, ...]
    environment: dict[str, Any]
