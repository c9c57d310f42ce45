"""Step rules on batches of codes, each row on its own; no step looks at the device from the host."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from invrestore._types import Tensor
from invrestore.operators._linalg import per_image_dot

__all__ = ["LBFGS", "Adam", "Memory", "Nesterov", "StepRule"]

Memory = dict[str, Tensor]
"""What a rule keeps from step to step; the rows are those of the codes."""


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """(N,) shaped to multiply codes (N, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclasses.dataclass(frozen=True)
class StepRule(ABC):
    """One step from codes with their values and gradients.

    Attributes:
        rate: Step size at the start; it falls to a twentieth along a cosine over the steps planned.
    """

    rate: float

    def rate_at(self, progress: float) -> float:
        """Step size when this fraction of the steps is done."""
        return self.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))

    @abstractmethod
    def init(self, code: Tensor) -> Memory:
        """Memory before the first step."""

    @abstractmethod
    def step(
        self, code: Tensor, value: Tensor, grad: Tensor, memory: Memory, count: int, progress: float
    ) -> tuple[Tensor, Memory]:
        """The next codes.

        Args:
            code: Codes the value and gradient belong to, (N, ...).
            value: Objective of each, (N,).
            grad: Its gradient, (N, ...).
            memory: Of the step before.
            count: Steps taken, this one included.
            progress: Fraction of the planned steps that is done.
        """


@dataclasses.dataclass(frozen=True)
class Adam(StepRule):
    """Kingma and Ba (2015)."""

    rate: float = 0.05
    decays: tuple[float, float] = (0.9, 0.999)

    def init(self, code: Tensor) -> Memory:
        """Moments of zero."""
        return {"first": torch.zeros_like(code), "second": torch.zeros_like(code)}

    def step(
        self, code: Tensor, value: Tensor, grad: Tensor, memory: Memory, count: int, progress: float
    ) -> tuple[Tensor, Memory]:
        """Moments with bias correction."""
        a, b = self.decays
        first = torch.lerp(grad, memory["first"], a)
        second = torch.lerp(grad * grad, memory["second"], b)
        size = (second / (1 - b**count)).sqrt() + 1e-8
        moved = code - (self.rate_at(progress) / (1 - a**count)) * first / size
        return moved, {"first": first, "second": second}


@dataclasses.dataclass(frozen=True)
class Nesterov(StepRule):
    """Gradient descent with Nesterov's momentum; gradients are scaled to unit length where they are longer.

    Reference:
        Nesterov (1983) in the form of Sutskever et al. (2013); clipping: Pascanu et al. (2013).
    """

    rate: float = 1e-3
    momentum: float = 0.9
    longest: float = 100.0

    def init(self, code: Tensor) -> Memory:
        """Velocity of zero."""
        return {"velocity": torch.zeros_like(code)}

    def step(
        self, code: Tensor, value: Tensor, grad: Tensor, memory: Memory, count: int, progress: float
    ) -> tuple[Tensor, Memory]:
        """Velocity v <- mu v + g; z <- z - rate (g + mu v)."""
        length = per_image_dot(grad, grad).sqrt()
        grad = grad * _rows((self.longest / length.clamp_min(self.longest)), grad)
        velocity = self.momentum * memory["velocity"] + grad
        return code - self.rate_at(progress) * (grad + self.momentum * velocity), {"velocity": velocity}


@dataclasses.dataclass(frozen=True)
class LBFGS(StepRule):
    """Limited-memory BFGS with backtracking, one evaluation a step.

    A trial point that does not lower the objective enough is taken back, and the next trial goes half as far along the
    same direction: each row decides for itself, and all rows are evaluated together.

    Attributes:
        rate: Length of the first trial step.
        pairs: Differences of codes and gradients that are kept.
        slope: Share of the decrease along the tangent that a step must bring (Armijo).

    Reference:
        Nocedal (1980).
    """

    rate: float = 0.1
    pairs: int = 10
    slope: ClassVar[float] = 1e-4

    def init(self, code: Tensor) -> Memory:
        """No pairs; the first evaluation becomes the base point."""
        flat = code.flatten(1)
        none = flat.new_zeros(len(flat), self.pairs, flat.shape[1])
        return {
            "base": code.clone(),
            "value": flat.new_full((len(flat),), math.inf),
            "grad": torch.zeros_like(flat),
            "direction": torch.zeros_like(flat),
            "length": flat.new_ones(len(flat)),
            "moves": none,
            "turns": none.clone(),
            "inverse": flat.new_zeros(len(flat), self.pairs),
        }

    def step(
        self, code: Tensor, value: Tensor, grad: Tensor, memory: Memory, count: int, progress: float
    ) -> tuple[Tensor, Memory]:
        """Accept or take back the trial point, then the next one."""
        flat, g = code.flatten(1), grad.flatten(1)
        base, old = memory["base"].flatten(1), memory["grad"]
        first = torch.isinf(memory["value"])
        expected = self.slope * per_image_dot(old, flat - base)
        taken = torch.isfinite(value) & (first | (value <= memory["value"] + expected.clamp_max(0)))

        move, turn = flat - base, g - old
        curvature = per_image_dot(move, turn)
        size = per_image_dot(move, move).sqrt() * per_image_dot(turn, turn).sqrt()
        useful = taken & ~first & (curvature > 1e-8 * size)
        inverse = torch.where(useful, 1 / torch.where(useful, curvature, 1.0), 0.0)

        def pushed(stack: Tensor, new: Tensor) -> Tensor:
            shifted = torch.cat([stack[:, 1:], new[:, None]], 1)
            return torch.where(useful.view(-1, *[1] * (stack.ndim - 1)), shifted, stack)

        moves, turns = pushed(memory["moves"], move), pushed(memory["turns"], turn)
        inverses = pushed(memory["inverse"], inverse)
        base = torch.where(taken[:, None], flat, base)
        g = torch.where(taken[:, None], g, old)
        best = torch.where(taken, value, memory["value"])
        fresh = self._direction(g, moves, turns, inverses)
        downhill = per_image_dot(fresh, g) < 0
        steepest = -g * (self.rate / per_image_dot(g, g).sqrt().clamp_min(1e-30))[:, None]
        known = (inverses > 0).any(1)
        fresh = torch.where((downhill & known)[:, None], fresh, steepest)
        direction = torch.where(taken[:, None], fresh, memory["direction"])
        length = torch.where(taken, 1.0, 0.5 * memory["length"])
        trial = base + length[:, None] * direction
        return trial.view(code.shape), {
            "base": base.view(code.shape),
            "value": best,
            "grad": g,
            "direction": direction,
            "length": length,
            "moves": moves,
            "turns": turns,
            "inverse": inverses,
        }

    @staticmethod
    def _direction(g: Tensor, moves: Tensor, turns: Tensor, inverse: Tensor) -> Tensor:
        """Two-loop recursion; empty pairs have inverse curvature 0 and change nothing."""
        q, shares = g, []
        for i in reversed(range(moves.shape[1])):
            share = inverse[:, i] * per_image_dot(moves[:, i], q)
            shares.append(share)
            q = q - share[:, None] * turns[:, i]
        newest = per_image_dot(turns[:, -1], turns[:, -1])
        gain = torch.where(
            newest > 0, per_image_dot(moves[:, -1], turns[:, -1]) / torch.where(newest > 0, newest, 1.0), 1.0
        )
        q = q * gain[:, None]
        for i, share in zip(range(moves.shape[1]), reversed(shares), strict=True):
            back = inverse[:, i] * per_image_dot(turns[:, i], q)
            q = q + (share - back)[:, None] * moves[:, i]
        return -q
