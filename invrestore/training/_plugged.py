"""What plug-and-play shows a denoiser: images on their way from a measurement, as inputs to train on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invrestore._types import PerImage
from invrestore.priors import Denoiser
from invrestore.solvers import solve
from invrestore.training._degradations import Degrader

__all__ = ["seen_when_plugged"]


class _Listener:
    """Remembers what a denoiser was last shown; from the call after ``until`` on it gives images back as they came."""

    def __init__(self, network: Callable[[Tensor, PerImage], Tensor], channels: int, until: int) -> None:
        self.network, self.channels, self.until = network, channels, until
        self.calls = 0
        self.heard: tuple[Tensor, PerImage] | None = None

    def __call__(self, x: Tensor, sigma: PerImage) -> Tensor:
        self.heard = x, sigma
        self.calls += 1
        return x if self.calls > self.until else self.network(x, sigma).to(x.dtype)

    def has_heard_enough(self, step: int, x: Tensor) -> bool:
        """Stop a solver, as its callback, once there is nothing more to hear."""
        return self.calls > self.until


@torch.no_grad()
def seen_when_plugged(
    network: Callable[[Tensor, PerImage], Tensor],
    clean: Tensor,
    degrade: Degrader,
    *,
    steps: int,
    rng: torch.Generator,
    host: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Measure images and restore them by half-quadratic splitting, up to a step drawn at random.

    Args:
        network: The denoiser that is plugged in, ``network(x, sigma)``.
        clean: Images (B, C, H, W) in [0, 1].
        degrade: Draws the operator and the noise of each image.
        steps: Steps of the schedule, of which all are equally likely. Where one call of the denoiser is the whole
            restoration, it is that call.
        rng: Random source of the measurements, on the device.
        host: Random source of the steps.

    Returns:
        What the denoiser is shown in that step, (B, C, H, W), and the level that it is told, (B,).
    """
    shown, levels = [], []
    for part in degrade.parts(clean, rng):
        until = int(torch.randint(steps, (), generator=host))
        listener = _Listener(network, clean.shape[1], until)
        solve(
            part.y,
            part.operator,
            Denoiser(listener, flip=(), precision="full"),
            sigma=part.sigma,
            method="hqs",
            max_steps=steps,
            callback=listener.has_heard_enough,
        )
        assert listener.heard is not None
        x, sigma = listener.heard
        shown.append(x)
        levels.append(torch.as_tensor(sigma).to(x).expand(len(x)))
    return torch.cat(shown), torch.cat(levels)
