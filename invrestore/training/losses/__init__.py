"""Losses of restorers and generative models, one module for each family.

Logits follow the discriminators of `invrestore.networks`: positive means real.
"""

from invrestore.training.losses._adversarial import (
    ADVERSARIAL,
    AdversarialLoss,
    least_squares_discriminator,
    least_squares_generator,
    minimax_generator,
    non_saturating_discriminator,
    non_saturating_generator,
    relativistic_discriminator,
    relativistic_generator,
    strongest,
    wasserstein_critic,
    wasserstein_generator,
)
from invrestore.training.losses._latent import code_distance, kl_to_normal
from invrestore.training.losses._lipschitz import clip_weights, lipschitz_penalty
from invrestore.training.losses._penalty import gradient_penalty
from invrestore.training.losses._perceptual import (
    CASCADE_LAYERS,
    UNIFIED_LAYERS,
    XGAN_LAYERS,
    PerceptualLoss,
    feature_matching,
    vgg,
)
from invrestore.training.losses._pixel import corresponding_points, l1, mse
from invrestore.training.losses._reconstruction import feature_distance, multiscale_l1

__all__ = [
    "ADVERSARIAL",
    "CASCADE_LAYERS",
    "UNIFIED_LAYERS",
    "XGAN_LAYERS",
    "AdversarialLoss",
    "PerceptualLoss",
    "clip_weights",
    "code_distance",
    "corresponding_points",
    "feature_distance",
    "feature_matching",
    "gradient_penalty",
    "kl_to_normal",
    "l1",
    "least_squares_discriminator",
    "least_squares_generator",
    "lipschitz_penalty",
    "minimax_generator",
    "mse",
    "multiscale_l1",
    "non_saturating_discriminator",
    "non_saturating_generator",
    "relativistic_discriminator",
    "relativistic_generator",
    "strongest",
    "vgg",
    "wasserstein_critic",
    "wasserstein_generator",
]
