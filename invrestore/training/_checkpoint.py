"""Checkpoints of a running training: tensors only, checked by hash, never half written."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invrestore.errors import TrainingError

__all__ = ["Checkpoint", "latest_checkpoint", "load_checkpoint", "save_checkpoint"]

_CURRENT, _PREVIOUS = "checkpoint.safetensors", "checkpoint-previous.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after a whole step.

    Attributes:
        step: Steps done.
        seconds: Time trained, over all parts of the run.
        tensors: Every tensor of the state by name.
        recipe: The recipe as JSON data.
    """

    step: int
    seconds: float
    tensors: dict[str, Tensor]
    recipe: dict[str, Any]


def save_checkpoint(folder: str | Path, state: Checkpoint) -> Path:
    """Write a checkpoint; the one before it is kept as `checkpoint-previous.safetensors`.

    The file is written under a temporary name, flushed to disk and renamed, so a crash leaves whole files
    only.
    """
    folder = Path(folder)
    current, partial = folder / _CURRENT, folder / (_CURRENT + ".partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    header = {
        "step": state.step,
        "seconds": state.seconds,
        "recipe": state.recipe,
        "sha256": _digest(tensors),
    }
    save_file(tensors, str(partial), metadata={"invrestore": json.dumps(header)})
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    if current.exists():
        current.replace(folder / _PREVIOUS)
    return partial.replace(current)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read one checkpoint file and verify its hash.

    Raises:
        TrainingError: The file is missing, cut short, altered, or no checkpoint.
    """
    try:
        with safe_open(str(path), framework="pt") as archive:
            header = json.loads((archive.metadata() or {})["invrestore"])
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}
        intact = header["sha256"] == _digest(tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _refusal(path, f"{type(error).__name__}: {error}") from error
    if not intact:
        raise _refusal(path, "tensors that do not match their hash")
    return Checkpoint(header["step"], header["seconds"], tensors, header["recipe"])


def latest_checkpoint(folder: str | Path) -> tuple[Checkpoint, str] | None:
    """Load the newest intact checkpoint of a run folder.

    Returns:
        The checkpoint and a note, empty unless a damaged file was passed over; None when the folder has none.

    Raises:
        TrainingError: There are checkpoints, but none is intact.
    """
    note, failure = "", None
    for name in (_CURRENT, _PREVIOUS):
        path = Path(folder) / name
        if not path.exists():
            continue
        try:
            return load_checkpoint(path), note
        except TrainingError as error:
            note, failure = f"{error} The previous checkpoint was used.", error
    if failure is not None:
        raise failure
    return None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _refusal(path: str | Path, found: str) -> TrainingError:
    return TrainingError(
        "load_checkpoint",
        expected=f"an intact checkpoint in {Path(path).name}",
        found=found,
        remedy="Start without --resume, or restore the file.",
    )
