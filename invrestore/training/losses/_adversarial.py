"""Losses of the two players of an adversarial training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ADVERSARIAL",
    "AdversarialLoss",
    "least_squares_discriminator",
    "least_squares_generator",
    "minimax_generator",
    "non_saturating_discriminator",
    "non_saturating_generator",
    "relativistic_discriminator",
    "relativistic_generator",
    "strongest",
    "wasserstein_critic",
    "wasserstein_generator",
]


@dataclass(frozen=True)
class AdversarialLoss:
    """A pair of losses.

    Attributes:
        discriminator: Maps logits of real and of generated images to the loss of the discriminator.
        generator: Maps the same to the loss of the generator.
        generator_sees_real: Whether the generator's loss reads the logits of real images; if not, it may be
            given any.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    generator_sees_real: bool


def non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean softplus(-D(x)) + mean softplus(D(G(z))), the cross-entropy of real against generated images.

    Args:
        real: Logits of real images.
        fake: Logits of generated images.

    Shapes:
        real, fake: (N,), or maps of patches (N, 1, h, w), over which the mean runs as well.
        returns: (), of the type of the logits.

    Reference:
        Goodfellow et al. (2014), Generative Adversarial Nets.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean softplus(-D(G(z))) = -mean log sigmoid D(G(z)); `real` is not read.

    Args:
        real: Not read.
        fake: Logits of generated images.

    Shapes:
        fake: (N,), or maps of patches (N, 1, h, w), over which the mean runs as well.
        returns: (), of the type of the logits.

    Reference:
        Goodfellow et al. (2014), Generative Adversarial Nets.
    """
    return F.softplus(-fake).mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean softplus(D(G(z)) - D(x)) over pairs of a generated and a real image, of equal number.

    Args:
        real: Logits of real images.
        fake: Logits of generated images.

    Shapes:
        real, fake: (N,), or maps of patches (N, 1, h, w); both of one shape.
        returns: (), of the type of the logits.

    Reference:
        Jolicoeur-Martineau (2019), The relativistic discriminator; Huang et al. (2024), The GAN is dead; long
        live the GAN!, who add the zero-centred gradient penalty on real and on generated images.
    """
    return F.softplus(fake - real).mean()


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean softplus(D(x) - D(G(z))) over pairs of a generated and a real image, of equal number.

    Args:
        real: Logits of real images.
        fake: Logits of generated images.

    Shapes:
        real, fake: (N,), or maps of patches (N, 1, h, w); both of one shape.
        returns: (), of the type of the logits.

    Reference:
        See :func:`relativistic_discriminator`.
    """
    return F.softplus(real - fake).mean()


def minimax_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean log(1 - sigmoid(D(G(z)))) = -mean softplus(D(G(z))): what the discriminator maximises, minimised.

    Its discriminator is that of :func:`non_saturating_discriminator`.

    Args:
        real: Not read.
        fake: Logits of generated images.

    Shapes:
        fake: (N,), or maps of patches (N, 1, h, w), over which the mean runs as well.
        returns: (), of the type of the logits.

    Reference:
        Goodfellow et al. (2014), Generative Adversarial Networks.
    """
    return -F.softplus(fake).mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """1/2 mean (D(x) - 1)^2 + 1/2 mean D(G(z))^2.

    Args:
        real: Logits of real images.
        fake: Logits of generated images.

    Shapes:
        real, fake: (N,), or maps of patches (N, 1, h, w), over which the mean runs as well.
        returns: (), of the type of the logits.

    Reference:
        Mao et al. (2017), Least Squares Generative Adversarial Networks.
    """
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def least_squares_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean (D(G(z)) - 1)^2.

    Args:
        real: Not read.
        fake: Logits of generated images.

    Shapes:
        fake: (N,), or maps of patches (N, 1, h, w), over which the mean runs as well.
        returns: (), of the type of the logits.

    Reference:
        Mao et al. (2017), Least Squares Generative Adversarial Networks, without their factor 1/2, as in
        pix2pixHD, whose weights of the other losses go with it.
    """
    return (fake - 1).square().mean()


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Mean D(G(z)) - mean D(x), whose negative estimates the Wasserstein distance if D is 1-Lipschitz.

    `clip_weights` or `lipschitz_penalty` see to that.

    Args:
        real: Numbers that the critic gives real images.
        fake: Numbers that it gives generated images.

    Shapes:
        real, fake: (N,), or maps of patches (N, 1, h, w), over which the mean runs as well.
        returns: (), of the type of the numbers.

    Reference:
        Arjovsky et al. (2017), Wasserstein GAN.
    """
    return fake.mean() - real.mean()


def wasserstein_generator(real: Tensor, fake: Tensor) -> Tensor:
    """-mean D(G(z)).

    Args:
        real: Not read.
        fake: Numbers that the critic gives generated images.

    Shapes:
        fake: (N,), or maps of patches (N, 1, h, w), over which the mean runs as well.
        returns: (), of the type of the numbers.

    Reference:
        Arjovsky et al. (2017), Wasserstein GAN.
    """
    return -fake.mean()


def strongest(losses: Sequence[Tensor]) -> Tensor:
    """max_k L(G, D_k): the loss of the generator against the discriminator that it deceives least.

    Args:
        losses: The generator's loss against each discriminator; the gradient flows through the largest only.

    Shapes:
        losses: At least one of ().
        returns: ().

    Reference:
        Durugkar et al. (2017), Generative Multi-Adversarial Networks, F = max; so trained in X-GANs.
    """
    return torch.stack(tuple(losses)).max()


ADVERSARIAL: dict[str, AdversarialLoss] = {
    "non-saturating": AdversarialLoss(non_saturating_discriminator, non_saturating_generator, False),
    "relativistic": AdversarialLoss(relativistic_discriminator, relativistic_generator, True),
    "minimax": AdversarialLoss(non_saturating_discriminator, minimax_generator, False),
    "least-squares": AdversarialLoss(least_squares_discriminator, least_squares_generator, False),
    "wasserstein": AdversarialLoss(wasserstein_critic, wasserstein_generator, False),
}
"""Pairs of losses by the name that recipes use."""
