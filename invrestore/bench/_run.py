"""Run a suite: every image by every method, in parallel, so that a kill at any moment loses at most what is in hand."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from invrestore import io, metrics, networks
from invrestore._types import Tensor
from invrestore._version import __version__
from invrestore.bench import _images
from invrestore.bench._degradations import set_data_folder
from invrestore.bench._environment import environment
from invrestore.bench._methods import METHODS
from invrestore.bench._results import MethodInfo, Picture, Results, Score
from invrestore.bench._tuned import tuned_settings, tuning_words
from invrestore.bench._types import ImageSet, Method, Problem, Protocol, Row, Suite, Task
from invrestore.bench.suites import SUITES
from invrestore.errors import CapabilityError, UnknownNameError, WeightsError

__all__ = ["PICTURES", "Failure", "Plan", "Unit", "collect", "plan", "run", "score"]

PICTURES = 4
"""Images of each set whose pictures are kept."""

_PLACES = frozenset({"peers", "examples"})
"""Settings that name folders of this machine: they belong neither in keys nor in reports."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """One batch of images, one degradation, one method: what is recorded at once.

    Attributes:
        suite: Name of the suite.
        method: Name of the method.
        images: Name of the image set.
        task: Name of the task.
        first: Position of the first image of the batch.
        last: Position after the last one.
        settings: Arguments of the method.
        key: Hash of everything that decides the scores; a record of another key counts for nothing.
    """

    suite: str
    method: str
    images: str
    task: str
    first: int
    last: int
    settings: Mapping[str, Any]
    key: str

    def record(self, folder: Path) -> Path:
        """Where the scores of the unit are written."""
        return folder / "records" / self.images / self.task / self.method / f"{self.first:05d}.json"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that is decided: units, and methods that cannot take part.

    Attributes:
        suite: The suite.
        data: Data folder.
        folder: Run folder.
        rows: Methods that run, in the order of the table, with their settings by task.
        units: All units.
        left_out: Reason by name of the method.
    """

    suite: Suite
    data: Path
    folder: Path
    rows: tuple[tuple[Method, dict[str, dict[str, Any]]], ...]
    units: tuple[Unit, ...]
    left_out: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A unit whose method raised.

    Attributes:
        unit: The unit.
        error: One line.
    """

    unit: Unit
    error: str


def plan(
    suite: Suite,
    data: Path,
    folder: Path,
    *,
    methods: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    images: Sequence[str] | None = None,
    limit: int | None = None,
    peers: Path | None = None,
) -> Plan:
    """Decide what is run.

    Args:
        suite: The suite.
        data: Data folder.
        folder: Run folder.
        methods: Names of methods; None takes the rows of the suite. Others than its rows run untuned.
        tasks: Names of tasks; None takes all.
        images: Names of image sets; None takes all.
        limit: Only the first images of each set.
        peers: Folder of published weights; methods that need it are left out without one.

    Raises:
        UnknownNameError: There is no such method, task or image set.
        CapabilityError: Nothing is left to run.
        ImageFileError: Images are missing.
    """
    rows = {row.method: row for row in suite.rows}
    for name in methods or ():
        if name not in METHODS:
            raise UnknownNameError.suggest("bench", "method", name, METHODS)
    names = {task.name: task for task in suite.tasks}
    for name in tasks or ():
        if name not in names:
            raise UnknownNameError.suggest("bench", "task", name, names)
    chosen = [names[name] for name in tasks] if tasks else list(suite.tasks)
    by_name = {one.name: one for one in suite.images}
    for name in images or ():
        if name not in by_name:
            raise UnknownNameError.suggest("bench", "image set", name, by_name)
    left_out: dict[str, str] = {}
    kept: list[tuple[Method, dict[str, dict[str, Any]]]] = []
    units: list[Unit] = []
    set_data_folder(data)
    sets = [_limited(one, limit) for one in suite.images if images is None or one.name in images]
    for name in methods or rows:
        row, method = rows.get(name, Row(name)), METHODS.get(name)
        reason = "there is no such method in this version" if method is None else _missing(method, peers)
        if method is None or reason:
            left_out[name] = reason
            continue
        settings = _settings(suite, row, method, chosen, peers)
        if not settings:
            left_out[name] = "it treats none of these degradations"
            continue
        kept.append((method, settings))
        for one in sets:
            if (1 if one.gray else 3) not in method.channels:
                continue
            total = len(_images.find(one, data))
            for task, chosen_settings in settings.items():
                count = min(total, row.first.get(task, row.first.get("", total)))
                arguments = dict(chosen_settings)
                if method.examples:
                    arguments["examples"] = str(data / one.examples)
                key = _key(suite, method, task, one, arguments)
                units += [
                    Unit(suite.name, name, one.name, task, k, min(k + suite.batch, count), arguments, key)
                    for k in range(0, count, suite.batch)
                ]
    if not units:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise CapabilityError("bench", expected="at least one method that can run", found=reasons or "none")
    order = {task.name: k for k, task in enumerate(suite.tasks)}
    units.sort(key=lambda unit: (unit.images, order[unit.task], unit.first))
    return Plan(suite, data, folder, tuple(kept), tuple(units), left_out)


def _limited(images: ImageSet, limit: int | None) -> ImageSet:
    if limit is None:
        return images
    return dataclasses.replace(images, first=limit if images.first is None else min(limit, images.first))


def _missing(method: Method, peers: Path | None) -> str:
    """Why the method cannot run here, or nothing."""
    if method.module and importlib.util.find_spec(method.module) is None:
        return f"the package {method.module} is not installed"
    if method.peers and peers is None:
        return "it needs published weights; give their folder with --peers"
    absent = set(method.networks) - set(networks.available())
    return f"no weights named {', '.join(sorted(absent))} are in the package" if absent else ""


def _settings(
    suite: Suite, row: Row, method: Method, tasks: Sequence[Task], peers: Path | None
) -> dict[str, dict[str, Any]]:
    """Arguments of the method by task, for the tasks it can treat."""
    found: dict[str, dict[str, Any]] = {}
    for task in tasks:
        if row.tasks is not None and task.name not in row.tasks:
            continue
        if task.degrade.kind not in method.kinds:
            continue
        settings = dict(row.fixed)
        if row.tuned:
            settings |= tuned_settings(suite.name, method.name, task.name)
        if method.peers and peers is not None:
            settings["peers"] = str(peers)
        found[task.name] = settings
    return found


def _key(suite: Suite, method: Method, task: str, images: ImageSet, settings: Mapping[str, Any]) -> str:
    """Hash of what decides the scores of a method on a task."""
    weights = ",".join(networks.card(name).sha256 for name in method.networks)
    parts = (
        __version__,
        torch.__version__,
        method.name,
        weights,
        suite.task(task).degrade,
        suite.task(task).border,
        (images.name, images.folder, images.split, images.gray, images.names, images.examples),
        "" if images.crop is None else images.crop.__qualname__,
        suite.protocol,
        sorted((name, value) for name, value in settings.items() if name not in _PLACES),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _read(unit: Unit, folder: Path) -> list[Score] | None:
    """The scores of a finished unit; None if it has to be run."""
    try:
        content = json.loads(unit.record(folder).read_text())
        if content["key"] == unit.key and content["first"] == unit.first and content["last"] == unit.last:
            return [Score(**score) for score in content["scores"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def run(
    plan: Plan, *, jobs: int = 1, threads: int | None = None, watch: Callable[[Unit], None] | None = None
) -> list[Failure]:
    """Run what is not finished yet; every finished unit is on disk at once.

    Args:
        plan: Result of :func:`plan`.
        jobs: Processes that work at the same time; 1 stays in this one.
        threads: Threads of each process; None divides the processors among them.
        watch: Called after each unit, also for those that were finished before.

    Returns:
        Units whose method raised; they are tried again by the next run.
    """
    todo = []
    for unit in plan.units:
        if _read(unit, plan.folder) is None:
            todo.append(unit)
        elif watch is not None:
            watch(unit)
    if not todo:
        return []
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    failures = []
    for unit, error in _outcomes(plan, todo, jobs, threads):
        if error:
            failures.append(Failure(unit, error))
        if watch is not None:
            watch(unit)
    return failures


def _outcomes(plan: Plan, todo: Sequence[Unit], jobs: int, threads: int) -> Iterator[tuple[Unit, str]]:
    if jobs == 1:
        before = torch.get_num_threads()
        _begin(plan.data, threads)
        try:
            for unit in todo:
                yield unit, _work(unit, plan.folder, plan.data)
        finally:
            torch.set_num_threads(before)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(plan.data, threads, os.getpid()),
    )
    try:
        futures = {pool.submit(_work, unit, plan.folder, plan.data): unit for unit in todo}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(data: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    set_data_folder(data)


def _begin_worker(data: Path, threads: int, parent: int) -> None:
    _begin(data, threads)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this process soon after its parent was killed; otherwise it would go on with what is queued."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(unit: Unit, folder: Path, data: Path) -> str:
    """Run one unit and record it; returns the error as a line, or nothing."""
    suite = SUITES[unit.suite]
    images = next(images for images in suite.images if images.name == unit.images)
    files = _images.find(dataclasses.replace(images, first=None), data)[unit.first : unit.last]
    clean, problem = _problem(suite.name, images, unit.task, unit.first, unit.last, data)
    try:
        _reset_peak()
        before, started = _peak(), time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            estimate = METHODS[unit.method].run(problem, **unit.settings)
        seconds = (time.perf_counter() - started) / len(clean)
        memory = max(0.0, _peak() - before)
        if estimate.shape != clean.shape:
            return f"{unit.method} returned {tuple(estimate.shape)} instead of {tuple(clean.shape)}"
        scored = score(suite.protocol, suite.task(unit.task).border, estimate, clean)
    except Exception as error:  # Methods of other libraries raise anything; the other rows go on.
        return f"{type(error).__name__}: {error}"

    def rounded(name: str, k: int) -> float:
        values = scored[name]
        return float("nan") if values is None else round(float(values[k]), 5)

    scores = [
        Score(
            method=unit.method,
            images=unit.images,
            task=unit.task,
            index=unit.first + k,
            image=_images.name_of(file),
            psnr=rounded("psnr", k),
            ssim=rounded("ssim", k),
            lpips=None if scored["lpips"] is None else rounded("lpips", k),
            seconds=round(seconds, 4),
            memory=round(memory, 1),
        )
        for k, file in enumerate(files)
    ]
    for k in range(len(files)):
        if unit.first + k < PICTURES:
            shown = {"truth": clean, "measured": problem.view, unit.method: estimate}
            for name, x in shown.items():
                path = _picture(folder, unit, unit.first + k, name)
                io.write_bytes(path, io.encode(x[k].clamp(0, 1), ".png"), force=True)
    content = {
        "key": unit.key,
        "first": unit.first,
        "last": unit.last,
        "scores": [dataclasses.asdict(score) for score in scores],
    }
    record = unit.record(folder)
    record.parent.mkdir(parents=True, exist_ok=True)
    io.write_bytes(record, json.dumps(content, indent=1).encode(), force=True)
    return ""


@functools.lru_cache(maxsize=2)
def _problem(
    name: str, images: ImageSet, task: str, first: int, last: int, data: Path
) -> tuple[Tensor, Problem]:
    files = _images.find(dataclasses.replace(images, first=None), data)[first:last]
    suite = SUITES[name]
    clean = torch.cat([_images.load(images, file) for file in files])
    seeds = [0 if suite.protocol.seed == "zero" else index for index in range(first, last)]
    return clean, suite.task(task).degrade(clean, seeds)


def score(protocol: Protocol, border: int, estimate: Tensor, clean: Tensor) -> dict[str, Tensor | None]:
    """Scores of each image by a protocol, (B,): psnr, ssim, and lpips or None."""
    if protocol.round8:
        estimate = metrics.quantize(estimate)
    distance = None
    if clean.shape[1] == 3 and min(clean.shape[-2:]) >= 32 and _has_lpips():
        distance = metrics.lpips(estimate.clamp(0, 1), clean)
    if protocol.luma and clean.shape[1] == 3:
        estimate, clean = metrics.rgb_to_y(estimate), metrics.rgb_to_y(clean)
    if border:
        estimate, clean = metrics.crop(estimate, border), metrics.crop(clean, border)
    return {"psnr": metrics.psnr(estimate, clean), "ssim": metrics.ssim(estimate, clean), "lpips": distance}


@functools.lru_cache(maxsize=1)
def _has_lpips() -> bool:
    try:
        metrics.lpips(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    except WeightsError:
        return False
    return True


def _picture(folder: Path, unit: Unit, index: int, name: str) -> Path:
    path = folder / "pictures" / unit.images / unit.task / f"{index:05d}-{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _reset_peak() -> None:
    """Forget the largest memory so far, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> float:
    """Largest memory of this process in MiB."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) / 1024
    except OSError:
        pass
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def collect(plan: Plan) -> Results:
    """Gather what the finished units of a plan recorded."""
    suite = plan.suite
    scores: list[Score] = []
    for unit in plan.units:
        scores += _read(unit, plan.folder) or []
    wanted = {(unit.images, unit.task) for unit in plan.units}
    methods = {method.name for method, _ in plan.rows} | {"truth", "measured"}
    pictures = []
    for path in (plan.folder / "pictures").glob("*/*/*.png"):
        index, _, name = path.stem.partition("-")
        place = path.parts[-3], path.parts[-2]
        if place in wanted and name in methods:
            pictures.append(Picture(*place, int(index), name, path))
    infos = [
        MethodInfo(method.name, method.label, method.group, method.reference, _public(settings))
        for method, settings in plan.rows
    ]
    infos += [
        MethodInfo(name, METHODS[name].label if name in METHODS else name, "", "", {}, reason)
        for name, reason in plan.left_out.items()
    ]
    used = {unit.task for unit in plan.units}
    tasks = [task for task in suite.tasks if task.name in used]
    return Results(
        suite=suite.name,
        title=suite.title,
        summary=suite.summary,
        protocol=suite.protocol.words,
        notes=suite.notes,
        tuning=tuning_words(suite.name),
        image_sets={images.name: images.label for images in suite.images},
        tasks={task.name: task.label for task in tasks},
        curves={task.name: (task.curve, task.level) for task in tasks if task.curve},
        axis=suite.axis,
        methods=tuple(infos),
        published=dict(suite.published),
        scores=tuple(sorted(scores)),
        pictures=tuple(sorted(pictures)),
        environment=environment(),
    )


def _public(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        task: {name: value for name, value in arguments.items() if name not in _PLACES}
        for task, arguments in settings.items()
    }
