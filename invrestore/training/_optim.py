"""Muon with Adam for what is no matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import hardshrink
from torch.optim import Optimizer

from invrestore.networks._precision import has_matrix_units

__all__ = ["Muon"]

_SMALLEST_SIDE = 16
# Quintic a X + b (X X^T) X + c (X X^T)^2 X whose iterates push every singular value into about [0.7, 1.2].
_QUINTIC = (3.4445, -4.7750, 2.0315)
# Numbers below the normal range slow a processor down tenfold. Momentum of weights without gradient decays into it,
# and so do the products of entries this small beside a norm of 1, of which nothing would come either.
_FORGOTTEN = 1e-30
_NEGLIGIBLE = 1e-7


class Muon(Optimizer):
    """Momentum whose update matrix is orthogonalised, so that every direction of a layer learns at one rate.

    A convolution weight is a matrix of shape (outputs, inputs * taps). Its Nesterov momentum M = U S V^T is
    replaced by about U V^T (five Newton-Schulz steps, in bfloat16 where there are matrix units for it) and scaled
    by 0.2 sqrt(longer side), which gives it the root mean square of an Adam update, so learning rates mean the
    same for both. Weights with fewer than 16 input or output channels (the first and last layer), biases and
    gains follow Adam.

    Args:
        params: Parameters or groups.
        lr: Learning rate, of both rules.
        momentum: Decay of the momentum of matrices.
        betas: Decays of Adam's moments.
        weight_decay: Decoupled decay, relative to lr.

    Reference:
        Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks; the scale is that of
        Liu et al. (2025), Muon is Scalable for LLM Training.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                if _is_matrix(p):
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    momentum.copy_(hardshrink(momentum.lerp_(p.grad, 1 - group["momentum"]), _FORGOTTEN))
                    update = p.grad.lerp(momentum, group["momentum"]).flatten(1)
                    matrices.setdefault((update.shape[0], update.shape[1]), []).append((p, update))
                else:
                    self._adam(p, group)
            # Layers of one shape go together: a few large products instead of many small ones.
            for shape, members in matrices.items():
                rate = -0.2 * group["lr"] * math.sqrt(max(shape))
                for (p, _), update in zip(members, _orthogonal([u for _, u in members]), strict=True):
                    p.add_(update.view(p.shape), alpha=rate)
        return loss

    def _adam(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), device=p.device)
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(p.grad, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
        mean = state["mean"] / (1 - beta1 ** state["step"])
        root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(1e-8)
        p.addcdiv_(mean, root, value=-group["lr"])


def _is_matrix(p: Tensor) -> bool:
    return p.ndim >= 2 and min(p.shape[0], p.shape[1]) >= _SMALLEST_SIDE


def _orthogonal(updates: list[Tensor]) -> Tensor:
    """Nearly orthogonal factors of matrices of one shape, stacked along axis 0."""
    stack = torch.stack(updates)
    x = stack.bfloat16() if has_matrix_units(stack.device) else stack
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = hardshrink(x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7), _NEGLIGIBLE)
    a, b, c = _QUINTIC
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(stack.dtype).contiguous()
