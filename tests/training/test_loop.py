"""The loop, on a toy task with two players that is quick enough to run whole."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from invrestore.errors import TrainingError
from invrestore.training import (
    Optimizer,
    Outcome,
    Recipe,
    Stage,
    Task,
    _recipe,
    fit,
    load_checkpoint,
    make_fabric,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")


class Duel(Task):
    """A generator matches noisy targets; a critic with batch normalisation learns from it, twice a step."""

    def __init__(self, breaks_at: int | None = None, factor: float = float("nan")) -> None:
        torch.manual_seed(0)
        self.players = {
            "critic": nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1)),
            "generator": nn.Linear(4, 4),
        }
        self.averaged = ("generator",)
        self.breaks_at, self.factor = breaks_at, factor
        self.calls = 0
        self.seen: list[int] = []

    def losses(
        self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        self.calls += 1
        self.seen.append(stage.batch)
        for _ in range(2):
            x = torch.randn(stage.batch, 4, generator=rng)
            yield "critic", (players["critic"](players["generator"](x).detach()) - 1).square().mean()
        x = torch.randn(stage.batch, 4, generator=rng)
        loss = (players["generator"](x) - 2 * x).square().mean() + 0.01 * players["critic"](
            players["generator"](x)
        ).mean()
        yield "generator", loss * (self.factor if self.calls == self.breaks_at else 1.0)

    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        return {}

    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        return None


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "name": "duel",
        "stages": (Stage(until=0.5, patch=1, batch=8), Stage(patch=1, batch=16)),
        "optimizer": Optimizer(kind="adamw", lr=0.05, warmup=2),
        "steps": 20,
        "ema": 0.9,
        "precision": "32",
        "log_every": 5,
    }
    return Recipe(**(settings | changes))


def run(folder: Path, task: Task | None = None, settings: Recipe | None = None, **options: Any) -> Outcome:
    settings = settings or recipe()
    fabric = make_fabric(settings, "cpu")
    return fit(task or Duel(), settings, folder, fabric=fabric, say=lambda line: None, **options)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Spike(Duel):
    """The same with a gradient a thousand times too long in step 10."""

    def losses(
        self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        for name, loss in super().losses(players, stage, rng):
            yield name, loss * (1000.0 if self.calls == 10 else 1.0)


@pytest.mark.parametrize(
    ("precision", "units", "expected"),
    [
        ("auto", True, "bf16-mixed"),
        ("auto", False, "32-true"),
        ("bf16", False, "bf16-mixed"),
        ("32", True, "32-true"),
    ],
)
def test_bfloat16_is_left_to_processors_that_have_units_for_it(
    precision: str, units: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recipe, "has_matrix_units", lambda device: units)
    settings = recipe(precision=precision)
    assert make_fabric(settings, "cpu")._precision.precision == expected
    assert settings.autocast(torch.device("cpu"))._enabled == (expected == "bf16-mixed")


def test_short_gradients_survive_an_odd_batch(tmp_path: Path) -> None:
    def weight(name: str, task: Task, clip_norm: float | None) -> Tensor:
        settings = recipe(optimizer=Optimizer(kind="adamw", lr=0.05, warmup=2, clip_norm=clip_norm), steps=12)
        run(tmp_path / name, task, settings)
        saved = load_checkpoint(tmp_path / name / "checkpoint.safetensors")
        return saved.tensors["network/generator/weight"]

    jolt = weight("jolted", Spike(), None) - weight("calm", Duel(), None)
    held = weight("jolted-short", Spike(), 1.0) - weight("calm-short", Duel(), 1.0)
    assert held.norm() < 0.2 * jolt.norm()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, kind: str) -> None:
    settings = recipe(optimizer=Optimizer(kind=kind, lr=0.05, warmup=2))
    whole = run(tmp_path / "whole", settings=settings)
    assert not run(tmp_path / "parts", settings=settings, pause_step=7).finished
    assert not run(tmp_path / "parts", settings=settings, pause_step=13, resume=True).finished
    parts = run(tmp_path / "parts", settings=settings, resume=True)
    assert whole.finished
    assert parts.finished
    first, second = (
        load_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")
    )
    assert first.step == second.step == 20
    assert first.tensors.keys() == second.tensors.keys()
    different = [name for name in first.tensors if not torch.equal(first.tensors[name], second.tensors[name])]
    assert different == []


def test_loss_falls(tmp_path: Path) -> None:
    run(tmp_path, settings=recipe(steps=100))
    lines = log(tmp_path)
    assert lines[-1]["loss_generator"] < 0.1 * lines[0]["loss_generator"]


def test_log_tells_progress_rate_and_work(tmp_path: Path) -> None:
    run(tmp_path)
    lines = log(tmp_path)
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert all(line["steps_per_second"] > 0 and line["tflops"] > 0 for line in lines)
    assert lines[0]["lr"] > lines[-1]["lr"]
    assert {"loss_critic", "loss_generator", "minutes", "progress"} <= lines[0].keys()


def test_stages_change_along_the_schedule(tmp_path: Path) -> None:
    task = Duel()
    run(tmp_path, task)
    # One extra call counts the operations when a stage begins.
    assert task.seen == [8] * 11 + [16] * 11


def test_rate_warms_up_and_falls_to_zero(tmp_path: Path) -> None:
    run(tmp_path, settings=recipe(log_every=1))
    rates = [line["lr"] for line in log(tmp_path)]
    assert rates[0] == pytest.approx(0.05 / 3)
    assert max(rates) == rates[2]
    assert rates[-1] < 0.01 * 0.05


def test_constant_rates_stay(tmp_path: Path) -> None:
    settings = Optimizer(kind="adamw", lr=0.05, warmup=2, schedule="constant")
    run(tmp_path, settings=recipe(optimizer=settings, log_every=1))
    assert {line["lr"] for line in log(tmp_path)[2:]} == {0.05}


def test_time_ends_the_schedule_too(tmp_path: Path) -> None:
    outcome = run(tmp_path, settings=recipe(steps=None, minutes=1 / 600))
    assert outcome.finished
    assert 0.1 <= outcome.seconds < 5
    again = run(tmp_path, settings=recipe(steps=None, minutes=1 / 600), resume=True)
    assert again.step == outcome.step


def test_pause_by_time_leaves_a_checkpoint(tmp_path: Path) -> None:
    outcome = run(tmp_path, settings=recipe(steps=10**6), pause_minutes=1 / 1200)
    assert not outcome.finished
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").step == outcome.step > 0


def test_averages_lag_behind_the_network(tmp_path: Path) -> None:
    run(tmp_path)
    tensors = load_checkpoint(tmp_path / "checkpoint.safetensors").tensors
    mean, last = tensors["average/generator/weight"], tensors["network/generator/weight"]
    assert not torch.equal(mean, last)
    assert (mean - last).abs().max() < 0.5
    assert not any(name.startswith("average/critic") for name in tensors)


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, pause_step=5)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"a finite loss of \w+, got nan by step 10\. The last good"):
        run(tmp_path, Duel(breaks_at=3), resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_loss_that_explodes_without_overflow_stops_as_well(tmp_path: Path) -> None:
    run(tmp_path, pause_step=5)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"a loss of generator up to .* by step 15\. The last good"):
        run(tmp_path, Duel(breaks_at=8, factor=1e9), resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    task = Duel()
    task.players["critic"][0].weight.data[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="finite weights of critic"):
        run(tmp_path, task, pause_step=0)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_run_folder_of_another_training_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path, pause_step=5)
    with pytest.raises(TrainingError, match=r"an empty run folder, got a run of 5 steps .*--resume"):
        run(tmp_path)


def test_resuming_an_empty_folder_starts_afresh(tmp_path: Path) -> None:
    assert run(tmp_path, resume=True).finished


def test_damaged_checkpoint_falls_back_to_the_previous_one_and_says_so(tmp_path: Path) -> None:
    run(tmp_path, pause_step=5)
    run(tmp_path, pause_step=10, resume=True)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    lines: list[str] = []
    settings = recipe()
    fit(Duel(), settings, tmp_path, fabric=make_fabric(settings, "cpu"), resume=True, say=lines.append)
    assert "previous checkpoint was used" in lines[0]
    assert "resumed at step 5" in lines[1]


def test_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    run(tmp_path, pause_step=5)
    task = Duel()
    task.players["generator"] = nn.Linear(4, 4, bias=False)
    with pytest.raises(TrainingError, match="a checkpoint of the same generator"):
        run(tmp_path, task, resume=True)


def test_seeds_change_the_result(tmp_path: Path) -> None:
    results = [run(tmp_path / str(seed), settings=recipe(seed=seed)) for seed in (0, 1)]
    first, second = (outcome.players["generator"].weight for outcome in results)
    assert not torch.equal(first, second)


def test_resolved_recipe_lies_beside_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, pause_step=1)
    assert Recipe.model_validate_json((tmp_path / "recipe.json").read_text()) == recipe()


class Shown(Duel):
    """The same with a score and a sheet, which take a while."""

    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        time.sleep(0.2)
        return {"size": float(players["generator"].weight.norm())} if few else {}

    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        return torch.full((3, 4, 5), 0.5)


def test_networks_are_looked_at_while_they_train(tmp_path: Path) -> None:
    outcome = run(tmp_path / "shown", Shown(), recipe(show_minutes=1e-9))
    lines = [line for line in log(tmp_path / "shown") if "few_size" in line]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert len({line["few_size"] for line in lines}) == 4
    with Image.open(tmp_path / "shown" / "samples-10.png") as sheet:
        assert sheet.size == (5, 4)
    # Looking takes no time off the training, and changes nothing of it.
    assert outcome.seconds < 0.6
    unseen = run(tmp_path / "unseen", Shown(), recipe(show_minutes=None))
    assert not list((tmp_path / "unseen").glob("samples*"))
    assert torch.equal(outcome.players["generator"].weight, unseen.players["generator"].weight)


def test_several_processes_end_at_the_step_of_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(steps=13)
    fabric = make_fabric(settings, "cpu")
    # One process that takes itself for one of two: the clock is read every ten steps only.
    monkeypatch.setattr(type(fabric), "world_size", property(lambda self: 2))
    task = Duel()
    outcome = fit(task, settings, tmp_path, fabric=fabric, say=lambda line: None)
    assert outcome.step == 13
    assert task.seen[1:].count(8) == 7
