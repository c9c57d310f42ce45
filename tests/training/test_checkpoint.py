import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from invrestore.errors import TrainingError
from invrestore.training import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint


def state(step: int) -> Checkpoint:
    tensors = {"a": torch.full((300,), float(step)), "b/c": torch.tensor(step)}
    return Checkpoint(step, 1.5 * step, tensors, {"name": "tiny"})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(3))
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.seconds, loaded.recipe) == (3, 4.5, {"name": "tiny"})
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in state(3).tensors.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors"]


def test_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, state(step))
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").step == 3
    assert load_checkpoint(tmp_path / "checkpoint-previous.safetensors").step == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_channels_last_weights_are_saved(tmp_path: Path) -> None:
    weight = torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last)
    path = save_checkpoint(tmp_path, Checkpoint(0, 0.0, {"w": weight}, {}))
    assert torch.equal(load_checkpoint(path).tensors["w"], weight)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(1))
    cut(path)
    with pytest.raises(
        TrainingError, match=r"an intact checkpoint in checkpoint\.safetensors, got SafetensorError"
    ):
        load_checkpoint(path)


def test_altered_checkpoint_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(1))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TrainingError, match="do not match their hash"):
        load_checkpoint(path)


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(TrainingError, match="an intact checkpoint"):
        load_checkpoint(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "y.safetensors", metadata={"invrestore": json.dumps({})})
    with pytest.raises(TrainingError, match="KeyError"):
        load_checkpoint(tmp_path / "y.safetensors")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="an intact checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_previous_checkpoint_replaces_a_damaged_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1))
    cut(save_checkpoint(tmp_path, state(2)))
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0].step == 1
    assert "The previous checkpoint was used" in found[1]


def test_two_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    for path in tmp_path.iterdir():
        cut(path)
    with pytest.raises(TrainingError, match="checkpoint-previous"):
        latest_checkpoint(tmp_path)


def test_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_checkpoints_are_plain_tensor_files(tmp_path: Path) -> None:
    assert set(load_file(save_checkpoint(tmp_path, state(1)))) == {"a", "b/c"}
