"""Rows that suites share."""

from __future__ import annotations

from invrestore.bench._types import Row

__all__ = ["FILLING"]

FILLING = tuple(
    Row(name)
    for name in (
        "input",
        "biharmonic",
        "telea",
        "navier-stokes",
        "patchmatch",
        "k-nn",
        "tv",
        "dictionary",
        "low-rank",
    )
)
"""The input and every classical method that fills holes."""
