"""Fixtures every test file shares."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

# Before test files are read, some of which list the shipped weights: one's own must not be among them.
os.environ.pop("INVRESTORE_WEIGHTS", None)


@pytest.fixture
def rng() -> torch.Generator:
    """A freshly seeded generator: the same numbers in every test, whatever ran before."""
    return torch.Generator().manual_seed(20240229)


@pytest.fixture
def tolerance() -> Callable[[torch.dtype], float]:
    """Relative error that rounding alone explains in a chain of a few thousand operations."""

    def of(dtype: torch.dtype) -> float:
        return {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}[dtype]

    return of
