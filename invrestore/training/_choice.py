"""Recipes by name or from a file, and recipes made from others."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from invrestore.errors import TrainingError, UnknownNameError
from invrestore.networks import FaceGAN
from invrestore.networks._latent import check_size
from invrestore.training._high_level_recipe import HighLevelRecipe, JointRecipe
from invrestore.training._recipe import DenoiserRecipe, GanRecipe, Recipe
from invrestore.training._recipes import RECIPES
from invrestore.training._restorer_recipe import RestorerRecipe

__all__ = ["adjust", "load_recipe", "resize"]

_KINDS: dict[str, type[Recipe]] = {
    "denoiser": DenoiserRecipe,
    "gan": GanRecipe,
    "high-level": HighLevelRecipe,
    "joint": JointRecipe,
    "restorer": RestorerRecipe,
}


def load_recipe(name: str) -> Recipe:
    """Return a recipe by name, or read one from a JSON file such as the `recipe.json` of a run.

    Args:
        name: Key of :data:`RECIPES`, or a path that ends in `.json`.

    Raises:
        UnknownNameError: There is no such recipe; the nearest names are suggested.
        TrainingError: The file is missing or does not describe a recipe.
    """
    if not name.endswith(".json"):
        if name not in RECIPES:
            raise UnknownNameError.suggest("load_recipe", "recipe", name, RECIPES)
        return RECIPES[name]
    try:
        content = json.loads(Path(name).read_text())
        return _KINDS[content["kind"]].model_validate(content)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise TrainingError(
            "load_recipe",
            expected=f"a recipe in {Path(name).name}",
            found=f"{type(error).__name__}: {error}",
            remedy="The recipe.json of any run folder is a valid example.",
        ) from error


def adjust(recipe: Recipe, **changes: Any) -> Recipe:
    """Return a recipe with some fields changed and checked again.

    Giving `steps` without `minutes`, or the reverse, replaces the whole schedule: only the given one ends it.

    Raises:
        TrainingError: A field is unknown or its value is refused.
    """
    if ("steps" in changes) != ("minutes" in changes):
        changes = {"steps": None, "minutes": None} | changes
    try:
        return type(recipe).model_validate(recipe.model_dump() | changes)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise TrainingError("adjust", expected="valid fields of a recipe", found=found) from error


def resize(recipe: Recipe, size: int) -> Recipe:
    """Return the recipe of a generator for images of another side, under a name of its own.

    A FaceGAN has one width for each scale: larger images get scales of half the first width, 16 at least, and smaller
    ones lose the first. 64 in the names becomes the new side.

    Args:
        recipe: Recipe of a generator with weights of its own, not begun from others.
        size: Side in pixels, a power of 2, 8 at least.

    Raises:
        TrainingError: The recipe is not that of a generator, or it begins from weights of another size.
        RangeError: The size is not a power of 2.
    """
    if not isinstance(recipe, GanRecipe):
        raise TrainingError(
            "resize",
            expected="the recipe of a generator",
            found=f"{recipe.name!r}, another kind",
            remedy="Networks that restore and denoise take images of any size.",
        )
    if recipe.start and any(stage.patch != size for stage in recipe.stages):
        raise TrainingError(
            "resize",
            expected="a recipe that begins from random weights",
            found=f"{recipe.name!r}, which begins from {recipe.start}",
            remedy="Take faces64, faces64-cpu or dcgan64.",
        )
    check_size("resize", size)
    arguments = dict(recipe.arguments)
    if recipe.architecture == "FaceGAN":
        defaults = inspect.signature(FaceGAN).parameters
        for part in ("generator_widths", "encoder_widths", "discriminator_widths"):
            arguments[part] = _fitting(arguments.get(part, defaults[part].default), size)
    return adjust(
        recipe,
        name=recipe.name.replace("64", str(size)),
        checkpoint=recipe.checkpoint.replace("64", str(size)),
        arguments=arguments,
        stages=[stage.model_dump() | {"patch": size} for stage in recipe.stages],
    )


def _fitting(widths: Sequence[int], size: int) -> list[int]:
    """One width for each scale from half of the side to 4 pixels."""
    fitting, scales = list(widths), size.bit_length() - 3
    while len(fitting) < scales:
        fitting.insert(0, max(16, fitting[0] // 2))
    return fitting[len(fitting) - scales :]
