"""Total variation and its proximal map."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import torch

from invrestore._checks import (
    check_batch_tensor,
    check_count,
    check_image,
    check_nonnegative,
    check_shape,
    check_step,
    expand,
)
from invrestore._types import PerImage, Shape, Tensor
from invrestore.operators import Gradient, LinearOperator
from invrestore.operators._linalg import conjugate_gradient
from invrestore.priors._base import Capability, Prior
from invrestore.priors._box import Box

__all__ = ["TV"]

_BAND = 1 << 17
"""Numbers per band of rows on the CPU: nine arrays of it fit the cache, and each still fills two threads."""

_LIMIT = 50_000
"""Steps after which ``prox`` gives up, with a warning; a gap of 1e-9 on a photo takes a few thousand."""

_STRETCH = 1.3
"""Product of the steps times ||D||^2. Primal-dual steps without acceleration converge below 4/3 (Li and Yan,
2024); 1.3 saves one step in eight against the classical 1."""

_GAMMA, _TAU = 0.5, 1.0
"""Strong convexity assumed (the true value is 1) and first primal step.

Any gamma in (0, 1] keeps the O(1/k^2) rate; one half needs the fewest steps on photographs with lam from 0.01
to 0.3: two thirds of those of gamma = 1, half those of accelerated dual projection. The first step hardly
matters.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class TV(Prior):
    """Total variation, ``lam * sum_i |(D x)_i|``: edges are cheap, oscillation is dear.

    ``D`` is ``operators.Gradient``. The magnitude |.| at a pixel is taken over the two directions and, if
    ``coupled``, over the channels as well, so that edges of all colours fall on one place.

    ``prox`` minimises P(x) = 1/2 ||x - v||^2 + w TV(x), w = lam * step, to a relative duality gap: with a
    dual field |p_i| <= 1 it returns an x with

        P(x) - D(p) <= tol * P(x),   D(p) = 1/2 ||v||^2 - 1/2 ||v - w D^T p||^2,

    in every image of the batch, each with its own number of steps. This certifies that the objective is
    within tol of its minimum and that ||x - x*||^2 <= 2 tol P(x). It computes on differences from the mean,
    in float32 at least; a gap below rounding counts as reached.

    ``prox`` is differentiable once in v, lam and step, by the implicit function theorem at the solution: the
    backward pass solves one linear system on the dual field by conjugate gradients and stores no iterates.
    The derivative is as accurate as the solution; training through it wants ``tol`` of 1e-6 or less.

    Args:
        lam: Weight >= 0, a number or (B,), or None: ``solve`` chooses it. For images in [0, 1], 0.01 keeps
            texture and 0.2 flattens it.
        isotropic: Euclidean magnitude; False adds up the absolute differences of all directions and channels.
        coupled: One magnitude for all channels (vectorial TV); False treats each channel as a gray image.
            Without effect if not ``isotropic``.
        tol: Relative duality gap at which ``prox`` stops.

    Shapes:
        x, v: (B, C, H, W), any range; values are never clamped.

    Raises:
        RangeError: ``lam`` is negative, or ``tol`` not positive.

    Example:
        >>> v = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])
        >>> TV(0.5, tol=1e-6).prox(v).round(decimals=2)
        tensor([[[[0.2500, 0.2500, 0.7500, 0.7500]]]])

    Reference:
        Rudin, Osher and Fatemi (1992). Vectorial: Bresson and Chan (2008). ``prox`` is algorithm 2 of
        Chambolle and Pock (2011), swept over bands of rows that fit the cache; unlike the paper it assumes
        half the strong convexity and takes steps 1.3 times as long. The weight is scaled out (v / w), so that
        one loop serves a batch of them.
    """

    lam: PerImage | None = None
    isotropic: bool = dataclasses.field(default=True, kw_only=True)
    coupled: bool = dataclasses.field(default=True, kw_only=True)
    tol: float = dataclasses.field(default=1e-4, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.VALUE, Capability.PROX, Capability.ANALYSIS}
    )
    is_convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_nonnegative(self.name, "tol", self.tol, positive=True)

    def value(self, x: Tensor) -> Tensor:
        """``lam * TV(x)`` of each image, shape (B,)."""
        x = check_image(f"{self.name}.value", x)
        check_batch_tensor(f"{self.name}.value", "lam", self.lam, x.shape[0])
        return self.weight * self._magnitude(Gradient()(x)).flatten(1).sum(1)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """argmin_x step * lam * TV(x) + 1/2 ||x - v||^2, to the relative duality gap ``tol``."""
        return self._solve(f"{self.name}.prox", v, step, None, None, self.tol)[0]

    def prox_from(
        self,
        v: Tensor,
        step: PerImage,
        dual: Tensor | None,
        *,
        steps: int | None = None,
        tol: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``prox`` begun at the dual field of an earlier call, for solvers whose ``v`` changes slowly.

        Args:
            v: Images (B, C, H, W).
            step: As in ``prox``.
            dual: Field returned by an earlier call, or None. It is divided by its weight, so that it serves
                other weights too.
            steps: Take exactly this many steps instead of testing the gap.
            tol: Relative duality gap to reach; default ``self.tol / 100``, because the errors of a solver's
                steps add up. Not used with ``steps``.

        Returns:
            The image, and the dual field (B, 2C, H, W) to pass on; no gradient flows through the latter.
        """
        where = f"{self.name}.prox_from"
        if steps is not None:
            check_count(where, "steps", steps)
        check_nonnegative(where, "tol", tol, positive=True)
        if dual is not None:
            check_image(where, dual, "dual")
            check_shape(where, "dual", dual, (2 * v.shape[1], *v.shape[2:]))
        return self._solve(where, v, step, dual, steps, 0.01 * self.tol if tol is None else tol)

    def prox_in_box(self, v: Tensor, step: PerImage, box: Box) -> Tensor:
        """argmin_x step * lam * TV(x) + 1/2 ||x - v||^2 over the images in ``box``, to the gap ``tol``."""
        return self._solve(f"{self.name}.prox_in_box", v, step, None, None, self.tol, box)[0]

    def analysis(self, shape: Shape) -> LinearOperator:
        """The gradient D of TV(x) = h(D x)."""
        return Gradient()

    def dual_prox(self, q: Tensor) -> Tensor:
        """Projection of ``q``, (B, 2C, H, W), onto the fields with |q_i| <= lam."""
        check_image(f"{self.name}.dual_prox", q, "q")
        bound = expand(self.weight, q)
        if not self.isotropic:
            return (
                torch.minimum(torch.maximum(q, -bound), bound)
                if isinstance(bound, Tensor)
                else q.clamp(-bound, bound)
            )
        size = self._magnitude(q)
        shrink = torch.where(size > bound, bound / torch.where(size > bound, size, 1.0), 1.0)
        return (_pairs(q) * shrink[:, None]).flatten(1, 2)

    def _magnitude(self, g: Tensor) -> Tensor:
        """|g_i| at every pixel, (B, 1 or C, H, W), of a field (B, 2C, H, W); its derivative at 0 is 0."""
        if not self.isotropic:
            return g.abs().sum(1, keepdim=True)
        square = _pairs(g * g).sum(1)
        if self.coupled:
            square = square.sum(1, keepdim=True)
        nonzero = square > 0
        return torch.where(nonzero, torch.where(nonzero, square, 1.0).sqrt(), 0.0)

    def _solve(
        self,
        where: str,
        v: Tensor,
        step: PerImage,
        dual: Tensor | None,
        steps: int | None,
        tol: float,
        box: Box | None = None,
    ) -> tuple[Tensor, Tensor]:
        v = check_image(where, v, "v")
        check_step(where, step)
        check_batch_tensor(where, "step", step, v.shape[0])
        check_batch_tensor(where, "lam", self.lam, v.shape[0])
        work = v if v.dtype == torch.float64 else v.float()
        weight = torch.as_tensor(self.weight * step, dtype=work.dtype, device=v.device)
        weight = weight.reshape(-1, 1, 1, 1).expand(v.shape[0], 1, 1, 1)

        def run(v: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            return _denoise(v, weight, None if dual is None else dual.to(v.dtype), self, steps, tol, box)

        if torch.is_grad_enabled() and (work.requires_grad or weight.requires_grad):
            x, p = _Implicit.apply(work, weight, run, self, box)
        else:
            x, p = run(work, weight)
        return x.to(v.dtype), p


def _pairs(field: Tensor) -> Tensor:
    """(B, 2C, H, W) to (B, 2, C, H, W): vertical and horizontal differences apart."""
    return field.reshape(field.shape[0], 2, -1, *field.shape[2:])


def _denoise(
    v: Tensor, weight: Tensor, dual: Tensor | None, prior: TV, steps: int | None, tol: float, box: Box | None
) -> tuple[Tensor, Tensor]:
    """Prox of weight * TV at ``v`` in working precision; ``weight`` is (B, 1, 1, 1)."""
    batch, channels, height, width = v.shape
    # TV ignores constants, and sums about zero round least.
    mean = v.mean((-2, -1), keepdim=True)
    data = v - mean
    # Below this weight the answer is v to rounding, and dividing by the weight could overflow.
    least = data.abs().amax((1, 2, 3), keepdim=True) * (1e-3 * torch.finfo(v.dtype).eps)
    live = (weight > 0) & (weight >= least)
    scale = torch.where(live, weight, 1.0)
    data.mul_(torch.where(live, 1 / scale, 0.0))
    bounds = None
    if box is not None:
        bounds = tuple(((b - mean) / scale).expand_as(v).contiguous() for b in box.bounds(v))
    field = v.new_zeros(batch, 2, channels, height, width)
    if dual is not None:
        field.copy_(_pairs(dual.detach()))
    x = torch.empty_like(data)
    size = channels * height * width
    # The images are independent: on a CPU they are taken a cacheful at a time.
    group = batch if v.is_cuda else max(1, 2 * _BAND // size)
    for first in range(0, batch, group):
        rows = slice(first, first + group)
        part = None if bounds is None else (bounds[0][rows], bounds[1][rows])
        _descend(data[rows], field[rows], x[rows], prior, steps, tol, part, warm=dual is not None)
    x.mul_(scale).add_(mean)
    if not bool(live.all()):
        x = torch.where(live, x, v)
    if box is not None:
        # Scaling back rounds; the bounds hold exactly.
        x = box.prox(x)
    return x, field.flatten(1, 2)


_Bounds: TypeAlias = tuple[Tensor, Tensor]
"""Smallest and largest values, each of the shape of the images."""


class _Sweep:
    """Buffers of the iteration on unit weight, cut into bands of rows, and the two passes over them."""

    def __init__(self, v: Tensor, p: Tensor, x: Tensor, over: Tensor, box: _Bounds | None, prior: TV) -> None:
        batch, channels, height, width = v.shape
        self.v, self.p, self.x, self.over, self.box = v, p, x, over, box
        self.isotropic = prior.isotropic
        coupled = prior.isotropic and prior.coupled
        rows = height if v.is_cuda else max(1, min(height, _BAND // (batch * channels * width)))
        rows = math.ceil(height / math.ceil(height / rows))
        residual = torch.empty(batch, channels, rows, width, dtype=v.dtype, device=v.device)
        magnitude = torch.empty(
            batch, 1 if coupled else channels, rows, width, dtype=v.dtype, device=v.device
        )
        slopes = torch.zeros(batch, 2, channels, rows, width, dtype=v.dtype, device=v.device)
        self.bands: list[_Band] = []
        for a in range(0, height, rows):
            b = min(a + rows, height)
            self.bands.append(_Band(v, p, x, over, residual, magnitude, slopes, box, a, b))

    def step(self, sigma: float, blend: float, stretch: float) -> None:
        """In place: p <- proj(p + sigma D over), x+ = x + blend (r - x), over <- x + stretch (x+ - x)."""
        # A band reads ``over`` one row below itself, which the bands above have not touched yet, and ``p``
        # one row above itself, which is up to date: the sweep equals the step on the whole image.
        for s in self.bands:
            s.p_down.add_(s.over_below, alpha=sigma).sub_(s.over_above, alpha=sigma)
            s.p_right.add_(s.over_right, alpha=sigma).sub_(s.over_left, alpha=sigma)
            if self.isotropic:
                torch.mul(s.parts[0], s.parts[0], out=s.magnitude)
                for part in s.parts[1:]:
                    s.magnitude.addcmul_(part, part)
                # rsqrt costs more than both of these.
                s.p.mul_(s.magnitude.clamp_min_(1).sqrt_().reciprocal_()[:, None])
            else:
                s.p.clamp_(-1, 1)
            r = s.fill_residual()
            if s.box is None:
                torch.lerp(s.x, r, blend * stretch, out=s.over)
                s.x.lerp_(r, blend)
            else:
                s.over.copy_(s.x)
                s.x.lerp_(r, blend).clamp_(*s.box)
                s.over.lerp_(s.x, stretch)

    def gap(self) -> tuple[Tensor, Tensor]:
        """Duality gap and primal objective of each image.

        The gap is a sum of terms that are nonnegative pixel by pixel, 1/2 (x - r)^2 and |D x| - <p, D x>,
        and not the difference of two sums: float32 resolves it down to 1e-7.
        """
        gap: Any = 0.0
        primal: Any = 0.0
        for s in self.bands:
            torch.sub(s.x_below, s.x_above, out=s.slope_down)
            torch.sub(s.x_right, s.x_left, out=s.slope_right)
            s.slope_end.zero_()
            if self.isotropic:
                torch.mul(s.slope_parts[0], s.slope_parts[0], out=s.magnitude)
                for part in s.slope_parts[1:]:
                    s.magnitude.addcmul_(part, part)
                s.magnitude.sqrt_()
                primal = primal + s.magnitude.sum((1, 2, 3))
                for q, part in zip(s.parts, s.slope_parts, strict=True):
                    s.magnitude.addcmul_(q, part, value=-1)
                gap = gap + s.magnitude.sum((1, 2, 3))
            else:
                size = s.slope.abs()
                primal = primal + size.sum((1, 2, 3, 4))
                gap = gap + size.addcmul_(s.p, s.slope, value=-1).sum((1, 2, 3, 4))
            r = s.fill_residual()
            if s.box is not None:
                # The dual objective is attained at r clamped to the box, not at r.
                gap = gap - 0.5 * (r - r.clamp(*s.box)).square_().sum((1, 2, 3))
            r.sub_(s.x)
            gap = gap + 0.5 * r.mul_(r).sum((1, 2, 3))
            torch.sub(s.x, s.v, out=r)
            primal = primal + 0.5 * r.mul_(r).sum((1, 2, 3))
        return gap, primal


class _Band:
    """The views of one band of rows that a step needs, made once."""

    def __init__(
        self,
        v: Tensor,
        p: Tensor,
        x: Tensor,
        over: Tensor,
        residual: Tensor,
        magnitude: Tensor,
        slopes: Tensor,
        box: _Bounds | None,
        a: int,
        b: int,
    ) -> None:
        height, width = v.shape[-2:]
        last = min(b, height - 1)
        self.v, self.x, self.over, self.p = v[:, :, a:b], x[:, :, a:b], over[:, :, a:b], p[:, :, :, a:b]
        self.p_down, self.p_right = p[:, 0, :, a:last], p[:, 1, :, a:b, : width - 1]
        self.over_below, self.over_above = over[:, :, a + 1 : last + 1], over[:, :, a:last]
        self.over_right, self.over_left = over[:, :, a:b, 1:], over[:, :, a:b, : width - 1]
        self.x_below, self.x_above = x[:, :, a + 1 : last + 1], x[:, :, a:last]
        self.x_right, self.x_left = x[:, :, a:b, 1:], x[:, :, a:b, : width - 1]
        self.box = None if box is None else (box[0][:, :, a:b], box[1][:, :, a:b])
        self.residual = residual[:, :, : b - a]
        top = max(a, 1)
        self.residual_below, self.p_above = self.residual[:, :, top - a :], p[:, 0, :, top - 1 : b - 1]
        self.residual_right, self.p_left = self.residual[..., 1:], self.p_right
        self.p_parts = (p[:, 0, :, a:b], p[:, 1, :, a:b])
        self.magnitude = magnitude[:, :, : b - a]
        self.slope = slopes[:, :, :, : b - a]
        self.slope_down, self.slope_end = self.slope[:, 0, :, : last - a], self.slope[:, 0, :, last - a :]
        self.slope_right = self.slope[:, 1, ..., : width - 1]
        if magnitude.shape[1] == v.shape[1]:
            self.parts = list(self.p.unbind(1))
            self.slope_parts = list(self.slope.unbind(1))
        else:
            self.parts = [self.p[:, d, c, None] for d in range(2) for c in range(v.shape[1])]
            self.slope_parts = [self.slope[:, d, c, None] for d in range(2) for c in range(v.shape[1])]

    def fill_residual(self) -> Tensor:
        """Set and return r = v - D^T p, the image the dual field stands for."""
        torch.add(self.v, self.p_parts[0], out=self.residual)
        self.residual.add_(self.p_parts[1])
        self.residual_below.sub_(self.p_above)
        self.residual_right.sub_(self.p_left)
        return self.residual


def _descend(
    v: Tensor,
    p: Tensor,
    x: Tensor,
    prior: TV,
    steps: int | None,
    tol: float,
    box: _Bounds | None,
    *,
    warm: bool,
) -> None:
    """Prox of TV with weight 1: ``p`` holds the first dual field and gets the last, ``x`` gets the image."""
    active: list[int] | None = None  # indices of the images still in work, None for all
    torch.sub(v, Gradient().adjoint(p.flatten(1, 2)), out=x) if warm else x.copy_(v)
    if box is not None:
        x.clamp_(*box)
    sweep = _Sweep(v, p, x, x.clone(), box, prior)
    # The gap cannot fall below what rounding adds to the differences of x.
    floor = 4 * torch.finfo(v.dtype).eps * v.abs().sum((1, 2, 3))
    tau, sigma = _TAU, _STRETCH / (8 * _TAU)
    due = [0 if warm else 8] * len(v)  # step at which each image in work is looked at next
    for k in range(steps or _LIMIT):
        if steps is None and k == min(due):
            gap, primal = sweep.gap()
            excess = (gap / (tol * primal + floor)).nan_to_num_(0).tolist()
            # An image stops only when it is due, so that its steps do not depend on its neighbours.
            keep = [i for i, ratio in enumerate(excess) if due[i] > k or ratio > 1]
            due = [_next_look(k, excess[i]) if due[i] == k else due[i] for i in keep]
            if len(keep) < len(excess):
                if active is not None:
                    x[active], p[active] = sweep.x, sweep.p
                if not keep:
                    return
                active = keep if active is None else [active[i] for i in keep]
                bounds = None if sweep.box is None else (sweep.box[0][keep], sweep.box[1][keep])
                sweep = _Sweep(sweep.v[keep], sweep.p[keep], sweep.x[keep], sweep.over[keep], bounds, prior)
                floor = floor[keep]
        theta = 1 / math.sqrt(1 + 2 * _GAMMA * tau)
        blend = tau / (1 + tau)
        sweep.step(sigma, blend, 1 + theta)
        tau, sigma = tau * theta, sigma / theta
    if active is not None:
        x[active], p[active] = sweep.x, sweep.p
    if steps is None:
        warnings.warn(
            f"TV.prox: relative gap {tol:g} not reached in {_LIMIT} steps", RuntimeWarning, stacklevel=2
        )


def _next_look(k: int, excess: float) -> int:
    """Step of the next look at an image whose gap at step ``k`` is ``excess`` times too large.

    Gaps fall about as 1/k^3 before the asymptotic regime; multiples of 4 let the images of a
    batch share looks.
    """
    guess = k * min(math.cbrt(excess), 3.0)
    return max(k + 4, 4 * math.ceil(guess / 4))


class _Implicit(torch.autograd.Function):
    """The prox with its derivative at the solution, from the optimality conditions.

    Write w for the weight and z = p + D x / (8 w). Where |z| <= 1 the image is flat, D x = 0, and stays
    flat: p moves freely. Elsewhere p = D x / |D x|: its component along n = z / |z| is fixed and those across
    it follow D x / |D x|. With Q the projection onto the free components, E = |D x| / w off the flat part and
    0 on it, the change of the image is

        dx = J (dv - dw D^T n'),   J = I - D^T Q (Q (E + D D^T) Q)^+ Q D,   n' = n off the flat part, 0 on it.

    With a box, pixels at a bound do not move: D D^T becomes D C D^T, and C surrounds J, C = 0 on them and 1
    elsewhere. J is symmetric, so one solve with the incoming gradient yields both derivatives.
    """

    @staticmethod
    def forward(
        ctx: Any,
        v: Tensor,
        weight: Tensor,
        run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        prior: TV,
        box: Box | None,
    ) -> tuple[Tensor, Tensor]:
        """Solve without a graph, keep the solution."""
        x, p = run(v.detach(), weight.detach())
        ctx.save_for_backward(x, p, weight)
        ctx.prior, ctx.box = prior, box
        ctx.mark_non_differentiable(p)
        return x, p

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """J times the incoming gradient, and its inner product with -D^T n'."""
        x, p, weight = ctx.saved_tensors
        prior: TV = ctx.prior
        gradient = Gradient()
        live = weight > 0
        slope = gradient(x) / torch.where(live, weight, 1.0)
        z = p + slope / 8
        if prior.isotropic:
            shape = (slope.shape[0], 2, x.shape[1], *x.shape[2:])
            size = prior._magnitude(z)[:, None]
            edge = (size > 1) & live[:, None]
            normal = (torch.where(edge, z.view(shape) / torch.where(edge, size, 1.0), 0.0)).view_as(z)
            steep = torch.where(edge, prior._magnitude(slope)[:, None], 0.0)
            axes = (1, 2) if prior.coupled else (1,)

            def free(q: Tensor) -> Tensor:
                along = (q * normal).view(shape).sum(axes, keepdim=True)
                return q - (normal.view(shape) * along).view_as(q)

            def stiff(q: Tensor) -> Tensor:
                return (steep * q.view(shape)).view_as(q)
        else:
            edge = (z.abs() > 1) & live
            normal = torch.where(edge, z.sign(), 0.0)

            def free(q: Tensor) -> Tensor:
                return torch.where(edge, 0.0, q)

            def stiff(q: Tensor) -> Tensor:
                return torch.zeros_like(q)

        def inside(u: Tensor) -> Tensor:
            if ctx.box is None:
                return u
            lower, upper = ctx.box.bounds(x)
            return torch.where((x > lower) & (x < upper), u, 0.0)

        def system(q: Tensor) -> Tensor:
            q = free(q)
            return free(stiff(q) + gradient(inside(gradient.adjoint(q)))) + damping * q

        # The system is singular, and rounding leaves its right-hand side a little outside its range: the
        # damping keeps conjugate gradients from chasing that part, which D^T would remove anyway.
        double = x.dtype == torch.float64
        damping = 1e-6 if double else 1e-4
        grad = inside(grad)
        moved = conjugate_gradient(system, free(gradient(grad)), rtol=1e-6 if double else 1e-4)
        to_v = torch.where(live, inside(grad - gradient.adjoint(free(moved))), grad)
        to_weight = -(gradient(to_v) * normal).flatten(1).sum(1).view(-1, 1, 1, 1)
        return to_v, to_weight, None, None, None
