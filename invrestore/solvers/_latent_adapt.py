"""Adaptation after a latent search: a copy of the generator's weights is tuned on each image by itself."""

from __future__ import annotations

import torch
from torch.func import functional_call

from invrestore._types import Tensor
from invrestore.fidelity import Interval
from invrestore.operators import Mask
from invrestore.priors import Latent
from invrestore.solvers._latent_average import denoised_shares, near_known
from invrestore.solvers._latent_objective import EIGHT_BITS, Group
from invrestore.solvers._latent_spaces import Codes, Methods, Space
from invrestore.solvers._latent_state import Items
from invrestore.solvers._problem import Problem

__all__ = ["adapt", "adaptation_steps"]

_ADAPTATION = 100
"""Fine-tuning steps where the prior does not say."""


def adaptation_steps(prior: Latent, problem: Problem) -> int:
    """As the prior says; by default none for exact data of a linear operator other than a mask, nor for large holes.

    Exact linear data are met by a projection anyway, and weights that are tuned on them spoil what they do not tell:
    colours of a gray picture turn wherever luma leads them. On rounded data, tuning makes the answer more like that of
    a denoiser: their average is better without.
    """
    if prior.adapt is not None:
        return prior.adapt
    if problem.exact and problem.linear is not None and not isinstance(problem.operator, Mask):
        return 0
    if isinstance(problem.fidelity, Interval) and bool(denoised_shares(prior, problem).any()):
        return 0
    return _ADAPTATION if bool(_adapted(prior, problem).any()) else 0


def _adapted(prior: Latent, problem: Problem) -> Tensor:
    """Whether each image is adapted to where any is, (B,): not to a large hole unless asked for."""
    adapted = problem.y.new_ones(1, dtype=torch.bool)
    if prior.adapt is None and isinstance(problem.operator, Mask):
        adapted = near_known(problem.operator) >= 0.5
    return adapted.expand(problem.batch)


def adapt(group: Group, space: Space, best: Items, steps: int) -> Tensor:
    """Images after tuning a copy of the weights on each, one image after the other, (b, C, H, W)."""
    prior = group.prior
    rate = prior.adapt_rate or (1e-4 if group.problem.exact else 3e-4)
    methods = Methods(prior.generator)
    own = {n: p for n, p in methods.named_parameters() if p.is_floating_point()}
    out = best.x.clone()
    for i in _adapted(prior, group.problem).nonzero()[:, 0].tolist():
        here = torch.tensor([i], device=out.device)
        part = group.whole if group.lockstep else group.part(here)
        weights = {n: p.detach().clone().requires_grad_() for n, p in own.items()}
        code = best.codes.code[i : i + 1].detach().clone().requires_grad_()
        fixed = best.codes[i : i + 1].fixed
        adam = torch.optim.Adam(
            [
                {"params": list(weights.values()), "lr": rate},
                {"params": [code], "lr": 10 * rate},
            ],
            # One pass over the weights instead of a dozen; this step costs more than the small generator itself.
            fused=True,
        )

        def call(name: str, *arguments: object, weights: dict[str, Tensor] = weights) -> Tensor:
            found: Tensor = functional_call(methods, weights, (name, *arguments))
            return found

        goal = group.problem.sigma[i].clamp_min(EIGHT_BITS)
        over = torch.zeros((), dtype=torch.bool, device=out.device)
        kept = out[i : i + 1]
        for step in range(1, steps + 1):
            with torch.enable_grad():
                codes = Codes(code, fixed)
                raw, energy = space.raw(codes, call), space.energy(codes)
                if group.lockstep:
                    # The operator has to see the whole batch; only this image moves.
                    low = prior.from_image(out.to(raw.dtype))
                    raw = torch.cat([low[:i], raw, low[i + 1 :]])
                    energy = torch.cat([energy.new_zeros(i), energy, energy.new_zeros(group.size - i - 1)])
                value = group.evaluate(part, raw, energy, judge=False)
                spot = i if group.lockstep else 0
                total = value.total[spot]
                grads = torch.autograd.grad(total, [*weights.values(), code], allow_unused=True)
            x = value.x[spot : spot + 1].detach()
            over = over | ~torch.isfinite(total)
            kept = torch.where(over, kept, x)
            over = over | (group.misfit(part, value.x.detach())[spot] <= goal)
            if step % 10 == 0 and bool(over):
                break
            for tensor, grad in zip([*weights.values(), code], grads, strict=True):
                # The fused step reads memory in order, so gradients need the layout of their weights.
                same = grad is None or grad.stride() == tensor.stride()
                tensor.grad = grad if same else torch.empty_like(tensor).copy_(grad)
            adam.step()
        out[i : i + 1] = kept
    return out
