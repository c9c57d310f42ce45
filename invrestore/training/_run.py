"""From a recipe and a folder of images to weights with a card."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from invrestore import networks
from invrestore.data import ImageFile, PackSummary, describe_pack, find_images, pack
from invrestore.errors import CapabilityError, TrainingError
from invrestore.io import save_image
from invrestore.networks import Card
from invrestore.networks._blocks import ResidualBlock
from invrestore.training._denoiser import DenoiserTask
from invrestore.training._gan import GanTask
from invrestore.training._high_level import HighLevelTask
from invrestore.training._high_level_recipe import HighLevelRecipe, JointRecipe
from invrestore.training._joint import JointTask
from invrestore.training._loop import Outcome, fit, make_fabric
from invrestore.training._recipe import DenoiserRecipe, GanRecipe, Recipe, Source
from invrestore.training._restorer_recipe import RestorerRecipe
from invrestore.training._restorers import RestorerTask
from invrestore.training._task import RecipeTask

__all__ = ["Trained", "prepare", "train"]

_TRAIN, _TEST = "train-images.safetensors", "test-images.safetensors"
_TASKS: dict[type[Recipe], type[RecipeTask]] = {
    DenoiserRecipe: DenoiserTask,
    GanRecipe: GanTask,
    HighLevelRecipe: HighLevelTask,
    JointRecipe: JointTask,
    RestorerRecipe: RestorerTask,
}


@dataclass(frozen=True)
class Trained:
    """What a training left behind.

    Attributes:
        outcome: Networks, steps and time.
        weights: Exported file, with its card beside it; None while the schedule has not ended.
        card: The card; None while the schedule has not ended.
        sheet: Sample sheet, or None when there are no test images or the schedule has not ended.
    """

    outcome: Outcome
    weights: Path | None
    card: Card | None
    sheet: Path | None


def prepare(recipe: Recipe, data: str | Path, out: str | Path) -> PackSummary | None:
    """Pack the images of a recipe into a folder that can travel to another machine.

    The images of the recipe's test folder, or the "test" images of the data folder if that is where the
    training images come from, are packed apart and never trained on.

    Args:
        recipe: Names the folders to take and how images are reduced.
        data: Data folder, or a folder made by an earlier call, whose packs are then used as they are.
        out: Folder that receives `train-images.safetensors` and, if there are images for testing,
            `test-images.safetensors`.

    Returns:
        What was packed; None when packs were there already.

    Raises:
        TrainingError: There is nothing to train on.
        ImageFileError: The data folder does not exist or cannot be read.
    """
    data, out = Path(data), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / _TRAIN).exists():
        return None
    if (data / _TRAIN).exists():
        for name in (_TRAIN, _TEST):
            if (data / name).exists():
                (out / name).write_bytes((data / name).read_bytes())
        return None
    held_out: list[ImageFile] = []
    if recipe.test_folder and (data / recipe.test_folder).exists():
        held_out = find_images(data / recipe.test_folder, recipe.test_split)
    present = [source for source in recipe.sources if (data / source.folder).exists()]
    images: list[ImageFile] = []
    for source in present:
        images += find_images(data / source.folder, source.split)
    description = ", ".join((data / source.folder).resolve().name for source in present)
    if not images:
        images, description = find_images(data, "train"), data.resolve().name
        present = [Source(folder=".")]
    if not held_out and any(source.folder == "." for source in present):
        held_out = find_images(data, "test")
    if held_out:
        pack(held_out, out / _TEST, max_bytes=recipe.max_bytes, seed=recipe.seed, testing=True)
    measured = {(image.path.resolve(), image.member) for image in held_out}
    images = [image for image in images if (image.path.resolve(), image.member) not in measured]
    return pack(
        images,
        out / _TRAIN,
        max_side=recipe.max_side,
        max_bytes=recipe.max_bytes,
        seed=recipe.seed,
        description=description,
    )


def train(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    pause_minutes: float | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    high_level: nn.Module | None = None,
    say: Callable[[str], None] = print,
) -> Trained:
    """Train a recipe on a folder of images; when its schedule has ended, export weights, card and samples.

    Args:
        recipe: What to train, and for how long.
        data: Folder of images, or one made by :func:`prepare`.
        out: Run folder: packed images, checkpoints and log; then `NAME.safetensors`, `NAME.json`, `NAME.png`.
        resume: Go on from the newest checkpoint of the run folder, on this or another machine.
        pause_minutes: End this call after so many minutes with a checkpoint, before the schedule ends.
        accelerator: Lightning's name of the device kind; "auto" takes a GPU if there is one.
        devices: Number of devices.
        high_level: Network behind the denoiser of a :class:`JointRecipe`, from images (B, 3, H, W) in [0, 1] to
            logits, instead of the one that the recipe names. It is copied and stays as it is.
        say: Receives lines of progress.

    Raises:
        TrainingError: See :func:`prepare` and :func:`fit`.
        ImageFileError: The data folder does not exist or cannot be read.
        CapabilityError: There is no task for this kind of recipe.
    """
    kind = _TASKS.get(type(recipe))
    if kind is None:
        names = " or ".join(sorted(known.__name__ for known in _TASKS))
        raise CapabilityError("training.train", expected=f"a {names}", found=type(recipe).__name__)
    if high_level is not None and not isinstance(recipe, JointRecipe):
        raise CapabilityError(
            "training.train", expected="a JointRecipe for a high-level network", found=type(recipe).__name__
        )
    if high_level is not None:
        # The card and the run folder name what was behind the denoiser.
        recipe = recipe.model_copy(update={"high_level": type(high_level).__name__})
    out = Path(out)
    fabric = make_fabric(recipe, accelerator, devices)
    if fabric.is_global_zero:
        summary = prepare(recipe, data, out)
        if summary is not None:
            say(_packed(summary))
    fabric.barrier()
    torch.manual_seed(recipe.seed)
    network = networks.build(_card(recipe))
    if recipe.start:
        _start_from(network, recipe.start)
    test = out / _TEST
    held_out = test if test.exists() else None
    task: RecipeTask
    if high_level is not None:
        task = JointTask.create(network, recipe, out / _TRAIN, held_out, fabric.device, high_level)
    else:
        task = kind.create(network, recipe, out / _TRAIN, held_out, fabric.device)
    outcome = fit(task, recipe, out, fabric=fabric, resume=resume, pause_minutes=pause_minutes, say=say)
    if not outcome.finished or not fabric.is_global_zero:
        return Trained(outcome, None, None, None)
    return _export(task, recipe, outcome, out, str(fabric.device), say)


def _packed(summary: PackSummary) -> str:
    """One line on what was packed, and what not."""
    left_out = [f"{count} of {name}" for name, count in summary.refused.items()]
    if summary.unreadable:
        left_out.append(f"{len(summary.unreadable)} unreadable")
    if summary.beyond:
        left_out.append(f"{summary.beyond} for which there is no room (max_bytes of the recipe, --max-mb)")
    return f"packed {summary.images} images, {summary.size / 1e6:.1f} MB; left out: {', '.join(left_out) or 'none'}"


def _load(start: str) -> nn.Module:
    """Weights of the catalogue or of a file."""
    return networks.load_file(start) if start.endswith(".safetensors") else networks.load(start)


def _start_from(network: nn.Module, start: str) -> None:
    given = _load(start).state_dict()
    # A residual block is the identity until it is trained: a network with more of them begins as the given one.
    own = network.state_dict()
    for name, module in network.named_modules():
        keys = [f"{name}.{key}" for key in module.state_dict()]
        if isinstance(module, ResidualBlock) and not any(key in given for key in keys):
            given |= {key: own[key] for key in keys}
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        raise TrainingError(
            "training.train",
            expected="weights of the architecture that the recipe names, to start from",
            found=f"others in {Path(start).name}",
            remedy="Start from weights that the same recipe made, or from none.",
        ) from error


def _card(recipe: Recipe, data: str = "", training: str = "", protocol: str = "", remark: str = "") -> Card:
    size = {"size": recipe.size} if isinstance(recipe, GanRecipe) else {}
    begun = f", begun from the weights of {Path(recipe.start).name}" if recipe.start else ""
    if isinstance(recipe, JointRecipe):
        begun += f"; lam {recipe.lam:g} with {recipe.high_level}" if recipe.lam else "; lam 0"
    return Card(
        name=recipe.checkpoint or recipe.name,
        architecture=recipe.architecture,
        arguments=size | recipe.arguments,
        sha256="",
        channels=recipe.arguments.get("channels", 3),
        sigma_range=_levels(recipe),
        parameters=0,
        data=f"{data}, reserved test images left out",
        licence=recipe.licence,
        metrics={"protocol": protocol} if protocol else {},
        training="; ".join(part for part in (training + begun, remark) if part),
        recipe=recipe.name,
        commit=_commit(),
        reference=recipe.reference,
        degradations=_degradations(recipe),
        maps=isinstance(recipe, DenoiserRecipe) and recipe.maps > 0,
    )


def _levels(recipe: Recipe) -> tuple[float, float] | None:
    """Noise levels seen in training, also that of the weights a training began from."""
    if isinstance(recipe, DenoiserRecipe):
        return recipe.sigma
    if not isinstance(recipe, JointRecipe):
        return None
    seen = list(recipe.sigmas)
    if recipe.start:
        seen += getattr(_load(recipe.start), "sigma_range", None) or ()
    return min(seen), max(seen)


def _degradations(recipe: Recipe) -> tuple[dict[str, Any], ...]:
    if not isinstance(recipe, RestorerRecipe):
        return ()
    return tuple(d.model_dump(mode="json", exclude={"weight"}) for d in recipe.degradations)


def _export(
    task: RecipeTask,
    recipe: Recipe,
    outcome: Outcome,
    out: Path,
    device: str,
    say: Callable[[str], None],
) -> Trained:
    path = out / f"{recipe.checkpoint or recipe.name}.safetensors"
    effort = f"{outcome.step} steps in {outcome.seconds / 60:.0f} minutes on {_machine(device)}"
    details = _card(recipe, describe_pack(out / _TRAIN), effort, task.protocol, task.remark)
    networks.save(task.join(outcome.players), path, details)
    # What is scored is what users will load: the weights after rounding to half precision.
    shipped = networks.load_file(path)
    scores = task.evaluate(task.split(shipped))
    card = networks.save(shipped, path, replace(details, metrics={**details.metrics, **scores}))
    for name, value in scores.items():
        say(f"{name} {value:.4g}")
    sheet = None
    samples = task.samples(task.split(shipped))
    if samples is not None:
        sheet = path.with_suffix(".png")
        save_image(samples, sheet, force=True)
    return Trained(outcome, path, card, sheet)


def _machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} thread(s) of a {platform.machine()} processor"


def _commit() -> str:
    """Revision of the source tree, or the word "release" for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "release"
    command = ["git", "-C", os.fspath(root), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "release"
