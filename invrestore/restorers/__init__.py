"""Anything that maps a measurement and its operator to an image, iterative or not."""

from invrestore.restorers._base import Restorer, Unrolled
from invrestore.restorers._coupled import CoupledAtoms, CoupledDictionary

__all__ = ["CoupledAtoms", "CoupledDictionary", "Restorer", "Unrolled"]
