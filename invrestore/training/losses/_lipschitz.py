"""What keeps the critic of a Wasserstein loss 1-Lipschitz."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["clip_weights", "lipschitz_penalty"]


def lipschitz_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, rng: torch.Generator
) -> Tensor:
    """Mean (norm(grad_x D(x)) - 1)^2 at x = u real + (1 - u) fake, u uniform in [0, 1] for each pair.

    Args:
        critic: Maps images to one number each, without batch normalisation, which would mix images, and not
            compiled: the penalty is differentiated once more for the weights.
        real: Images (N, C, H, W).
        fake: As many others; no gradient flows back to where they came from.
        rng: Random source on the device of the images.

    Reference:
        Gulrajani et al. (2017), Improved Training of Wasserstein GANs, where its weight is 10.
    """
    u = torch.rand((real.shape[0], 1, 1, 1), device=real.device, dtype=real.dtype, generator=rng)
    with torch.enable_grad():
        x = (u * real + (1 - u) * fake).detach().requires_grad_(True)
        # A view, since hooks that count operations cannot be put on a leaf that autograd.grad differentiates in.
        (gradient,) = torch.autograd.grad(critic(x.view_as(x)).sum(), x, create_graph=True)
    length: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (length - 1).square().mean()


@torch.no_grad()
def clip_weights(critic: nn.Module, limit: float = 0.01) -> None:
    """Clip every parameter of a critic to [-limit, limit], after each of its updates.

    Reference:
        Arjovsky et al. (2017), Wasserstein GAN.
    """
    for parameter in critic.parameters():
        parameter.clamp_(-limit, limit)
