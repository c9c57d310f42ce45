"""Forward models ``y = A(x)``: what happened to the image."""

from invrestore.operators._base import LinearOperator, Operator
from invrestore.operators._identity import Identity

__all__ = ["Identity", "LinearOperator", "Operator"]
