"""What training hands over and exports is the exponential moving average of the weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invrestore import networks
from invrestore.training import DenoiserRecipe, Optimizer, Stage, load_checkpoint, train
from tests.training.test_loop import Duel, recipe, run

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")


def saved(folder: Path) -> Mapping[str, Tensor]:
    return load_checkpoint(folder / "checkpoint.safetensors").tensors


def test_training_hands_over_the_averages(tmp_path: Path) -> None:
    weight = run(tmp_path).players["generator"].weight
    assert torch.equal(weight, saved(tmp_path)["average/generator/weight"])
    assert not torch.equal(weight, saved(tmp_path)["network/generator/weight"])


@pytest.mark.parametrize(
    ("decay", "shares"),
    # 1 - (1 + n) / (10 + n) after n steps, and at least 1 - decay.
    [(0.9, (9 / 10, 9 / 11)), (0.15, (9 / 10, 0.85)), (0.0, (1.0, 1.0))],
)
def test_young_averages_take_large_shares_of_the_weights(
    decay: float, shares: tuple[float, float], tmp_path: Path
) -> None:
    average = Duel().players["generator"].weight.detach()
    for step, share in enumerate(shares, 1):
        run(tmp_path, settings=recipe(ema=decay), pause_step=step, resume=step > 1)
        weight = saved(tmp_path)["network/generator/weight"]
        expected = (1 - share) * average + share * weight
        average = saved(tmp_path)["average/generator/weight"]
        torch.testing.assert_close(average, expected)


def test_exported_weights_are_the_averages_in_half_precision(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    settings = DenoiserRecipe(
        name="tiny",
        architecture="DnCNN",
        arguments={"depth": 3, "width": 4},
        stages=(Stage(patch=16, batch=4),),
        optimizer=Optimizer(kind="adamw", lr=0.1, warmup=0, schedule="constant"),
        steps=4,
        precision="32",
        log_every=4,
    )
    result = train(settings, tmp_path / "photos", tmp_path / "run", accelerator="cpu", say=lambda line: None)
    assert result.weights is not None
    exported = networks.load_file(result.weights).state_dict()
    tensors = saved(tmp_path / "run")
    weights = [name for name in exported if "num_batches" not in name]
    assert len(weights) == 9
    for name in weights:
        average, last = (tensors[f"{kind}/denoiser/{name}"] for kind in ("average", "network"))
        assert torch.equal(exported[name], average.half().float()), name
        # Statistics of the activations are those of the last batches, not averaged.
        assert torch.equal(average, last) == ("running" in name), name
