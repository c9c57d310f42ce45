"""The suites by name, one file each."""

from invrestore.bench._types import Suite
from invrestore.bench.suites import (
    awgn,
    block128,
    colornoise,
    deblur,
    faces64,
    hole128,
    jpeg,
    missing,
    sparse,
    superres,
)

__all__ = ["SUITES"]

_ALL = (faces64, awgn, deblur, superres, missing, jpeg, sparse, colornoise, block128, hole128)

SUITES: dict[str, Suite] = {module.SUITE.name: module.SUITE for module in _ALL}
"""Suites by name."""
