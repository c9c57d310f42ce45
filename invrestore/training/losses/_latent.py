"""Losses on codes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["code_distance", "kl_to_normal"]


def kl_to_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, exp(log_variance)) from N(0, I), in nats, mean over images.

    KL = 1/2 sum_d (mean_d^2 + exp(log_variance_d) - log_variance_d - 1).

    Args:
        mean: Means (N, D).
        log_variance: Logarithms of the variances (N, D).

    Reference:
        Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1).mean()


def code_distance(found: Tensor, z: Tensor) -> Tensor:
    """1 - mean cosine between two sets of codes (N, D): zero when they point the same way."""
    return 1 - F.cosine_similarity(found, z, dim=1).mean()
