"""``invrestore train``: from a recipe and a folder of images to weights with a card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invrestore.cli._options import Debug, Quiet
from invrestore.errors import CapabilityError, TrainingError

if TYPE_CHECKING:
    from invrestore.training import Recipe

__all__ = ["train"]

_TASKS = {"joint": ("classification", "segmentation"), "xgan": ("sparse", "colornoise", "block")}
"""What there is a recipe for, by family."""


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name of a recipe, a recipe.json, or 'list' to print the names.", metavar="RECIPE"
        ),
    ],
    more: Annotated[list[float] | None, typer.Argument(hidden=True)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images, or one made with --prepare; default: $INVRESTORE_DATA.",
            envvar="INVRESTORE_DATA",
            show_envvar=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/RECIPE.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Length of the schedule in minutes of training.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the schedule in steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of a generator's images, a power of 2.", metavar="PIXELS")
    ] = None,
    max_side: Annotated[
        int | None, typer.Option(help="Reduce larger images to this side first.", metavar="PIXELS")
    ] = None,
    max_mb: Annotated[
        float | None,
        typer.Option(help="Take at most so many megabytes of image files, drawn at random; recipes say 60."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Begin from these weights: a catalogue name or a file.", metavar="NAME|FILE"
        ),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            help="Ablation of a cascade: pretraining leaves out all stages but the last.", metavar="PART"
        ),
    ] = None,
    gan_only: Annotated[
        bool, typer.Option("--gan-only", help="Ablation of a cascade: no second network.")
    ] = False,
    point_loss: Annotated[
        str | None, typer.Option(help="Ablation of an X-GAN: l2, l1 or none.", metavar="DISTANCE")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What 'joint' serves (classification, segmentation) or 'xgan' undoes (sparse, colornoise, block).",
            metavar="TASK",
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Noise levels of a joint training, in 8-bit units: --sigma 15 30 45 60.", metavar="LEVEL..."
        ),
    ] = None,
    lam: Annotated[
        float | None,
        typer.Option(
            help="Weight of the cross-entropy of a joint training; 0 trains without.", metavar="LAM"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")
    ] = False,
    pause: Annotated[
        float | None,
        typer.Option(help="End this call after so many minutes with a checkpoint.", metavar="MINUTES"),
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only pack the images into the run folder, for another machine.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[
        int, typer.Option(help="Number of devices; with torchrun, processes on this machine.")
    ] = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a network; afterwards the run folder holds its weights, card, log and a sample sheet."""
    try:
        from invrestore import training
    except ModuleNotFoundError as error:
        raise CapabilityError(
            "invrestore train",
            expected="the packages of the extra 'train'",
            found=f"no {error.name}",
            remedy="pip install 'invrestore[train]'",
        ) from error
    if recipe == "list":
        for name in training.RECIPES:
            print(name)
        return
    chosen = training.load_recipe(_of_task(recipe, task))
    changes = {"minutes": minutes, "steps": steps, "seed": seed, "start": start, "max_side": max_side}
    changes["max_bytes"] = None if max_mb is None else round(1e6 * max_mb)
    chosen = training.adjust(chosen, **{key: value for key, value in changes.items() if value is not None})
    if size is not None:
        chosen = training.resize(chosen, size)
    if without is not None or gan_only or point_loss is not None:
        chosen = _ablated(chosen, without, gan_only, point_loss)
    if sigma is not None or lam is not None or more:
        chosen = _weighted(chosen, sigma, more or [], lam)
    if data is None:
        raise TrainingError(
            "invrestore train",
            expected="a folder of images",
            found="none",
            remedy="Give --data DIR or set INVRESTORE_DATA.",
        )
    folder = out if out is not None else Path("runs") / chosen.name
    say = _silent if quiet else print
    if prepare:
        summary = training.prepare(chosen, data, folder)
        say(f"{folder}: packed already" if summary is None else f"{folder}: packed {summary.images} images")
        return
    result = training.train(
        chosen,
        data,
        folder,
        resume=resume,
        pause_minutes=pause,
        accelerator=accelerator,
        devices=devices,
        say=say,
    )
    if result.weights is not None:
        say(
            f"{result.weights} after {result.outcome.step} steps in {result.outcome.seconds / 60:.1f} minutes"
        )
    elif not result.outcome.finished:
        say(f"paused at step {result.outcome.step}; go on with --resume")


def _silent(line: str) -> None:
    """Drop a line of progress."""


def _of_task(recipe: str, task: str | None) -> str:
    """Name of a recipe: the member of a family for a task, that of sparse samples for the X-GAN alone."""
    from invrestore._checks import check_choice

    if recipe == "xgan" and task is None:
        return "xgan-sparse"
    if recipe in _TASKS and task is not None:
        check_choice("train --task", "task", task, _TASKS[recipe])
        return f"{recipe}-{task}"
    if task is not None:
        families = " or ".join(_TASKS)
        family = next((name for name, tasks in _TASKS.items() if task in tasks), "joint")
        raise TrainingError(
            "invrestore train",
            expected=f"{families} with --task",
            found=recipe,
            remedy=f"invrestore train {family} --task {task}",
        )
    return recipe


def _weighted(recipe: Recipe, sigma: float | None, more: list[float], lam: float | None) -> Recipe:
    """The joint recipe with other noise levels or another weight."""
    from invrestore import training

    if not isinstance(recipe, training.JointRecipe) or (more and sigma is None):
        raise TrainingError(
            "invrestore train",
            expected="a joint recipe for --sigma and --lam",
            found=recipe.name if sigma is not None or lam is not None else f"numbers {more} without --sigma",
            remedy="invrestore train joint --task classification --sigma 15 30 45 60 --lam 0.25",
        )
    changes: dict[str, object] = {} if lam is None else {"lam": lam}
    if sigma is not None:
        changes["sigmas"] = tuple(level / 255 for level in (sigma, *more))
    return training.adjust(recipe, **changes)


def _ablated(recipe: Recipe, without: str | None, gan_only: bool, point_loss: str | None) -> Recipe:
    from invrestore import training
    from invrestore._checks import check_choice

    if without is not None:
        check_choice("train --without", "part", without, ("pretraining",))
    if point_loss is not None:
        check_choice("train --point-loss", "distance", point_loss, ("l2", "l1", "none"))
    return training.ablate(recipe, without=without, gan_only=gan_only, point_loss=point_loss)  # type: ignore[arg-type]
