"""What every benchmark shares: pictures, devices, the description of the machine, and how results are written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import invrestore
from invrestore.bench import environment

RESULTS = Path(__file__).parent / "results" / invrestore.__version__


def photo(name: str, size: int | None = None) -> torch.Tensor:
    """A colour photo out of scikit-image as (1, 3, size, size) in [0, 1]; its own square size if None."""
    from skimage import data

    x = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
    side = min(x.shape[-2:])
    x = x[..., :side, :side]
    return (
        x
        if size is None
        else F.interpolate(x, (size, size), mode="area" if size < side else "bicubic").clamp(0, 1)
    )


def add_noise(x: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    """White Gaussian noise, the same on every device."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    return x + sigma * noise


def devices() -> list[str]:
    """CPU, and CUDA where there is one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def synchronise(device: str) -> None:
    """Wait for a GPU; nothing on the CPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write ``results/VERSION/NAME.json`` with the environment, through a temporary name."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps({"environment": environment(), **result}, indent=1) + "\n")
    partial.replace(path)
    return path
