"""What a training trains: networks, their losses, and how the result is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from invrestore.training._recipe import Stage

__all__ = ["Task"]


class Task(ABC):
    """Contract between the training loop and one kind of training.

    The loop owns devices, precision, optimisers, schedule, averaging, logging and checkpoints. A task owns
    the data, the networks and the losses. Each network in :attr:`players` has its own optimiser; a training
    with one network yields one loss a step, an adversarial one yields the discriminator's and then the
    generator's.

    Attributes:
        players: Trained networks by name.
        averaged: Names of the players whose averaged weights are kept, evaluated and exported.
    """

    players: dict[str, nn.Module]
    averaged: tuple[str, ...]

    @abstractmethod
    def losses(
        self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (player, loss) in the order of the updates.

        The loop back-propagates each loss and updates that player before it asks for the next pair, so later
        losses see the updated network. A player may be yielded several times in a step, or not at all.
        Gradients that a loss leaves in other players are dropped; switching off their `requires_grad` saves
        computing them.

        Args:
            players: The networks to call: wrapped for the device, the precision and several processes.
            stage: Crop and batch size.
            rng: Random source on the device, set anew for each step.
        """

    @abstractmethod
    def evaluate(self, players: Mapping[str, nn.Module]) -> dict[str, float]:
        """Score averaged networks on held-out images; an empty mapping when there are none."""

    @abstractmethod
    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        """Make a sheet (3, H, W) in [0, 1] that shows a person what the averaged networks do, or None."""
