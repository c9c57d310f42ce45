"""Pictures to work on, and the command line run inside the test process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from invrestore.assets import photo
from invrestore.cli import main
from invrestore.io import save_image


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run ``invrestore`` with the given words and return exit code and output."""

    def call(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def refuse(run: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """Run a wrong call; assert exit code 2, one line on standard error, nothing written; return the line."""

    def call(*words: object) -> str:
        before = snapshot(tmp_path)
        result = run(*words)
        assert result.code == 2, result
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1, result.err
        assert "Traceback" not in result.err
        assert snapshot(tmp_path) == before
        return result.err

    return call


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below ``folder`` with its content."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A colour photo of 48 x 40 pixels."""
    path = tmp_path / "photo.png"
    with Image.open(photo("astronaut")) as image:
        image.crop((80, 10, 176, 90)).resize((48, 40)).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path, rng: torch.Generator) -> Path:
    """A mask of the size of ``picture`` that keeps half of the pixels."""
    path = tmp_path / "mask.png"
    save_image((torch.rand(1, 1, 40, 48, generator=rng) < 0.5).float(), path)
    return path
