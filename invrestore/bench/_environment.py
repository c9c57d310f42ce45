"""Machine, versions and commit, for everything that is measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from invrestore._version import __version__
from invrestore.networks._precision import has_matrix_units

__all__ = ["environment"]

_PACKAGES = ("torch", "numpy", "scipy", "deepinv", "scikit-image", "PyWavelets", "ptwt", "bm3d")
_ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """Machine, versions and commit, as plain values for a JSON file."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return {
        "invrestore": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": found,
        "processor": _processor(),
        "bfloat16_units": has_matrix_units(torch.device("cpu")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str:
    """Short revision of the source tree, with "+changes" if files differ; "release" for an installed package."""
    if not (_ROOT / ".git").exists():
        return "release"
    return _git("rev-parse", "--short", "HEAD") + (
        "+changes" if _git("status", "--porcelain", "-uno") else ""
    )


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
