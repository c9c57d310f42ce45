"""Penalties on the gradient of a discriminator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gradient_penalty"]


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Zero-centred gradient penalty, mean over images of 1/2 norm(grad_x D(x))^2.

    On real images it is R1, on generated ones R2.

    Args:
        discriminator: Maps images to one logit each. It must not be compiled: the penalty is differentiated
            once more for the weights.
        images: Images (N, C, H, W); no gradient flows back to where they came from.

    Reference:
        Mescheder et al. (2018), Which Training Methods for GANs do actually Converge?
    """
    with torch.enable_grad():
        x = images.detach().requires_grad_(True)
        # Not x itself: PyTorch's counter of operations cannot follow a leaf into a module under autograd.grad.
        (gradient,) = torch.autograd.grad(discriminator(x.view_as(x)).sum(), x, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(dim=1).mean()
