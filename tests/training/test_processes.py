"""Training by several processes, as torchrun starts them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from invrestore import networks
from invrestore.training import DenoiserRecipe, Optimizer, Stage, load_checkpoint

RECIPE = DenoiserRecipe(
    name="tiny",
    arguments={"channels": 3, "widths": [8, 16], "blocks": 1},
    stages=(Stage(patch=16, batch=2),),
    optimizer=Optimizer(kind="adamw"),
    steps=13,
    precision="32",
    log_every=5,
    test_folder="none",
    revive=4,
)


def save_half_asleep(path: Path) -> None:
    """Weights to start from; four channels of a residual block answer nothing."""
    torch.manual_seed(0)
    network = networks.UNet(**RECIPE.arguments)
    with torch.no_grad():
        network.encoders[0][0].first.weight[:4] = 0
    details = networks.Card(
        name="asleep",
        architecture="UNet",
        arguments=RECIPE.arguments,
        sha256="",
        channels=3,
        sigma_range=(0.0, 1.0),
        parameters=0,
        data="none",
        licence="test",
        metrics={},
        training="none",
        recipe="none",
        commit="none",
        reference="none",
    )
    networks.save(network, path, details)


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(photos / f"{number}.png")
    save_half_asleep(tmp_path / "asleep.safetensors")
    recipe = RECIPE.model_copy(update={"start": str(tmp_path / "asleep.safetensors")})
    (tmp_path / "tiny.json").write_text(recipe.model_dump_json())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    train = ["-m", "invrestore", "train", str(tmp_path / "tiny.json"), "--data", str(photos)]
    options = ["--out", str(tmp_path / "run"), "--accelerator", "cpu", "--devices", "2"]
    done = subprocess.run([*launch, *train, *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").step == 13
    # One of the two speaks and writes.
    assert done.stdout.count("packed 3 images") == 1
    assert done.stdout.count("step 0: 4 silent channels drawn anew") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10]
    network = networks.load_file(tmp_path / "run" / "tiny.safetensors")
    assert isinstance(network, networks.UNet)
    assert (network.encoders[0][0].first.weight[:4].flatten(1).norm(dim=1) > 0.1).all()
    assert network(torch.rand(1, 3, 8, 8), 0.1).isfinite().all()
