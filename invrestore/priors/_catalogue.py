"""Priors by name: the classical ones, and every one that ships with weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from invrestore.errors import UnknownNameError
from invrestore.priors._base import Prior

__all__ = ["available", "load"]


def _makers() -> dict[str, Callable[[], Prior]]:
    from invrestore import networks
    from invrestore.priors import (
        TGV,
        TV,
        Denoiser,
        Dictionary,
        FeedForward,
        Latent,
        LowRank,
        Tikhonov,
        Wavelet,
    )

    def trained(name: str) -> Callable[[], Prior]:
        def make() -> Prior:
            network = networks.load(name)
            if isinstance(network, networks.LatentModel):
                # One that compares the images of a batch cannot judge an image by itself.
                compares = getattr(network.discriminator, "minibatch_std", False)
                critic = None if compares else network.discriminator
                denoiser = makers["denoiser"]() if "denoiser" in makers else None
                prior = Latent(network.generator, critic, network.encoder, denoiser=denoiser)
                if not prior.has_styles:
                    return prior
                # An encoder that has learnt to see through damage begins near the answer. From there, longer searches
                # and more of them fit the data better and the truth worse (benchmarks/quality/latent_ablation.py).
                return dataclasses.replace(prior, restarts=1, steps=25, mean_start=False)
            if isinstance(network, networks.RestorerNetwork):
                return FeedForward(network, degradations=networks.card(name).degradations)
            return Denoiser(network)

        return make

    classical: dict[str, Callable[[], Prior]] = {
        "dictionary": Dictionary,
        "low-rank": LowRank,
        "tgv": TGV,
        "tikhonov": lambda: Tikhonov(operator="gradient"),
        "tv": TV,
        "wavelet": lambda: Wavelet(shifts=4),
    }

    def restores(name: str) -> bool:
        kind = networks.ARCHITECTURES.get(networks.card(name).architecture, torch.nn.Module)
        return not issubclass(kind, networks.HighLevelNetwork)

    makers = classical | {name: trained(name) for name in networks.available() if restores(name)}
    return makers


def available() -> list[str]:
    """Names ``solve`` and ``load`` accept as a prior, sorted."""
    return sorted(_makers())


def load(name: str) -> Prior:
    """The prior of that name; trained ones read their weights from the package.

    Raises:
        UnknownNameError: No such prior; the nearest names are suggested.
        WeightsError: The weights file is missing or damaged.
    """
    makers = _makers()
    if name not in makers:
        raise UnknownNameError.suggest("priors.load", "prior", name, makers)
    return makers[name]()
