"""The contract of a restorer, and ``solve`` with a fixed prior as one."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

from invrestore._types import Tensor
from invrestore.operators import Operator
from invrestore.solvers import solve

__all__ = ["Restorer", "Unrolled"]


class Restorer(ABC):
    """Maps a measurement to an image in one call; ``solve(y, operator, restorer)`` accepts it as a prior.

    A benchmark row is a restorer, whether a network or an iterative method stands behind it.
    """

    @abstractmethod
    def restore(self, y: Tensor, operator: Operator) -> Tensor:
        """Restored images, (B, C, H, W), of ``y``, (B, *operator.output_shape)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Unrolled(Restorer):
    """``solve`` with a prior and settings fixed.

    Args:
        prior: Anything ``solve`` takes as a prior.
        settings: Keyword arguments of ``solve``: sigma, method, max_steps and so on.

    Example:
        >>> import torch
        >>> from invrestore import operators, priors
        >>> restorer = Unrolled(priors.TV(0.1), {"sigma": 0.1})
        >>> restorer.restore(torch.rand(1, 1, 8, 8), operators.Identity()).shape
        torch.Size([1, 1, 8, 8])
    """

    prior: Any
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def restore(self, y: Tensor, operator: Operator) -> Tensor:
        """The solution's images."""
        return solve(y, operator, self.prior, **self.settings).x
