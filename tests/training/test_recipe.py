import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from invrestore import networks, training
from invrestore.errors import TrainingError, UnknownNameError
from invrestore.training import RECIPES, DenoiserRecipe, Stage, adjust, load_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_own_json(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(RECIPES[name].model_dump_json())
    assert load_recipe(str(tmp_path / "recipe.json")) == RECIPES[name]
    assert load_recipe(name) is RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_an_architecture_and_a_schedule(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.architecture in networks.ARCHITECTURES
    assert recipe.minutes
    assert recipe.licence


def test_recipes_of_one_network_share_its_checkpoint() -> None:
    assert RECIPES["denoiser"].checkpoint == RECIPES["denoiser-cpu"].checkpoint == "denoiser"


def test_stage_follows_progress() -> None:
    stages = (Stage(until=0.5, patch=8, batch=4), Stage(patch=16, batch=2))
    recipe = DenoiserRecipe(name="x", stages=stages, steps=10)
    assert recipe.stage(0.0).patch == recipe.stage(0.49).patch == 8
    assert recipe.stage(0.5).patch == recipe.stage(1.0).patch == 16


def test_adjusting_the_schedule_replaces_it() -> None:
    recipe = adjust(RECIPES["denoiser"], steps=5)
    assert (recipe.steps, recipe.minutes) == (5, None)
    recipe = adjust(recipe, minutes=2.0)
    assert (recipe.steps, recipe.minutes) == (None, 2.0)
    assert adjust(recipe, seed=3).seed == 3


def test_adjusting_an_unknown_field_is_refused() -> None:
    with pytest.raises(TrainingError, match="minuets: Extra inputs"):
        adjust(RECIPES["denoiser"], minuets=2)


def test_misspelt_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        training.Optimizer.model_validate({"learning_rate": 1e-3})


def test_recipe_without_an_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs steps or minutes"):
        DenoiserRecipe(name="x", stages=(Stage(patch=8, batch=4),))


@pytest.mark.parametrize("ends", [(), (0.5,), (1.0, 0.5), (0.5, 0.5, 1.0)])
def test_stages_that_do_not_reach_the_end_in_order_are_refused(ends: tuple[float, ...]) -> None:
    stages = tuple(Stage(until=end, patch=8, batch=4) for end in ends)
    with pytest.raises(ValidationError, match="stages must end"):
        DenoiserRecipe(name="x", stages=stages, steps=1)


def test_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'denoiser'"):
        load_recipe("denoizer")


@pytest.mark.parametrize(
    "content", [None, "no json", "[]", '{"kind": "cook"}', '{"kind": "denoiser", "name": 1}']
)
def test_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TrainingError, match=r"a recipe in mine\.json"):
        load_recipe(str(path))


def test_recipe_json_is_plain_data() -> None:
    content = json.loads(RECIPES["denoiser"].model_dump_json())
    assert content["optimizer"]["kind"] == "muon"
