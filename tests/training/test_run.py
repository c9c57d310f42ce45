"""From a folder of pictures to a loadable network, by the library and by the command line."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invrestore import networks
from invrestore.cli.train import _of_task
from invrestore.cli.train import train as command
from invrestore.data import describe_pack
from invrestore.errors import CapabilityError, ImageFileError, TrainingError
from invrestore.training import (
    RECIPES,
    DenoiserRecipe,
    Optimizer,
    Recipe,
    Source,
    Stage,
    load_checkpoint,
    prepare,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")

RECIPE = DenoiserRecipe(
    name="tiny-cpu",
    checkpoint="tiny",
    arguments={"channels": 3, "widths": [8, 16], "blocks": 1},
    stages=(Stage(patch=16, batch=2),),
    optimizer=Optimizer(kind="adamw"),
    steps=4,
    precision="32",
    log_every=2,
    test_folder="held-out",
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "held-out").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png", "held-out/c.png"):
        Image.fromarray(random.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(root / name)
    return root


def quiet(line: str) -> None:
    pass


def test_training_leaves_weights_card_log_and_sample_sheet(photos: Path, tmp_path: Path) -> None:
    result = train(RECIPE, photos, tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.weights == tmp_path / "run" / "tiny.safetensors"
    assert result.card is not None
    assert result.card.name == "tiny"
    assert result.card.data == "2 images of photos, reserved test images left out"
    assert result.card.sigma_range == (0.0, 75 / 255)
    assert {"protocol", "psnr_15", "psnr_25", "psnr_50"} == set(result.card.metrics)
    assert result.card.training.startswith("4 steps in ")
    assert result.sheet is not None
    with Image.open(result.sheet) as sheet:
        assert sheet.size == (3 * 192, 3 * 192)
    network = networks.load_file(result.weights)
    assert network(torch.rand(1, 3, 8, 8), 0.1).shape == (1, 3, 8, 8)
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2


def test_deeper_network_begins_as_the_shallower_one_it_is_given(photos: Path, tmp_path: Path) -> None:
    first = train(RECIPE, photos, tmp_path / "first", accelerator="cpu", say=quiet)
    settings = {"start": str(first.weights), "optimizer": Optimizer(kind="adamw", lr=1e-12), "steps": 1}
    deeper = RECIPE.model_copy(update=settings | {"arguments": RECIPE.arguments | {"blocks": [3, 2]}})
    second = train(deeper, photos, tmp_path / "second", accelerator="cpu", say=quiet)
    assert first.weights is not None
    assert second.weights is not None
    before, after = (networks.load_file(path) for path in (first.weights, second.weights))
    assert len(list(after.parameters())) > len(list(before.parameters()))
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(after(x, 0.1), before(x, 0.1), atol=1e-6, rtol=0)

    wider = deeper.model_copy(update={"arguments": RECIPE.arguments | {"widths": [8, 24]}})
    with pytest.raises(TrainingError, match="architecture that the recipe names"):
        train(wider, photos, tmp_path / "third", accelerator="cpu", say=quiet)


def test_paused_training_exports_nothing_until_it_is_resumed(photos: Path, tmp_path: Path) -> None:
    paused = train(RECIPE, photos, tmp_path / "run", accelerator="cpu", pause_minutes=0.0, say=quiet)
    assert (paused.weights, paused.card, paused.sheet) == (None, None, None)
    resumed = train(RECIPE, photos, tmp_path / "run", accelerator="cpu", resume=True, say=quiet)
    assert resumed.weights is not None
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").step == 4


def test_prepared_folder_trains_elsewhere(photos: Path, tmp_path: Path) -> None:
    summary = prepare(RECIPE, photos, tmp_path / "travels")
    assert summary is not None
    assert summary.images == 2
    assert sorted(p.name for p in (tmp_path / "travels").iterdir()) == [
        "test-images.safetensors",
        "train-images.safetensors",
    ]
    assert prepare(RECIPE, photos, tmp_path / "travels") is None
    result = train(RECIPE, tmp_path / "travels", tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.card is not None
    assert "psnr_25" in result.card.metrics


def test_named_sources_are_taken_where_they_exist(photos: Path, tmp_path: Path) -> None:
    sources = (Source(folder="held-out"), Source(folder="absent"))
    recipe = RECIPE.model_copy(update={"sources": sources, "test_folder": "none"})
    summary = prepare(recipe, photos, tmp_path / "packs")
    assert summary is not None
    assert summary.images == 1
    assert describe_pack(tmp_path / "packs" / "train-images.safetensors") == "1 images of held-out"


def test_compiled_bfloat16_training_runs(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    recipe = RECIPE.model_copy(update={"precision": "bf16", "compile": True})
    assert train(recipe, photos, tmp_path / "run", accelerator="cpu", say=quiet).weights is not None
    assert len(compiled) == 1


def test_missing_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="an existing folder"):
        train(RECIPE, tmp_path / "nowhere", tmp_path / "run", accelerator="cpu", say=quiet)


def test_recipe_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = Recipe(name="x", stages=(Stage(patch=8, batch=1),), steps=1)
    with pytest.raises(CapabilityError, match=r"a DenoiserRecipe.*, got Recipe"):
        train(other, tmp_path, tmp_path / "run")


def test_architecture_that_does_not_denoise_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(networks.ARCHITECTURES, "Linear", torch.nn.Linear)
    recipe = RECIPE.model_copy(
        update={"architecture": "Linear", "arguments": {"in_features": 1, "out_features": 1}}
    )
    with pytest.raises(TrainingError, match="a denoiser architecture, got Linear"):
        train(recipe, photos, tmp_path / "run", accelerator="cpu", say=quiet)


def test_command_trains_a_recipe_file(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.json").write_text(RECIPE.model_dump_json())
    command(str(tmp_path / "mine.json"), data=photos, out=tmp_path / "run", steps=2, accelerator="cpu")
    output = capsys.readouterr().out
    assert "tiny.safetensors after 2 steps" in output
    assert "psnr_25" in output
    assert (tmp_path / "run" / "tiny.safetensors").is_file()
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["steps"] == 2


def test_command_says_how_to_go_on_after_a_pause(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.json").write_text(RECIPE.model_dump_json())
    options = {"data": photos, "out": tmp_path / "run", "accelerator": "cpu"}
    command(str(tmp_path / "mine.json"), **options, pause=0.0)
    assert "paused at step 0; go on with --resume" in capsys.readouterr().out
    command(str(tmp_path / "mine.json"), **options, resume=True)
    assert "after 4 steps" in capsys.readouterr().out


def test_command_prepares_lists_and_keeps_quiet(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("denoiser-cpu", data=photos, out=tmp_path / "packs", prepare=True)
    command("denoiser-cpu", data=photos, out=tmp_path / "packs", prepare=True)
    assert "packed 3 images" in capsys.readouterr().out
    command("list")
    assert "denoiser-cpu" in capsys.readouterr().out.splitlines()
    command("denoiser-cpu", data=photos, out=tmp_path / "more", prepare=True, quiet=True)
    assert capsys.readouterr().out == ""


def test_command_takes_as_many_images_as_there_is_room_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    largest = max(path.stat().st_size for path in photos.rglob("*.png"))
    (tmp_path / "mine.json").write_text(RECIPE.model_dump_json())
    options = {"data": photos, "out": tmp_path / "run", "accelerator": "cpu"}
    command(str(tmp_path / "mine.json"), **options, max_mb=1.2 * largest / 1e6, max_side=300)
    assert "1 for which there is no room (max_bytes of the recipe, --max-mb)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("xgan", None), "xgan-sparse"),
        (("xgan", "block"), "xgan-block"),
        (("joint", "segmentation"), "joint-segmentation"),
        (("cascade", None), "cascade"),
    ],
)
def test_families_of_recipes_are_told_apart_by_their_task(words: tuple[str, str | None], name: str) -> None:
    assert _of_task(*words) == name
    assert name in RECIPES


def test_command_without_data_says_what_to_give() -> None:
    with pytest.raises(TrainingError, match="INVRESTORE_DATA"):
        command("denoiser-cpu")


def test_command_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("invrestore.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("invrestore.training", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(CapabilityError, match=r"pip install 'invrestore\[train\]'"):
        command("denoiser-cpu")


def test_command_module_imports_without_torch() -> None:
    path = importlib.util.find_spec("invrestore.cli.train")
    assert path is not None
    code = (
        "import sys, invrestore.cli.train; assert not {'torch', 'lightning', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
