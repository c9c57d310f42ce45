"""A feed-forward restorer under the contract of a prior, so that ``solve`` takes it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Protocol

from invrestore._types import PerImage, Tensor
from invrestore.operators import Operator
from invrestore.priors._base import Capability, Prior

__all__ = ["RestorerPrior", "Restores"]


class Restores(Protocol):
    """Anything that maps a measurement and its operator to an image."""

    def restore(self, y: Tensor, operator: Operator) -> Tensor:
        """Restored images, (B, C, H, W)."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class RestorerPrior(Prior):
    """Wraps an object with ``restore(y, operator)``.

    Args:
        restorer: The object.
    """

    restorer: Restores = dataclasses.field(default=None, kw_only=False)  # type: ignore[assignment]

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.RESTORE})

    def restore(self, y: Tensor, operator: Operator, sigma: PerImage | None = None) -> Tensor:
        """The wrapped object's answer; it is not told the noise level."""
        return self.restorer.restore(y, operator)
