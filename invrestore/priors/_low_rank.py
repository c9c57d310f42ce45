"""Low rank: nuclear norms of the image, and of groups of similar patches."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch

from invrestore._checks import (
    check_batch_tensor,
    check_choice,
    check_count,
    check_finite,
    check_image,
    check_nonnegative,
    check_sigma,
    check_step,
)
from invrestore._types import PerImage, Tensor
from invrestore.errors import CapabilityError
from invrestore.operators import Mask, Operator
from invrestore.priors._base import Capability, Prior
from invrestore.priors._patch_groups import GroupSettings, shrink_spectrum, weighted_nuclear_denoise

__all__ = ["LowRank", "LowRankCompletion"]

_REGIMES = (20 / 255, 40 / 255, 60 / 255)
"""Noise levels up to which one line of the tables below holds."""

_PAPER = (
    GroupSettings(patch=6, group=70, steps=8, window=61, stride=2, residual=0.54),
    GroupSettings(patch=7, group=90, steps=12, window=61, stride=2, residual=0.56),
    GroupSettings(patch=8, group=120, steps=14, window=61, stride=3, residual=0.58),
    GroupSettings(patch=9, group=140, steps=14, window=61, stride=3, residual=0.58),
)

# Three rounds must remove what twelve do in small portions: a higher threshold, groups that stay large.
_FAST = tuple(
    GroupSettings(patch=patch, group=60, steps=3, window=31, stride=4, residual=0.56, fewer=0, scale=3.5)
    for patch in (6, 6, 7, 8)
)

_OPTIONS = ("patch", "group", "window", "stride", "steps")


@dataclasses.dataclass(frozen=True, eq=False)
class LowRank(Prior):
    """Images, or groups of their patches, as matrices of low rank.

    ``kind="nonlocal"`` (weighted nuclear norm minimisation, WNNM) gathers for each reference patch the most
    similar ones around it, all channels together, takes their mean off, shrinks the singular values s of the
    matrix to (s + sqrt(s^2 - 4 w)) / 2, or 0 if that is not real, and averages the overlapping patches; a
    few rounds of it, with noise estimated anew for each group and a tenth of the removed residual returned.
    This s is the fixed point of soft thresholding by w / s, with w = c sqrt(n) sigma^2 for n patches. It is
    a denoiser: prox(v, step) = denoise(v, sqrt(lam * step)), lam is in units of noise variance, there is no
    value.

    ``kind="nuclear"``: g(x) = sum of the singular values of each channel, a matrix H x W. Convex; ``prox``
    is exact.

    ``kind="truncated"``: g(x) = sum of the singular values beyond the ``rank`` largest. Not convex; ``prox``
    still is the global minimum: among all choices of ``rank`` values that go free, with the others
    soft-thresholded, the cost of a thresholded value grows with the value, so the largest go free.
    ``LowRankCompletion`` is the paper's own algorithm for missing pixels.

    Args:
        lam: Weight, >= 0. For nuclear norms, singular values below lam * step vanish; noise alone has them
            up to about sigma (sqrt(H) + sqrt(W)).
        kind: "nonlocal", "nuclear" or "truncated".
        rank: Singular values that go free, >= 0, for "truncated"; None: an eighth of the shorter side.
        joint: For nuclear norms: one matrix H x C W for all channels side by side instead of one for each.
        effort: For "nonlocal". "paper": the settings Gu et al. publish for each noise level, 8 to 14 rounds
            with a reference patch at every second or third pixel. "fast": 3 rounds, every fourth pixel,
            smaller window; about 20 times faster and, at sigma 25/255, 0.1 to 0.4 dB worse on gray pictures.
        patch: Side of a patch, pixels; None, here and below: by ``effort`` and noise level. Images with
            shorter sides take their side.
        group: Patches in a group.
        window: Side of the search window, pixels. Reference patches are searched for in tiles of 8 x 8, and
            the window of a tile holds the windows of all of them.
        stride: Distance between reference patches, pixels; at most ``patch`` is used.
        steps: Rounds.

    Shapes:
        x: (B, C, H, W) of any size, real, any range; values are never clamped. Half precisions compute in
            float32.
        sigma, lam, step: numbers or (B,).

    Raises:
        UnknownNameError: No such ``kind`` or ``effort``.
        CapabilityError: An option that belongs to another kind.
        RangeError: A number is out of range, or the image is not finite.

    Example:
        >>> x = torch.tensor([[[[3.0, 0.0], [0.0, 1.0]]]])
        >>> LowRank(1.5, kind="nuclear").prox(x)
        tensor([[[[1.5000, 0.0000],
                  [0.0000, 0.0000]]]])

    Reference:
        Gu, Zhang, Zuo and Feng (2014), Weighted nuclear norm minimization with application to image
        denoising. Unlike it: c is raised for colour patches in proportion to the spectrum of noise, and
        windows are those of tiles. Hu, Zhang, Ye, Li and He (2013) for the truncated norm; Cai, Candes and
        Shen (2010) for the nuclear norm. The derivative of spectral maps follows Lewis and Sendov (2001).
    """

    lam: PerImage | None = dataclasses.field(default=None, kw_only=False)
    kind: Literal["nonlocal", "nuclear", "truncated"] = dataclasses.field(default="nonlocal", kw_only=True)
    rank: int | None = dataclasses.field(default=None, kw_only=True)
    joint: bool = dataclasses.field(default=False, kw_only=True)
    effort: Literal["fast", "paper"] = dataclasses.field(default="fast", kw_only=True)
    patch: int | None = dataclasses.field(default=None, kw_only=True)
    group: int | None = dataclasses.field(default=None, kw_only=True)
    window: int | None = dataclasses.field(default=None, kw_only=True)
    stride: int | None = dataclasses.field(default=None, kw_only=True)
    steps: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "kind", self.kind, ("nonlocal", "nuclear", "truncated"))
        check_choice(self.name, "effort", self.effort, ("fast", "paper"))
        for name in _OPTIONS:
            if getattr(self, name) is not None:
                check_count(self.name, name, getattr(self, name), least=2 if name == "group" else 1)
        if self.rank is not None:
            check_count(self.name, "rank", self.rank, least=0)
        foreign = [name for name in _OPTIONS if self.kind != "nonlocal" and getattr(self, name) is not None]
        foreign += ["rank"] if self.kind != "truncated" and self.rank is not None else []
        foreign += ["joint"] if self.kind == "nonlocal" and self.joint else []
        if foreign:
            raise CapabilityError(
                self.name,
                expected=f"options of kind={self.kind!r}",
                found=", ".join(foreign),
                remedy="rank belongs to 'truncated', joint to both nuclear norms, the others to 'nonlocal'.",
            )
        able = Capability.DENOISE if self.kind == "nonlocal" else Capability.VALUE
        # Here properties of the instance: the kind decides.
        object.__setattr__(self, "capabilities", frozenset({able, Capability.PROX}))
        object.__setattr__(self, "is_convex", self.kind == "nuclear")

    # Whole images ------------------------------------------------------------------------------------------

    def _matrices(self, x: Tensor) -> Tensor:
        """(B, C, H, W), or (B, 1, H, C W) with ``joint``, in a precision that decompositions exist for."""
        x = x if x.dtype == torch.float64 else x.float()
        return x.movedim(1, 2).flatten(2)[:, None] if self.joint else x

    def _images(self, m: Tensor, like: Tensor) -> Tensor:
        if self.joint:
            m = m.view(m.shape[0], like.shape[2], like.shape[1], like.shape[3]).movedim(2, 1)
        return m.to(like.dtype)

    def _kept(self, x: Tensor) -> int:
        """Singular values that go free."""
        if self.kind == "nuclear":
            return 0
        return _eighth(x) if self.rank is None else self.rank

    def value(self, x: Tensor) -> Tensor:
        """``lam`` times the sum of singular values, beyond the ``rank`` largest for "truncated"."""
        if not self.can(Capability.VALUE):
            raise self._lacks("value")
        where = f"{self.name}.value"
        check_image(where, x)
        check_batch_tensor(where, "lam", self.weight, x.shape[0])
        s = torch.linalg.svdvals(self._matrices(x))[..., self._kept(x) :]
        total: Tensor = self.weight * s.sum((1, 2))
        return total.to(x.dtype)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """Soft-thresholded singular values; for "nonlocal" ``denoise(v, sqrt(lam * step))``."""
        where = f"{self.name}.prox"
        check_image(where, v, "v")
        check_step(where, step)
        check_batch_tensor(where, "step", step, v.shape[0])
        check_batch_tensor(where, "lam", self.weight, v.shape[0])
        level = self.weight * step
        if self.kind == "nonlocal":
            return self._denoise(where, v, level)
        check_finite(where, "v", v)
        m = self._matrices(v)
        bound = (
            torch.as_tensor(level, dtype=m.dtype, device=m.device)
            .expand(v.shape[0])[:, None]
            .expand(m.shape[:2])
        )
        return self._images(shrink_spectrum(m, bound, rank=self._kept(v)), v)

    # Groups of patches -------------------------------------------------------------------------------------

    def denoise(self, x: Tensor, sigma: PerImage) -> Tensor:
        """WNNM of ``x``; memory beyond a fixed amount is about 60 numbers for every 16 pixels ("fast")."""
        if not self.can(Capability.DENOISE):
            raise self._lacks("denoise")
        where = f"{self.name}.denoise"
        check_image(where, x)
        check_sigma(where, sigma)
        check_batch_tensor(where, "sigma", sigma, x.shape[0])
        return self._denoise(where, x, sigma**2)

    def _denoise(self, where: str, x: Tensor, variance: PerImage) -> Tensor:
        check_finite(where, "x", x)
        noisy = x if x.dtype == torch.float64 else x.float()
        power = torch.as_tensor(variance, dtype=noisy.dtype, device=noisy.device).expand(x.shape[0])
        # A margin for rounding, so that 20/255 belongs to the regime that ends there.
        limits = torch.tensor(_REGIMES, dtype=torch.float64).square() * (1 + 1e-5)
        regimes = torch.bucketize(power.detach().double().cpu(), limits).tolist()
        out = torch.empty_like(noisy)
        for regime in sorted(set(regimes)):
            chosen = [k for k, r in enumerate(regimes) if r == regime]
            out[chosen] = weighted_nuclear_denoise(noisy[chosen], power[chosen], self._settings(regime))
        return out.to(x.dtype)

    def _settings(self, regime: int) -> GroupSettings:
        table = _PAPER if self.effort == "paper" else _FAST
        own = {name: getattr(self, name) for name in _OPTIONS if getattr(self, name) is not None}
        return dataclasses.replace(table[regime], **own)

    def first_lam(self, sigma: Tensor) -> Tensor:
        """0.23 sigma^2 as for other denoisers; for nuclear norms half the norm of 64 x 64 noise."""
        return 0.23 * sigma.square() if self.kind == "nonlocal" else 8 * sigma


def _eighth(x: Tensor) -> int:
    return -(-min(x.shape[-2:]) // 8)


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankCompletion(Prior):
    """Missing pixels by truncated nuclear norm, min_x ||x||_* - max tr(A x B^T), known pixels fixed.

    Two alternating steps, every channel a matrix H x W: A and B are the ``rank`` first left and right
    singular vectors of x; then ADMM with A and B fixed, with the singular value threshold 1 / rho:

        x = shrink(w - u, 1 / rho),   w = x + u + A^T B / rho, known pixels put back,   u = u + x - w

    ``solve(y, operators.Mask(m), LowRankCompletion())`` uses it; data count as free of noise. Each image
    stops when x moves by less than ``tol`` relative to its norm.

    Args:
        rank: Singular values that go free, >= 0; None: an eighth of the shorter side. The paper tries 1 to
            20.
        rho: Penalty > 0, for images in [0, 1]; changes the speed, not the minimiser. The default is the
            paper's.
        rounds: Most updates of A and B.
        steps: Most ADMM steps between them.
        tol: Relative move at which ADMM, and the alternation, stop.

    Shapes:
        y: (B, C, H, W).

    Raises:
        RangeError: A number is out of range.
        CapabilityError: The operator is no Mask.

    Reference:
        Hu, Zhang, Ye, Li and He (2013), Fast and accurate matrix completion via truncated nuclear norm
        regularization, algorithm 2 (TNNR-ADMM). Unlike it: missing pixels start from averages of their
        surroundings instead of 0, and the multiplier from 0, later from the last round.
    """

    rank: int | None = dataclasses.field(default=None, kw_only=False)
    rho: float = dataclasses.field(default=0.255, kw_only=True)
    rounds: int = dataclasses.field(default=10, kw_only=True)
    steps: int = dataclasses.field(default=200, kw_only=True)
    tol: float = dataclasses.field(default=1e-4, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.RESTORE})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank is not None:
            check_count(self.name, "rank", self.rank, least=0)
        check_nonnegative(self.name, "rho", self.rho, positive=True)
        check_count(self.name, "rounds", self.rounds)
        check_count(self.name, "steps", self.steps)
        check_nonnegative(self.name, "tol", self.tol)

    def restore(self, y: Tensor, operator: Operator, sigma: PerImage | None = None) -> Tensor:
        """The completed images; known pixels are exact, whatever the noise."""
        where = f"{self.name}.restore"
        if not isinstance(operator, Mask):
            raise CapabilityError(
                where,
                expected="a Mask",
                found=operator.name,
                remedy="priors.LowRank(kind='truncated') works with any operator.",
            )
        check_image(where, y, "y")
        check_finite(where, "y", y)
        data = operator.pinv(y)
        known = operator(torch.ones_like(y)) != 0
        start = operator.initial(y, tuple(y.shape[1:]))
        wide = torch.float64 if y.dtype == torch.float64 else torch.float32
        return self._alternate(start.to(wide), data.to(wide), known).to(y.dtype)

    def _alternate(self, x: Tensor, data: Tensor, known: Tensor) -> Tensor:
        rank = _eighth(x) if self.rank is None else self.rank
        u = torch.zeros_like(x)
        w = x
        moving = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
        for _ in range(self.rounds):
            U, _, Vt = torch.linalg.svd(w, full_matrices=False)
            pull = U[..., :rank] @ Vt[..., :rank, :] / self.rho
            before = w
            w, u = self._admm(w, u, pull, data, known, moving)
            moving = moving & (_relative(w, before) > self.tol)
            if not bool(moving.any()):
                break
        return w

    def _admm(
        self, w: Tensor, u: Tensor, pull: Tensor, data: Tensor, known: Tensor, moving: Tensor
    ) -> tuple[Tensor, Tensor]:
        """ADMM with A and B fixed, for the images that move."""
        level = torch.full(w.shape[:2], 1 / self.rho, dtype=w.dtype, device=w.device)
        for _ in range(self.steps):
            x = shrink_spectrum(w - u, level, rank=0)
            new_w = torch.where(known, data, x + u + pull)
            new_u = u + x - new_w
            go = moving.view(-1, 1, 1, 1)
            move = _relative(new_w, w)
            w, u = torch.where(go, new_w, w), torch.where(go, new_u, u)
            moving = moving & (move > self.tol)
            if not bool(moving.any()):
                break
        return w, u


def _relative(new: Tensor, old: Tensor) -> Tensor:
    """||new - old|| / ||new|| of each image, (B,)."""
    tiny = torch.finfo(new.dtype).tiny
    moved: Tensor = (new - old).flatten(1).norm(dim=1) / new.flatten(1).norm(dim=1).clamp_min(tiny)
    return moved
