"""Anything that maps a measurement and its operator to an image, iterative or not."""

from invrestore.restorers._base import Restorer, Unrolled

__all__ = ["Restorer", "Unrolled"]
