"""Total generalised variation of second order."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import ClassVar, NamedTuple

import torch

from invrestore._checks import check_batch_tensor, check_image, check_nonnegative, check_step, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.operators import Gradient, LinearOperator
from invrestore.operators._linalg import per_image_norm
from invrestore.priors._base import Capability, Prior

__all__ = ["TGV"]

_LIMIT = 20_000
"""Steps after which an image is given up, with a warning."""

_CHECK_EVERY = 20
"""Steps between two looks at the gap; a look costs about one step."""

_BALANCE = 0.12
"""Primal over dual step, times the contrast of the image over its weight: the primal variables scale with it,
the dual ones do not. Photographs at weights of 0.02 and 0.1 were both fastest near this number."""

_RELAXATION = 1.9
"""Over-relaxation of all variables, in (0, 2)."""

_NORM = (1 + math.sqrt(33)) / 2
"""Norm of K(x, w) = (D x - w, E w): the norms of D and E are at most sqrt(8)."""


class _State(NamedTuple):
    """Image x, its field w of slopes (B, 2, C, H, W), their duals p and s (B, 3, C, H, W)."""

    x: Tensor
    w: Tensor
    p: Tensor
    s: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class TGV(Prior):
    """Total generalised variation, ``lam * min_w sum |D x - w| + ratio sum |E w|``: piecewise smooth.

    ``D`` takes forward differences, ``E`` the symmetrised differences of the slopes ``w`` where both
    neighbours exist, so that affine images cost nothing up to the border. Magnitudes are taken over
    directions and channels.

    ``prox`` and ``value`` stop each image at a relative duality gap. The dual has the constraint p = E^T s,
    whose violation is charged with R ||E^T s - p||, R = 2 ||w||: a certificate as long as the best slopes are
    at most twice as large as the current ones. ``prox`` differentiates through all of its steps (memory grows
    with their number); ``value`` differentiates by the envelope theorem.

    Args:
        lam: Weight >= 0, a number or (B,), or None: ``solve`` chooses it.
        ratio: Weight of the second order against the first, > 0, in pixels; 2 is usual, and a large one gives
            back TV of the image less its best plane.
        tol: Relative gap: of ``prox`` against the objective, or 1 % of that of the mean image if that is
            larger (for affine images the objective is 0); of ``value`` against TV(x).

    Shapes:
        x, v: (B, C, H, W), any range.

    Raises:
        RangeError: ``lam`` is negative, or ``ratio`` or ``tol`` not positive.

    Example:
        >>> ramp = torch.arange(6.0).expand(1, 1, 4, 6)
        >>> bool(TGV(1.0).value(ramp) < 1e-3)
        True

    Reference:
        Bredies, Kunisch and Pock (2010). Solved by algorithm 1 of Chambolle and Pock (2011), over-relaxed
        as by Condat (2013); stopping as in Bredies and Holler (2015), with a bound
        on w.
    """

    lam: PerImage | None = None
    ratio: float = dataclasses.field(default=2.0, kw_only=True)
    tol: float = dataclasses.field(default=1e-4, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.VALUE, Capability.PROX, Capability.ANALYSIS}
    )
    is_convex: ClassVar[bool] = True
    has_inner_problem: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_nonnegative(self.name, "ratio", self.ratio, positive=True)
        check_nonnegative(self.name, "tol", self.tol, positive=True)

    def value(self, x: Tensor) -> Tensor:
        """``lam * TGV(x)`` of each image, shape (B,), minimised over w to ``tol`` times ``lam * TV(x)``."""
        where = f"{self.name}.value"
        x = check_image(where, x)
        check_batch_tensor(where, "lam", self.lam, x.shape[0])
        work = x if x.dtype == torch.float64 else x.float()
        with torch.no_grad():
            slopes = _D(work)
            total = _magnitude(slopes).flatten(1).sum(1)
            # Slopes of unit size on average: the penalty is homogeneous and the steps are not.
            scale = torch.where(total > 0, total / x[0].numel(), 1.0).view(-1, 1, 1, 1)
            start = _start(work / scale, self)
            end = self._run(where, start, None)
            field = _D(work)
            best = _penalty(field, end.w * scale[:, None], self.ratio)
        # The derivative in x at the best w is that of <D x, p>, p its dual.
        linear = (_D(work) * end.p).flatten(1).sum(1)
        return (self.weight * (best + linear - linear.detach())).to(x.dtype)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """argmin_x step * lam * TGV(x) + 1/2 ||x - v||^2, to the relative gap ``tol``."""
        where = f"{self.name}.prox"
        v = check_image(where, v, "v")
        check_step(where, step)
        check_batch_tensor(where, "step", step, v.shape[0])
        check_batch_tensor(where, "lam", self.lam, v.shape[0])
        work = v if v.dtype == torch.float64 else v.float()
        weight = torch.as_tensor(self.weight * step, dtype=work.dtype, device=v.device).reshape(-1, 1, 1, 1)
        mean = work.mean((-2, -1), keepdim=True)
        least = (work - mean).detach().abs().amax((1, 2, 3), keepdim=True) * (
            1e-3 * torch.finfo(work.dtype).eps
        )
        live = (weight > 0) & (weight >= least)
        scale = torch.where(live, weight, 1.0)
        # An image whose answer is itself becomes zero, for which the first look at the gap is the last.
        data = torch.where(live, (work - mean) / scale, 0.0)
        x = self._run(where, _start(data, self), data).x
        return torch.where(live, x * scale + mean, work).to(v.dtype)

    def auxiliary_channels(self, channels: int) -> int:
        """Two slopes w for each channel."""
        return 2 * channels

    def analysis(self, shape: Shape) -> LinearOperator:
        """K of g(x) = min_w h(K (x, w)): (x, w) to (D x - w, E w)."""
        return _Bends()

    def dual_prox(self, q: Tensor) -> Tensor:
        """Projection of the stacked duals, (B, 5C, H, W), onto the balls of radius lam and ratio * lam."""
        p, s = _Bends.split(q)
        lam = expand(self.weight, q)
        bound = lam if isinstance(lam, Tensor) else torch.as_tensor(lam, dtype=q.dtype, device=q.device)
        bound = bound.reshape(-1, 1, 1)
        return torch.cat([_project(p, bound).flatten(1, 2), _project(s, self.ratio * bound).flatten(1, 2)], 1)

    def _run(self, where: str, state: _State, v: Tensor | None) -> _State:
        """Iterate on unit weight until every image has reached its gap; each is kept as it was then.

        ``v`` None keeps x fixed, which is the problem behind ``value``.
        """
        out = new = state
        going = torch.ones(state.x.shape[0], dtype=torch.bool, device=state.x.device)
        if v is None:
            balance = torch.ones_like(state.x[:, :1, :1, :1])
        else:
            contrast = _BALANCE * v.detach().square().mean((1, 2, 3), keepdim=True).sqrt()
            balance = torch.where(contrast > 0, contrast, 1.0)
        tau = balance / _NORM
        tau_w, sigma = tau[:, None], 1 / (balance * _NORM)[:, None]
        for k in range(_LIMIT):
            if k % _CHECK_EVERY == 0:
                with torch.no_grad():
                    reached = ~self._short(new, v) & going
                out = _choose(reached, new, out)
                going = going & ~reached
                if not bool(going.any()):
                    return out
            x = state.x if v is None else (state.x + tau * (v - _DT(state.p))) / (1 + tau)
            w = state.w + tau_w * (state.p - _ET(state.s))
            over_w = 2 * w - state.w
            p = _project(state.p + sigma * (_D(2 * x - state.x) - over_w), 1.0)
            s = _project(state.s + sigma * _E(over_w), self.ratio)
            new = _State(x, w, p, s)
            state = _State(
                *(torch.lerp(old, fresh, _RELAXATION) for old, fresh in zip(state, new, strict=True))
            )
        warnings.warn(
            f"{where}: relative gap {self.tol:g} not reached in {_LIMIT} steps", RuntimeWarning, stacklevel=3
        )
        return _choose(going, new, out)

    def _short(self, state: _State, v: Tensor | None) -> Tensor:
        """Whether each image is still short of its gap, (B,)."""
        x, w, p, s = state
        slopes, bends = _D(x), _E(w)
        # As for TV, a sum of terms that are nonnegative pixel by pixel, plus the charge for p != E^T s.
        first, second = _magnitude(slopes - w), self.ratio * _magnitude(bends)
        gap = _sum(first) - _sum(p * (slopes - w)) + _sum(second) - _sum(s * bends)
        broken = _ET(s) - p
        length = per_image_norm(w)
        gap = gap + _sum(w * broken) + 2 * length * per_image_norm(broken)
        floor = 16 * torch.finfo(x.dtype).eps * x.abs().flatten(1).sum(1)
        if v is None:
            goal = _sum(_magnitude(slopes))
        else:
            gap = gap + 0.5 * _sum((x - v + _DT(p)).square())
            goal = _sum(first) + _sum(second) + 0.5 * _sum((x - v).square())
            goal = torch.maximum(goal, 0.005 * _sum(v.square()))
        short: Tensor = gap > self.tol * goal + floor
        return short


@dataclasses.dataclass(frozen=True, eq=False)
class _Bends(LinearOperator):
    """(x, w) to (D x - w, E w): (B, 3C, H, W) to (B, 5C, H, W)."""

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """Three channels for five."""
        return (3 * output_shape[0] // 5, *output_shape[1:])

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """Five channels for three."""
        return (5 * input_shape[0] // 3, *input_shape[1:])

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """(1 + sqrt(33)) / 2, from ||D||, ||E|| <= sqrt(8)."""
        return torch.tensor(_NORM)

    @staticmethod
    def split(q: Tensor) -> tuple[Tensor, Tensor]:
        """(p, s) with their components as an axis of their own, (B, 2, C, H, W) and (B, 3, C, H, W)."""
        batch, stacked, *size = q.shape
        channels = stacked // 5
        p, s = q[:, : 2 * channels], q[:, 2 * channels :]
        return p.reshape(batch, 2, channels, *size), s.reshape(batch, 3, channels, *size)

    def _apply(self, x: Tensor) -> Tensor:
        batch, stacked, *size = x.shape
        channels = stacked // 3
        w = x[:, channels:].reshape(batch, 2, channels, *size)
        return torch.cat([(_D(x[:, :channels]) - w).flatten(1, 2), _E(w).flatten(1, 2)], 1)

    def _adjoint(self, y: Tensor) -> Tensor:
        p, s = self.split(y)
        return torch.cat([_DT(p), (_ET(s) - p).flatten(1, 2)], 1)


def _choose(which: Tensor, new: _State, old: _State) -> _State:
    """The images ``which``, (B,), from ``new``, the others from ``old``."""

    def one(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(which.view(-1, *[1] * (a.ndim - 1)), a, b)

    return _State(*(one(a, b) for a, b in zip(new, old, strict=True)))


def _start(x: Tensor, prior: TGV) -> _State:
    batch, channels, height, width = x.shape
    field = x.new_zeros(batch, 2, channels, height, width)
    return _State(x, field, field, x.new_zeros(batch, 3, channels, height, width))


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def _penalty(slopes: Tensor, w: Tensor, ratio: float) -> Tensor:
    return _sum(_magnitude(slopes - w)) + ratio * _sum(_magnitude(_E(w)))


def _magnitude(q: Tensor) -> Tensor:
    """Euclidean norm over components and channels: (B, K, C, H, W) to (B, H, W)."""
    square = (q * q).sum((1, 2))
    nonzero = square > 0
    return torch.where(nonzero, torch.where(nonzero, square, 1.0).sqrt(), 0.0)


def _project(q: Tensor, radius: float | Tensor) -> Tensor:
    size = _magnitude(q)
    shrink = torch.where(size > radius, radius / torch.where(size > radius, size, 1.0), 1.0)
    return q * shrink[:, None, None]


def _D(x: Tensor) -> Tensor:
    return Gradient()._apply(x).view(x.shape[0], 2, *x.shape[1:])


def _DT(p: Tensor) -> Tensor:
    return Gradient()._adjoint(p.flatten(1, 2))


def _E(w: Tensor) -> Tensor:
    """Symmetrised differences (d1 w1, d2 w2, (d2 w1 + d1 w2) / sqrt(2)) where both neighbours carry slopes.

    The last row of w1 and the last column of w2 are slopes across the border and take no part.
    """
    out = w.new_zeros(w.shape[0], 3, *w.shape[2:])
    w1, w2 = w[:, 0, :, :-1], w[:, 1, ..., :-1]
    out[:, 0, :, : max(w.shape[-2] - 2, 0)] = w1[:, :, 1:] - w1[:, :, :-1]
    out[:, 1, ..., : max(w.shape[-1] - 2, 0)] = w2[..., 1:] - w2[..., :-1]
    out[:, 2, :, :-1, :-1] = (w1[..., 1:] - w1[..., :-1] + w2[:, :, 1:] - w2[:, :, :-1]) / math.sqrt(2)
    return out


def _ET(s: Tensor) -> Tensor:
    """Adjoint of ``_E``."""
    out = s.new_zeros(s.shape[0], 2, *s.shape[2:])
    height, width = s.shape[-2:]
    down = s[:, 0, :, : max(height - 2, 0)]
    right = s[:, 1, ..., : max(width - 2, 0)]
    mixed = s[:, 2, :, :-1, :-1] / math.sqrt(2)
    if height > 2:
        out[:, 0, :, 1:-1] += down
        out[:, 0, :, :-2] -= down
    if width > 2:
        out[:, 1, ..., 1:-1] += right
        out[:, 1, ..., :-2] -= right
    out[:, 0, :, :-1, 1:] += mixed
    out[:, 0, :, :-1, :-1] -= mixed
    out[:, 1, :, 1:, :-1] += mixed
    out[:, 1, :, :-1, :-1] -= mixed
    return out
