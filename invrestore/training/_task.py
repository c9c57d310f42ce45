"""What a training trains: networks, their losses, and how the result is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from invrestore.training._recipe import Recipe, Stage

__all__ = ["FEW", "RecipeTask", "Task"]

FEW = 8
"""Test images that are scored while training."""


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
    ) -> Iterator[tuple[str | tuple[str, ...], Tensor]]:
        """Yield (player, loss), or (several players, their common loss), in the order of the updates.

        The loop back-propagates each loss and updates its players before it asks for the next pair, so later
        losses see the updated networks. A player may be yielded several times in a step, or not at all.
        Gradients that a loss leaves in other players are dropped; switching off their `requires_grad` saves
        computing them.

        Args:
            players: The networks to call: wrapped for the device, the precision and several processes.
            stage: Crop and batch size.
            rng: Random source on the device, set anew for each step.
        """

    @abstractmethod
    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        """Score averaged networks on held-out images; an empty mapping when there are none.

        Args:
            players: Averaged networks on the CPU.
            few: Take a few images only, for a look while training.
        """

    @abstractmethod
    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        """Make a sheet (3, H, W) in [0, 1] that shows a person what the averaged networks do, or None."""


class RecipeTask(Task):
    """A task that a kind of recipe sets up and whose result is a network with a card.

    Attributes:
        protocol: How the scores of :meth:`evaluate` are measured; empty when there are none.
        remark: What the card says of the training beside its length and its start; may be empty.
    """

    protocol: str
    remark: str = ""

    @classmethod
    @abstractmethod
    def create(
        cls, network: nn.Module, recipe: Recipe, train: Path, test: Path | None, device: torch.device
    ) -> Self:
        """Set up the training of a network.

        Args:
            network: The whole network that the recipe's architecture and arguments describe.
            recipe: A recipe of this task's kind.
            train: Packed training images.
            test: Packed held-out images, or None.
            device: Where training images are kept.

        Raises:
            TrainingError: The network is not of this task's kind, or the images do not suit it.
        """

    def join(self, players: Mapping[str, nn.Module]) -> nn.Module:
        """Put averaged players together to the whole network that is exported: the only player, unless overridden."""
        (network,) = players.values()
        return network

    def split(self, network: nn.Module) -> dict[str, nn.Module]:
        """Take a network made by :meth:`join` apart again."""
        (name,) = self.players
        return {name: network}
