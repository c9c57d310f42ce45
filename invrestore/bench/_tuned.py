"""Settings that were found by a search on training images; `benchmarks/quality/tune.py` writes them."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

__all__ = ["tuned_settings", "tuning_words"]


@functools.lru_cache(maxsize=16)
def _content(suite: str) -> dict[str, Any]:
    file = resources.files("invrestore.bench.tuned").joinpath(f"{suite}.json")
    content: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return content


def tuned_settings(suite: str, method: str, task: str) -> dict[str, Any]:
    """Settings of a method for a task; empty where nothing was searched."""
    found: dict[str, Any] = _content(suite).get("settings", {}).get(method, {}).get(task, {})
    return dict(found)


def tuning_words(suite: str) -> str:
    """How the settings were found."""
    words: str = _content(suite).get("search", "Nothing is tuned: every method runs with its defaults.")
    return words
