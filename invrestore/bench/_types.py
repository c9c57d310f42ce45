"""What a benchmark is made of: images, degradations, a protocol, methods. All of it is data."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from invrestore._types import Tensor
from invrestore.operators import Operator

__all__ = ["Degradation", "ImageSet", "Kind", "Method", "Problem", "Protocol", "Row", "Suite", "Task"]

Kind: TypeAlias = Literal[
    "noise", "blur", "downsample", "mask", "grayscale", "quantize", "jpeg", "colornoise", "clutter"
]
"""What happened to the images; a method states the kinds it can treat."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A batch of degraded images and everything that a method may know about them.

    Attributes:
        kind: What happened.
        y: Measurement, (B, ...), in the operator's range.
        operator: The forward model; None where it is unknown.
        sigma: Standard deviation of the noise in y in units of the image range; 0 for exact data.
        view: The measurement as a person sees it, (B, C, H, W) in [0, 1]: the size of the clean images.
        seeds: One number for each image, for methods that draw.
    """

    kind: Kind
    y: Tensor
    operator: Operator | None
    sigma: float
    view: Tensor
    seeds: tuple[int, ...]


class Degradation(ABC):
    """Makes problems; subclasses are frozen dataclasses, so that equal ones compare equal.

    Attributes:
        kind: Kind of the problems.
    """

    kind: ClassVar[Kind]

    @abstractmethod
    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Problem:
        """Degrade clean images (B, C, H, W) in [0, 1], each with its own seed."""


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images out of the data folder, in the order of their names.

    Attributes:
        name: Short name, used in files.
        label: Name in tables.
        folder: Path inside the data folder.
        split: "train", "val" or "test" where the layout of the folder has splits; None takes everything.
        gray: Convert to one channel.
        crop: Applied to each image (1, C, H, W) after loading.
        first: Take only the first images; None takes all.
        names: Take only the files of these names (without ending); None takes all.
        examples: Folder whose training images methods may look up for these; empty for none.
    """

    name: str
    label: str
    folder: str
    split: Literal["train", "val", "test"] | None = None
    gray: bool = False
    crop: Callable[[Tensor], Tensor] | None = None
    first: int | None = None
    names: tuple[str, ...] | None = None
    examples: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """One degradation: a column of the table.

    Attributes:
        name: Short name, used in files.
        label: Heading of the column.
        degrade: Makes the problem.
        border: Pixels left out at every side when scored.
        curve: Name of the curve that the task is a point of; empty for none.
        level: Where on the curve's axis.
    """

    name: str
    label: str
    degrade: Degradation
    border: int = 0
    curve: str = ""
    level: float = 0.0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How estimates are compared with the truth.

    Attributes:
        words: The protocol as a reader should know it.
        round8: Clamp to [0, 1] and round to 8 bits before scoring.
        luma: Score the luma channel of colour images (BT.601 as MATLAB's ``rgb2ycbcr``) and not RGB.
        seed: "index" gives image i the seed i; "zero" gives every image seed 0, as published tables of
            Gaussian denoising do.
    """

    words: str
    round8: bool = True
    luma: bool = False
    seed: Literal["index", "zero"] = "index"


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: anything that turns a problem into images.

    Attributes:
        name: Name for ``--methods``.
        label: Name in tables.
        group: "input" (no restoration), "classical", "learned" (ours) or "peer" (another library or published
            weights).
        run: ``run(problem, **settings)`` returns estimates (B, C, H, W), of the shape of ``problem.view``.
        kinds: Kinds of problems it treats.
        grid: Values searched for each setting when a suite is tuned; empty when nothing is tuned.
        module: Package it needs besides our own; empty for none.
        peers: Whether it needs the folder of published weights.
        examples: Whether it looks up training images; it is given their folder as the setting ``examples``.
        networks: Names of the shipped networks it uses.
        channels: Numbers of image channels it takes.
        reference: Paper or library.
    """

    name: str
    label: str
    group: Literal["input", "classical", "learned", "peer"]
    run: Callable[..., Tensor]
    kinds: frozenset[Kind]
    grid: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    module: str = ""
    peers: bool = False
    examples: bool = False
    networks: tuple[str, ...] = ()
    channels: tuple[int, ...] = (1, 3)
    reference: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A method with its settings in a suite.

    Attributes:
        method: Name of the method.
        fixed: Settings for all tasks that are part of the comparison and not tuned.
        tasks: Names of the tasks it takes part in; None takes those its kinds allow.
        tuned: Whether the settings found on training images apply.
        first: Only so many first images of each set, by task, where a method would take hours; "" stands for the
            tasks that are not named.
    """

    method: str
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tasks: tuple[str, ...] | None = None
    tuned: bool = True
    first: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Suite:
    """A whole benchmark.

    Attributes:
        name: Name for the command line.
        title: Heading of the report.
        summary: What it measures, in a sentence or two.
        images: Test images.
        tuning: Images for the search of settings; never test images.
        tasks: Degradations.
        protocol: How estimates are scored.
        rows: Methods, in the order of the table.
        batch: Images restored together: more than 1 only for images of one size.
        axis: Axis label of the curves; empty for no curves.
        notes: Remarks that the report prints under the table.
        published: Published scores by row, image set and task, as (PSNR in dB, source): context, not ours.
    """

    name: str
    title: str
    summary: str
    images: tuple[ImageSet, ...]
    tuning: tuple[ImageSet, ...]
    tasks: tuple[Task, ...]
    protocol: Protocol
    rows: tuple[Row, ...]
    batch: int = 1
    axis: str = ""
    notes: tuple[str, ...] = ()
    published: Mapping[tuple[str, str, str], float] = dataclasses.field(default_factory=dict)

    def task(self, name: str) -> Task:
        """The task of that name."""
        return next(task for task in self.tasks if task.name == name)
