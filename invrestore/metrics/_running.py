"""Scores gathered over many batches."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from invrestore._types import Tensor
from invrestore.errors import RangeError
from invrestore.metrics._pair import check_data_range
from invrestore.metrics._pixel import psnr
from invrestore.metrics._ssim import ssim

__all__ = ["PSNR", "SSIM", "RunningScore"]


class RunningScore(ABC):
    """Keeps the score of every image it is shown.

    Scores stay on the device of the images until they are asked for: ``update`` does not wait for a GPU.

    Args:
        data_range: Width of the range images live in, > 0.
    """

    def __init__(self, data_range: float = 1.0) -> None:
        self.data_range = check_data_range(type(self).__name__, data_range)
        self._parts: list[Tensor] = []

    @abstractmethod
    def score(self, x: Tensor, x_true: Tensor) -> Tensor:
        """The score of each image, (B,)."""

    def update(self, x: Tensor, x_true: Tensor) -> Tensor:
        """Score a batch, keep the scores, and return them, (B,)."""
        part = self.score(x, x_true).detach()
        self._parts.append(part)
        return part

    def reset(self) -> None:
        """Forget all scores."""
        self._parts.clear()

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def scores(self) -> Tensor:
        """The score of every image so far, in order, float64 on the CPU; (0,) before the first batch."""
        parts = [part.to("cpu", torch.float64) for part in self._parts]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def compute(self) -> float:
        """Mean over the images.

        Raises:
            RangeError: No image was scored yet.
        """
        return float(self._some().mean())

    @property
    def std(self) -> float:
        """Standard deviation over the images (divided by n - 1); NaN for a single image or infinite scores.

        Raises:
            RangeError: No image was scored yet.
        """
        scores = self._some()
        return float(scores.std()) if len(scores) > 1 else float("nan")

    def _some(self) -> Tensor:
        scores = self.scores
        if not len(scores):
            raise RangeError(
                type(self).__name__,
                expected="at least one scored image",
                found="0",
                remedy="Call update(x, x_true) first.",
            )
        return scores

    def __repr__(self) -> str:
        name = f"{type(self).__name__}(data_range={self.data_range:g}, {len(self)} images"
        return f"{name}, mean {self.compute():.4g})" if len(self) else f"{name})"


class PSNR(RunningScore):
    """Mean PSNR over batches, in dB; see ``psnr``.

    Example:
        >>> score = PSNR()
        >>> _ = score.update(torch.full((2, 3, 4, 4), 0.1), torch.zeros(2, 3, 4, 4))
        >>> score
        PSNR(data_range=1, 2 images, mean 20)
    """

    def score(self, x: Tensor, x_true: Tensor) -> Tensor:
        """``psnr`` of each image, (B,)."""
        return psnr(x, x_true, self.data_range)


class SSIM(RunningScore):
    """Mean SSIM over batches; see ``ssim``.

    Example:
        >>> score = SSIM()
        >>> x = torch.rand(2, 3, 16, 16)
        >>> _ = score.update(x, x)
        >>> score.compute()
        1.0
    """

    def score(self, x: Tensor, x_true: Tensor) -> Tensor:
        """``ssim`` of each image, (B,)."""
        return ssim(x, x_true, self.data_range)
