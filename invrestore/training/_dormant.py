"""Channels of residual blocks that fell silent: drawn anew while a training lasts, taken out when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from invrestore.networks._blocks import ResidualBlock

__all__ = ["Activity", "listen", "redraw", "silence"]


@dataclass
class Activity:
    """What one residual block did on the batches it was listened to.

    Attributes:
        awake: Whether a hidden channel was above zero anywhere, (width,).
        total: Sum over batches of the mean input, (width,).
    """

    awake: Tensor = field(default_factory=lambda: torch.zeros(()))
    total: Tensor = field(default_factory=lambda: torch.zeros(()))

    def note(self, x: Tensor, hidden: Tensor) -> None:
        """Add a batch: the block's input and what its first convolution makes of it, (B, width, H, W)."""
        self.awake = self.awake.to(x) + (hidden.amax(dim=(0, 2, 3)) > 0)
        self.total = self.total.to(x) + x.mean(dim=(0, 2, 3))

    @property
    def silent(self) -> Tensor:
        """Indices of the channels that nothing raised above zero."""
        return (self.awake == 0).nonzero().flatten() if self.awake.ndim else torch.empty(0, dtype=torch.long)


@contextmanager
def listen(network: nn.Module) -> Iterator[dict[str, Activity]]:
    """Note, while the context lasts, what the residual blocks of a network do; by their names."""
    found: dict[str, Activity] = {}
    hooks = []
    for name, block in _blocks(network).items():
        own = found[name] = Activity()

        def note(_: nn.Module, inputs: tuple[Tensor], hidden: Tensor, own: Activity = own) -> None:
            own.note(inputs[0].detach(), hidden.detach())

        hooks.append(block.first.register_forward_hook(note))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def redraw(
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    activity: Mapping[str, Activity],
    rng: torch.Generator,
) -> int:
    """Draw the silent channels of a network anew, in place, and return how many there were.

    A channel behind a ReLU that no input raises above zero has no gradient, and stays so for ever. Its weights are
    drawn as at the start, but without the direction of the mean input, so that about half of what comes raises it;
    the weights behind it and the optimiser's memory of both are set to 0. The network says the same as before.

    Args:
        network: The network that is trained.
        average: Its averaged copy, which gets the same new weights; None where there is none.
        optimizer: The network's.
        activity: By names of residual blocks, as :func:`listen` notes it.
        rng: Of the new weights, on the CPU.

    Reference:
        Sokar et al. (2023), The Dormant Neuron Phenomenon in Deep Reinforcement Learning; Dohare et al. (2024),
        Loss of plasticity in deep continual learning.
    """
    blocks, copies = _blocks(network), {} if average is None else _blocks(average)
    count = 0
    for name, found in activity.items():
        silent = found.silent
        if not len(silent):
            continue
        count += len(silent)
        first, second = blocks[name].first.weight, blocks[name].second.weight
        spread = (2 / first[0].numel()) ** 0.5
        fresh = (spread * torch.randn(first.shape, generator=rng))[silent.cpu()].to(first)
        mean = found.total.to(fresh).view(1, -1, 1, 1).expand_as(fresh)
        along = (fresh * mean).sum(dim=(1, 2, 3), keepdim=True) / mean[0].square().sum().clamp_min(_TINY)
        fresh -= along * mean
        for block in (blocks[name], copies.get(name)):
            if block is not None:
                block.first.weight[silent] = fresh
                block.second.weight[:, silent] = 0
        for weight, where in ((first, (silent,)), (second, (slice(None), silent))):
            for memory in optimizer.state.get(weight, {}).values():
                if isinstance(memory, Tensor) and memory.shape == weight.shape:
                    memory[where] = 0
    return count


@torch.no_grad()
def silence(network: nn.Module, activity: Mapping[str, Activity]) -> int:
    """Set the weights behind silent channels of a network to 0, in place, and return how many channels there were.

    Nothing taught these weights for as long as the channels were silent. On images of another kind than those of the
    training such a channel may wake, and a denoiser of bounded images then answers 5 or -3 somewhere.

    Args:
        network: A trained network.
        activity: By names of residual blocks, as :func:`listen` notes it.
    """
    blocks = _blocks(network)
    for name, found in activity.items():
        blocks[name].second.weight[:, found.silent] = 0
    return sum(len(found.silent) for found in activity.values())


_TINY = 1e-30


def _blocks(network: nn.Module) -> dict[str, ResidualBlock]:
    return {name: module for name, module in network.named_modules() if isinstance(module, ResidualBlock)}
