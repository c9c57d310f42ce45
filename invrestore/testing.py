"""Laws that every operator and every prior obeys, for users' own classes as for ours.

``check_operator`` and ``check_prior`` raise ``LawError`` with the number that gives the fault away; the
strategies ``images``, ``kernels`` and ``masks`` feed property tests (they need the package hypothesis,
loaded on first use).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from invrestore._checks import check_count, check_rng, expand
from invrestore._types import Shape, Tensor
from invrestore.errors import CapabilityError, DTypeError, InvrestoreError, ShapeError
from invrestore.operators import LinearOperator, Operator
from invrestore.operators._linalg import batch_of, per_image_dot, per_image_norm
from invrestore.priors import Capability, Prior

__all__ = ["LawError", "check_operator", "check_prior", "images", "kernels", "masks"]

_LOW_PRECISION = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Relative deviation from the float64 result that rounding explains."""


class LawError(InvrestoreError, AssertionError):
    """An operator or prior broke a law it must obey."""


def _randn(shape: tuple[int, ...], rng: torch.Generator, like: Tensor | None = None) -> Tensor:
    noise = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float64)
    return noise if like is None else noise.to(like.device)


def _rand(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float64)


def _relative(a: Tensor, b: Tensor) -> float:
    """Largest deviation of an image of ``a`` from its partner in ``b``, relative to that one's norm."""
    return (
        float((per_image_norm(a - b) / per_image_norm(b).clamp_min(1e-300)).max())
        if bool((a != b).any())
        else 0.0
    )


def _require(holds: bool, where: str, expected: str, found: str, remedy: str = "") -> None:
    if not holds:
        raise LawError(where, expected=expected, found=found, remedy=remedy)


def _image_shape(operator: Operator) -> Shape:
    """A shape the operator takes: its own, else one that common factors divide and most kernels fit into."""
    if operator.input_shape is not None:
        return operator.input_shape
    channels = max((t.shape[1] for t in operator.tensors() if t.ndim == 4), default=1)
    return (channels if channels > 1 else 3, 24, 48)


def check_operator(
    operator: Operator,
    rng: torch.Generator,
    *,
    input_shape: Shape | None = None,
    batch: int = 2,
    tol: float = 1e-12,
    prox: bool = True,
) -> None:
    """Check the laws of an operator; those of linear operators where it says it is one.

    Every operator: shapes as announced, dtype and device kept in float32, float64 and bfloat16, twice the
    same call the same answer, the input untouched, each image of a batch on its own. Linear ones also:
    linearity, the adjoint identity <A x, v> = <x, A^H v>, the gradient of <A x, v> equal to the adjoint, the
    norm a bound, and the optimality condition of ``prox``.

    Args:
        operator: Converted to float64 for the laws.
        rng: Source of the random images; the same seed checks the same images.
        input_shape: (C, H, W); default the operator's own, or 3 (or its number of channels) x 24 x 48.
        batch: Number of images; operators with per-image tensors bring their own number.
        tol: Largest relative error of the adjoint and linearity identities.
        prox: Also check ``prox``, which may be slow for operators without a closed form.

    Raises:
        LawError: A law is broken; an AssertionError too. A wrong adjoint is reported with the ratio of the
            two inner products, which shows a wrong scale at once.

    Example:
        >>> from invrestore.operators import Identity
        >>> check_operator(Identity(), torch.Generator().manual_seed(0))
    """
    if not isinstance(operator, Operator):
        raise DTypeError("check_operator", expected="an invrestore Operator", found=type(operator).__name__)
    if check_rng("check_operator", rng) is None:
        raise DTypeError("check_operator", expected="rng as a torch.Generator", found="None")
    check_count("check_operator", "batch", batch)
    op = operator.to(torch.float64)
    shape = tuple(input_shape) if input_shape is not None else _image_shape(op)
    own = batch_of(op)
    count = own if own > 1 else batch
    x = _rand((count, *shape), rng)
    y = _check_calls(op, x, own == 1)
    _check_types(operator, x)
    if isinstance(op, LinearOperator):
        _check_linear(op, x, y, rng, tol)
        _check_norm(op, x, shape)
        if prox:
            _check_operator_prox(op, x, y, rng)


def _check_calls(op: Operator, x: Tensor, alone: bool) -> Tensor:
    before = x.clone()
    y = op(x)
    _require(
        bool((x == before).all()), f"{op.name}: input", "an input left as it was", "one changed in place"
    )
    announced = (x.shape[0], *op.output_shape_of(tuple(x.shape[1:])))
    _require(tuple(y.shape) == announced, f"{op.name}.output_shape_of", str(tuple(y.shape)), str(announced))
    first = y.clone()
    again = op(x)
    _require(
        bool((again == first).all()), f"{op.name}: state", "the same answer twice", "another the second time"
    )
    if alone and x.shape[0] > 1:
        each = torch.cat([op(x[i : i + 1]) for i in range(x.shape[0])])
        gap = _relative(each, y)
        _require(
            gap <= 1e-10, f"{op.name}: batch", "each image on its own", f"a deviation of {gap:.1e} in a batch"
        )
    return y


def _check_types(operator: Operator, x: Tensor) -> None:
    exact = operator.to(torch.float64)(x)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        typed = operator.to(dtype)
        y = typed(x.to(dtype))
        _require(
            y.dtype == dtype and y.device == x.device, f"{operator.name}: type", f"{dtype} kept", f"{y.dtype}"
        )
        if dtype in _LOW_PRECISION and operator.is_linear:
            gap = _relative(y.double(), exact)
            allowed = _LOW_PRECISION[dtype]
            _require(
                gap <= allowed,
                f"{operator.name}: {dtype}",
                f"{allowed:g} of the float64 answer",
                f"{gap:.1e}",
            )
        if isinstance(typed, LinearOperator):
            back = typed.adjoint(y)
            _require(back.dtype == dtype, f"{operator.name}.adjoint: type", f"{dtype} kept", f"{back.dtype}")


def _check_linear(op: LinearOperator, x: Tensor, y: Tensor, rng: torch.Generator, tol: float) -> None:
    x = x - 0.5
    z = _randn(tuple(x.shape), rng, x)
    y = op(x)
    v = _randn(tuple(y.shape), rng, x).to(y.dtype)
    gap = float(
        (
            (per_image_norm(op(2.5 * x - z) - 2.5 * y + op(z)))
            / (per_image_norm(y) + per_image_norm(op(z))).clamp_min(1e-300)
        ).max()
    )
    _require(
        gap <= tol, f"{op.name}: linearity", "A(2.5 x - z) = 2.5 A x - A z", f"a relative error of {gap:.1e}"
    )
    back = op.adjoint(v)
    _require(back.shape == x.shape, f"{op.name}.adjoint: shape", str(tuple(x.shape)), str(tuple(back.shape)))
    _require(
        bool((op.adjoint(v) == back).all()), f"{op.name}.adjoint: state", "the same answer twice", "another"
    )
    left, right = per_image_dot(y, v), per_image_dot(x.to(back.dtype), back)
    scale = (per_image_norm(y) * per_image_norm(v)).clamp_min(1e-300)
    error = ((left - right).abs() / scale).max()
    worst = int(((left - right).abs() / scale).argmax())
    ratio = float(right[worst] / left[worst]) if float(left[worst]) != 0 else math.inf
    _require(
        float(error) <= tol,
        f"{op.name}.adjoint",
        f"<A x, v> = <x, A^H v> to {tol:g}",
        f"{float(left[worst]):.6g} and {float(right[worst]):.6g}, ratio {ratio:.6g}, relative error "
        f"{float(error):.1e}",
        "A ratio that is the same for every seed is a wrong scale.",
    )
    point = x.clone().requires_grad_(True)
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(per_image_dot(v, op(point)).sum(), point)
    gap = float((per_image_norm(grad - back) / per_image_norm(v).clamp_min(1e-300)).max())
    _require(
        gap <= 1e3 * tol,
        f"{op.name}: gradient",
        "autograd to agree with the adjoint",
        f"an error of {gap:.1e}",
    )


def _check_norm(op: LinearOperator, x: Tensor, shape: Shape) -> None:
    bound = op.norm(shape).to(x.device, torch.float64)
    u = x
    for _ in range(20):
        # Power iteration: a random image alone has far less gain than the worst one.
        size = per_image_norm(u).clamp_min(1e-300)
        gain = per_image_norm(op(u)) / size
        short = float((gain - bound).max())
        _require(
            short <= 1e-6 * float(gain.max()),
            f"{op.name}.norm",
            "a bound on ||A x|| / ||x||",
            f"norm {float(bound.min()):.6g} and an image of gain {float(gain.max()):.6g}",
        )
        u = op.adjoint(op(u)).to(u.dtype) / expand(size, u)
        if not bool((per_image_norm(u) > 0).all()):
            return


def _check_operator_prox(op: LinearOperator, x: Tensor, y: Tensor, rng: torch.Generator) -> None:
    z = x + 0.1 * _randn(tuple(x.shape), rng, x)
    for step in (0.0, 0.7, 20.0):
        p = op.prox(z, y, step)
        residual = p - z + step * op.adjoint(op(p) - y)
        gap = float(
            (per_image_norm(residual) / (per_image_norm(z) + step * per_image_norm(op.adjoint(y)))).max()
        )
        _require(
            gap <= 1e-9,
            f"{op.name}.prox",
            f"x - z + step A^H (A x - y) = 0 at step {step:g}",
            f"a relative residual of {gap:.1e}",
        )


def check_prior(
    prior: Prior,
    rng: torch.Generator | None = None,
    *,
    shape: Shape = (3, 12, 17),
    batch: int = 2,
    lam: float = 0.1,
    tol: float = 1e-4,
) -> None:
    """Check the laws of whatever a prior says it can do.

    ``value``: one number for each image, on its own. ``grad``: agrees with central differences of ``value``.
    ``prox``: no nearby point has a lower objective, nothing happens at step 0, one answer for one question,
    each image on its own, and for a convex prior no two points move apart; not of a denoiser without value, whose step
    only stands in for one. ``denoise``: shape and type kept.

    Args:
        prior: Its weight is set to ``lam`` where it is None.
        rng: Source of the random images; None is one seeded with 0.
        shape: (C, H, W) of the images.
        batch: Number of images.
        lam: Stand-in weight.
        tol: Relative slack for a ``prox`` that is itself iterative, in the objective (and its root in the
        image).

    Raises:
        LawError: A law is broken; an AssertionError too.
    """
    if not isinstance(prior, Prior):
        raise DTypeError("check_prior", expected="an invrestore Prior", found=type(prior).__name__)
    rng = check_rng("check_prior", rng) or torch.Generator().manual_seed(0)
    checked = {Capability.VALUE, Capability.GRAD, Capability.PROX, Capability.DENOISE}
    if not checked & prior.capabilities:
        raise CapabilityError(
            "check_prior",
            expected="a prior with value, grad, prox or denoise",
            found=f"{prior.name} with {', '.join(sorted(c.value for c in prior.capabilities)) or 'nothing'}",
        )
    p = prior.with_lam(lam) if prior.lam is None else prior
    x = _rand((batch, *shape), rng)
    if p.can(Capability.VALUE):
        _check_value(p, x)
    if p.can(Capability.GRAD):
        _check_gradient(p, x, rng)
    # The step of a denoiser stands in for a proximal map, and is none.
    if p.can(Capability.PROX) and (p.can(Capability.VALUE) or not p.can(Capability.DENOISE)):
        _check_prior_prox(p, x, rng, tol)
    if p.can(Capability.DENOISE):
        weights = [t for t in p.tensors() if t.is_floating_point()]
        typed = x.to(weights[0].dtype) if weights else x
        out = p.denoise(typed, 0.1)
        kept = out.shape == typed.shape and out.dtype == typed.dtype
        _require(
            kept,
            f"{p.name}.denoise",
            f"{tuple(x.shape)} in {typed.dtype}",
            f"{tuple(out.shape)} in {out.dtype}",
        )


def _check_value(p: Prior, x: Tensor) -> None:
    value = p.value(x)
    _require(value.shape == x.shape[:1], f"{p.name}.value", f"shape ({x.shape[0]},)", str(tuple(value.shape)))
    each = torch.cat([p.value(x[i : i + 1]) for i in range(x.shape[0])])
    close = torch.allclose(each, value, rtol=1e-9, atol=1e-12)
    _require(
        close,
        f"{p.name}.value: batch",
        "each image on its own",
        f"{value.tolist()} and alone {each.tolist()}",
    )


def _check_gradient(p: Prior, x: Tensor, rng: torch.Generator) -> None:
    if not p.can(Capability.VALUE):
        return
    direction = _randn(tuple(x.shape), rng, x)
    h = 1e-6
    slope = (p.value(x + h * direction) - p.value(x - h * direction)) / (2 * h)
    claimed = per_image_dot(p.grad(x), direction)
    gap = float(((slope - claimed).abs() / (slope.abs() + claimed.abs()).clamp_min(1e-12)).max())
    _require(gap <= 1e-5, f"{p.name}.grad", f"the slope {slope.tolist()}", f"{claimed.tolist()}")


def _check_prior_prox(p: Prior, v: Tensor, rng: torch.Generator, tol: float) -> None:
    where = f"{p.name}.prox"
    size = per_image_norm(v)
    gap = float((per_image_norm(p.prox(v, 0.0) - v) / size).max())
    _require(
        gap <= math.sqrt(tol),
        where,
        "v itself at step 0 (for v inside the domain)",
        f"a deviation of {gap:.1e}",
    )
    for step in (0.3, 1.0, 3.0):
        u = p.prox(v, step)
        _require(
            u.shape == v.shape and u.dtype == v.dtype,
            where,
            f"{tuple(v.shape)}, {v.dtype}",
            f"{u.shape}, {u.dtype}",
        )
        again = p.prox(v, step)
        _require(bool((again == u).all()), where, "the same answer twice", "another the second time")
        alone = torch.cat([p.prox(v[i : i + 1], step) for i in range(v.shape[0])])
        gap = float((per_image_norm(alone - u) / size).max())
        _require(
            gap <= math.sqrt(tol), f"{where}: batch", "each image on its own", f"a deviation of {gap:.1e}"
        )
        if p.can(Capability.VALUE):
            _check_minimum(p, u, v, step, rng, tol)
        if p.is_convex:
            w = v + 0.3 * _randn(tuple(v.shape), rng, v)
            apart, before = per_image_norm(p.prox(w, step) - u), per_image_norm(w - v)
            worst = float((apart / before).max())
            allowed = 1 + math.sqrt(tol)
            _require(
                worst <= allowed,
                where,
                "points that do not move apart (a convex prior)",
                f"a factor {worst:.4f}",
            )


def _check_minimum(p: Prior, u: Tensor, v: Tensor, step: float, rng: torch.Generator, tol: float) -> None:
    def objective(x: Tensor) -> Tensor:
        return step * p.value(x) + 0.5 * (x - v).flatten(1).square().sum(1)

    least = objective(u)
    _require(
        bool(torch.isfinite(least).all()), f"{p.name}.prox", "a point of finite value", f"{least.tolist()}"
    )
    directions = [_randn(tuple(v.shape), rng, v) for _ in range(4)]
    directions = [d * expand(per_image_norm(v) / per_image_norm(d), d) for d in directions]
    # Towards the input, the mean, zero and back: where a wrong weight or a missing half shows at once.
    directions += [
        v - u,
        u - v,
        -u,
        u.mean((-2, -1), keepdim=True) - u,
        p.prox(v, 2 * step) - u,
        p.prox(v, step / 2) - u,
    ]
    for d in directions:
        for length in (1.0, 0.3, 0.1, 0.03, 0.01, 0.001):
            other = objective(u + length * d)
            lower = float(((least - other) / objective(v).clamp_min(1e-300)).max())
            _require(
                lower <= tol,
                f"{p.name}.prox",
                f"the least value of step g(x) + 1/2 ||x - v||^2 at step {step:g}",
                f"{least.tolist()}, and {other.tolist()} at a point nearby",
                "A weight used twice, not at all, or without the step?",
            )


def images(
    *,
    channels: tuple[int, ...] = (1, 3),
    min_side: int = 1,
    max_side: int = 24,
    max_batch: int = 3,
    dtype: torch.dtype = torch.float64,
) -> Any:
    """Hypothesis strategy: random images (B, C, H, W) in [0, 1], odd, thin and single-pixel sizes included.

    Args:
        channels: Numbers of channels to choose from.
        min_side: Smallest height and width.
        max_side: Largest height and width.
        max_batch: Largest batch.
        dtype: Floating type.
    """
    from hypothesis import strategies as st

    if not 1 <= min_side <= max_side:
        raise ShapeError(
            "testing.images", expected="1 <= min_side <= max_side", found=f"{min_side} and {max_side}"
        )
    side = st.integers(min_side, max_side)

    def make(batch: int, c: int, h: int, w: int, seed: int, kind: str) -> Tensor:
        if kind == "constant":
            return torch.full((batch, c, h, w), (seed % 11) / 10, dtype=dtype)
        x = _rand((batch, c, h, w), torch.Generator().manual_seed(seed)).to(dtype)
        return x.round() if kind == "binary" else x

    kinds = st.sampled_from(["uniform", "binary", "constant"])
    return st.builds(
        make, st.integers(1, max_batch), st.sampled_from(channels), side, side, st.integers(0, 2**31), kinds
    )


def kernels(*, max_side: int = 7, dtype: torch.dtype = torch.float64) -> Any:
    """Hypothesis strategy: blur kernels (1, 1, kh, kw) >= 0 of sum 1, with even, odd, thin and single taps.

    Args:
        max_side: Largest side.
        dtype: Floating type.
    """
    from hypothesis import strategies as st

    side = st.integers(1, max_side)

    def make(kh: int, kw: int, seed: int) -> Tensor:
        k = _rand((1, 1, kh, kw), torch.Generator().manual_seed(seed)) + 1e-3
        return (k / k.sum()).to(dtype)

    return st.builds(make, side, side, st.integers(0, 2**31))


def masks(*, height: int, width: int, channels: int = 1, dtype: torch.dtype = torch.float64) -> Any:
    """Hypothesis strategy: masks (1, C, H, W) of zeros and ones, at least one of them a one.

    Args:
        height: Height of the mask.
        width: Width of the mask.
        channels: Number of channels.
        dtype: Floating type.
    """
    from hypothesis import strategies as st

    def make(keep: float, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        mask = (_rand((1, channels, height, width), rng) < keep).to(dtype)
        mask.view(-1)[seed % mask.numel()] = 1
        return mask

    return st.builds(make, st.floats(0.02, 1.0), st.integers(0, 2**31))
