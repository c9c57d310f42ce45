"""Iterative linear algebra on batches of images, each image on its own.

Inner products are taken per image and an image that has converged is frozen, so that its answer does not
depend on its neighbours. The host looks at the device only every few steps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from invrestore._types import Shape, Tensor
from invrestore.errors import CapabilityError
from invrestore.operators._base import LinearOperator, Operator

__all__ = [
    "batch_of",
    "conjugate_gradient",
    "lanczos_norm_bound",
    "least_squares",
    "per_image_dot",
    "per_image_norm",
]

_CHECK_EVERY = 8
"""Steps between two looks of the host at the convergence flags of another device."""

_FULL_LIMIT = 768
"""Largest min(measurement size, image size) for which ``least_squares`` reorthogonalises its whole basis."""


def batch_of(operator: Operator) -> int:
    """Number of images an operator with per-image tensors is made for, 1 where any number fits."""
    return max((t.shape[0] for t in operator.tensors() if t.ndim == 4), default=1)


# On the CPU both go from image to image: torch adds up a row of a batch in another order than a row alone, and an
# image must not depend on its neighbours.


def per_image_dot(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product <a, b> of each image, (B,)."""
    product = (a.conj() * b).real if a.is_complex() else a * b
    if product.device.type != "cpu":
        return product.flatten(1).sum(1)
    return torch.stack([image.sum() for image in product])


def per_image_norm(a: Tensor) -> Tensor:
    """Euclidean norm of each image, (B,)."""
    if a.device.type != "cpu":
        return torch.linalg.vector_norm(a.flatten(1), dim=1)  # type: ignore[no-any-return]
    return torch.stack([torch.linalg.vector_norm(image) for image in a])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """``per_image_dot`` shaped to multiply images."""
    return per_image_dot(a, b).view(-1, *[1] * (a.ndim - 1))


def _norm(a: Tensor) -> Tensor:
    return per_image_norm(a).view(-1, *[1] * (a.ndim - 1))


def _working(x: Tensor) -> Tensor:
    """Half-precision vectors cannot carry a Krylov recursion; they are lifted to float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _safe_ratio(a: Tensor, b: Tensor) -> Tensor:
    """Quotient ``a / b``, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def _default_rtol(dtype: torch.dtype) -> float:
    return 1e-12 if dtype in (torch.float64, torch.complex128) else 1e-6


def conjugate_gradient(
    apply: Callable[[Tensor], Tensor],
    rhs: Tensor,
    init: Tensor | None = None,
    *,
    rtol: float | None = None,
    reduction: float = 0.0,
    max_steps: int = 2000,
    warn: bool = True,
) -> Tensor:
    """Solve ``M x = rhs`` for a symmetric positive definite ``M``, image by image.

    Differentiable in ``rhs`` and in every tensor that ``apply`` uses, by the implicit function theorem: the
    backward pass solves one more system with the same matrix and stores no iterates. Second derivatives are
    refused.

    Args:
        apply: ``x -> M x``, acting on each image of the batch separately.
        rhs: Right-hand sides, (B, ...).
        init: First guess; zero if None. It changes the number of steps, not the answer.
        rtol: Stop an image when its residual norm is below ``rtol * ||rhs||``; default 1e-6 in float32 (and
            in bfloat16, which is solved in float32), 1e-12 in float64.
        reduction: Stop it also when that norm has fallen to this share of what it was at ``init``: for a caller
            that comes back with a better guess. Solutions that derivatives are taken of go on to ``rtol``.
        max_steps: Give up after this many steps, with a RuntimeWarning.
        warn: False gives up in silence.

    Reference:
        Hestenes and Stiefel (1952). The residual is the recursive one; on a singular or indefinite direction
        the image is frozen instead of dividing by zero.
    """
    dtype = rhs.dtype
    b = _working(rhs)

    def lifted(x: Tensor) -> Tensor:
        return apply(x).to(b.dtype)

    with torch.no_grad():
        start = None if init is None else _working(init.detach())
        goal = rtol or _default_rtol(b.dtype)
        solution = _cg_loop(lifted, b.detach(), start, goal, reduction, max_steps, warn)
    if torch.is_grad_enabled():
        # The residual is zero up to rtol in value, but carries d(rhs) - dM x, whose image under M^-1 is dx.
        residual = b - lifted(solution)
        if residual.requires_grad:
            if reduction > 0:
                return conjugate_gradient(apply, rhs, solution, rtol=rtol, max_steps=max_steps, warn=warn)
            solution = _Implicit.apply(residual, solution, lifted, rtol, max_steps)
    return solution.to(dtype)


class _Once(torch.autograd.Function):
    """Identity whose derivative is refused: it would leave out how the solution itself moves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *sources: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise CapabilityError(
            "prox, pinv",
            expected="first derivatives of an iterative solution",
            found="a second one",
            remedy="Closed forms (circular Blur, Mask, Downsample with a named filter) have all orders.",
        )


def _first_order(grad: Tensor, *sources: Tensor) -> Tensor:
    """``grad``, tied to what it depends on so that a second derivative raises instead of being incomplete."""
    if not torch.is_grad_enabled():
        return grad
    return _Once.apply(grad, *sources)  # type: ignore[no-any-return]


class _Implicit(torch.autograd.Function):
    """``x`` in value; ``M^-1`` as derivative with respect to the residual."""

    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        solution: Tensor,
        apply: Callable[[Tensor], Tensor],
        rtol: float | None,
        max_steps: int,
    ) -> Tensor:
        ctx.save_for_backward(residual)
        ctx.matrix, ctx.rtol, ctx.max_steps = apply, rtol, max_steps
        return solution.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            solved = conjugate_gradient(ctx.matrix, grad, rtol=ctx.rtol, max_steps=ctx.max_steps)
        return _first_order(solved, grad, *ctx.saved_tensors), None, None, None, None


def _cg_loop(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    init: Tensor | None,
    rtol: float,
    reduction: float,
    max_steps: int,
    warn: bool,
) -> Tensor:
    check_every = 1 if b.device.type == "cpu" else _CHECK_EVERY
    x = torch.zeros_like(b) if init is None else init.to(b.dtype).clone()
    r = b.clone() if init is None else b - apply(x)
    p = r.clone()
    rho = _dot(r, r)
    goal = torch.maximum(rtol**2 * _dot(b, b), reduction**2 * rho)
    for step in range(max_steps + 1):
        active = rho > goal
        if step % check_every == 0 and not bool(active.any()):
            return x
        if step == max_steps:
            break
        q = apply(p)
        curvature = _dot(p, q)
        alpha = torch.where(active & (curvature > 0), rho / curvature, 0.0)
        x = x + alpha * p
        r = r - alpha * q
        new = _dot(r, r)
        # A frozen image keeps its rho, so it stays frozen.
        p = r + torch.where(active, _safe_ratio(new, rho), 0.0) * p
        rho = torch.where(active, new, rho)
    if not warn:
        return x
    warnings.warn(
        f"conjugate_gradient: {int((rho > goal).sum())} image(s) short of a relative residual of {rtol:g} "
        f"after {max_steps} steps; the answer is the best reached. A smaller step makes the system easier.",
        RuntimeWarning,
        stacklevel=2,
    )
    return x


def least_squares(
    operator: LinearOperator, y: Tensor, *, rtol: float | None = None, max_steps: int = 1000
) -> Tensor:
    """Minimum-norm least-squares solution ``A^+ y`` by Golub-Kahan bidiagonalisation, image by image.

    Small problems (the smaller of image and measurement up to 768 numbers) keep every basis vector orthogonal
    to all before it and solve the projected problem by a singular value decomposition, where values below
    ``rcond = 10 n eps`` of the largest count as zero: the answer is that of a dense pseudo-inverse. Larger
    ones run LSQR, which stops an image when ``||A^H r||`` falls below rtol times its first value.

    Differentiable once in ``y`` and in the operator's tensors (assuming its rank does not change).

    Args:
        operator: A.
        y: Measurements (B, ...).
        rtol: For LSQR; default 1e-6 in float32, 1e-13 in float64.
        max_steps: For LSQR; the last iterate is the answer when they are used up, which for an ill-posed
            operator is a regularised solution.

    Reference:
        Paige and Saunders (1982), LSQR. The derivative of the pseudo-inverse is that of Golub and Pereyra
        (1973).
    """
    b = _working(y)
    rtol = rtol or (1e-13 if b.dtype in (torch.float64, torch.complex128) else 1e-6)
    parameters = [t for t in operator.tensors() if t.requires_grad]
    if torch.is_grad_enabled() and (b.requires_grad or parameters):
        x = _PseudoInverse.apply(b, operator, rtol, max_steps, *parameters)
    else:
        with torch.no_grad():
            x = _pseudo_inverse(operator, operator.adjoint, b, rtol, max_steps)
    return x.to(y.dtype)  # type: ignore[no-any-return]


class _PseudoInverse(torch.autograd.Function):
    """``A^+ y`` with d(A^+) = -A^+ dA A^+ + A^+ A^+H dA^H (I - A A^+) + (I - A^+ A) dA^H A^+H A^+."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, operator: LinearOperator, rtol: float, max_steps: int, *parameters: Tensor
    ) -> Tensor:
        x = _pseudo_inverse(operator, operator.adjoint, y, rtol, max_steps)
        ctx.operator, ctx.rtol, ctx.max_steps = operator, rtol, max_steps
        ctx.save_for_backward(x, y, *parameters)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            grads = _PseudoInverse._gradients(ctx, grad)
        to_y, *to_parameters = (
            None if g is None else _first_order(g, grad, *ctx.saved_tensors[1:]) for g in grads
        )
        return to_y, None, None, None, *to_parameters

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *parameters = ctx.saved_tensors
        # The saved solution comes back with its history, which leads to this very function.
        x, y = x.detach(), y.detach()
        A: LinearOperator = ctx.operator

        def plus(v: Tensor) -> Tensor:
            return _pseudo_inverse(A, A.adjoint, v, ctx.rtol, ctx.max_steps)

        def plus_adjoint(v: Tensor) -> Tensor:
            return _pseudo_inverse(A.adjoint, A, v, ctx.rtol, ctx.max_steps)

        to_y = plus_adjoint(grad)
        to_parameters: tuple[Tensor | None, ...] = ()
        if parameters:
            residual = y - A(x)
            null = grad - plus(A(grad))
            twice, w = plus(to_y), plus_adjoint(x)
            with torch.enable_grad():
                pairing = _dot(A(twice), residual) + _dot(A(null), w) - _dot(A(x), to_y)
                to_parameters = torch.autograd.grad(pairing.sum(), parameters, allow_unused=True)
        return to_y, *to_parameters


def _pseudo_inverse(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    y: Tensor,
    rtol: float,
    max_steps: int,
) -> Tensor:
    back = adjoint(y)
    if min(y[0].numel(), back[0].numel()) <= _FULL_LIMIT:
        return _bidiagonal_solve(forward, adjoint, y)
    return _lsqr(forward, adjoint, y, rtol, max_steps)


def _orthogonalise(v: Tensor, basis: Tensor) -> Tensor:
    """``v`` (B, n) less its components along the rows of ``basis`` (B, k, n); twice is enough (Kahan)."""
    for _ in range(2):
        v = v - torch.einsum("bkn,bk->bn", basis, torch.einsum("bkn,bn->bk", basis.conj(), v))
    return v


def _unit(v: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Norm (B,) and direction of each row; both 0 once the norm is rounding, which ends the recursion."""
    size = torch.linalg.vector_norm(v, dim=1)
    size = torch.where(size > floor, size, 0.0)
    return size, torch.where(size[:, None] > 0, v / torch.where(size > 0, size, 1.0)[:, None], 0.0)


def _bidiagonal_solve(
    forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], y: Tensor
) -> Tensor:
    batch = y.shape[0]
    eps = torch.finfo(y.dtype).eps
    zero = torch.zeros((), dtype=y.real.dtype, device=y.device)
    beta, u = _unit(y.flatten(1), zero)
    first = adjoint(u.view(y.shape))
    shape = first.shape
    alpha, v = _unit(first.flatten(1), zero)
    scale = alpha
    most = min(u.shape[1], v.shape[1])
    left, right = u[:, None], v[:, None]
    alphas, betas = [alpha], [beta]
    for step in range(most):
        if step % _CHECK_EVERY == 0 and not bool(((alphas[-1] > 0) & (betas[-1] > 0)).any()):
            break
        # Norms below this are what rounding leaves of an exhausted Krylov space.
        floor = 10 * eps * scale
        u = _orthogonalise(forward(v.view(shape)).flatten(1) - alphas[-1][:, None] * u, left)
        beta, u = _unit(u, floor)
        v = _orthogonalise(adjoint(u.view(y.shape)).flatten(1) - beta[:, None] * v, right)
        alpha, v = _unit(v, floor)
        scale = torch.maximum(scale, torch.maximum(alpha, beta))
        left, right = torch.cat([left, u[:, None]], 1), torch.cat([right, v[:, None]], 1)
        alphas.append(alpha)
        betas.append(beta)
    # Lower bidiagonal B: alphas on the diagonal, the betas after the first below it.
    k = len(alphas)
    matrix = torch.diag_embed(torch.stack(alphas, 1))
    if k > 1:
        matrix = matrix + torch.diag_embed(torch.stack(betas[1:], 1), offset=-1)
    rcond = 10 * max(y[0].numel(), first[0].numel()) * eps
    inverse = torch.linalg.pinv(matrix, rtol=rcond)
    weights = inverse[:, :, 0] * betas[0][:, None]
    return torch.einsum("bkn,bk->bn", right, weights.to(right.dtype)).view(batch, *shape[1:])


def _lsqr(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    y: Tensor,
    rtol: float,
    max_steps: int,
) -> Tensor:
    beta = _norm(y)
    u = _safe_ratio(y, beta)
    v = adjoint(u)
    alpha = _norm(v)
    v = _safe_ratio(v, alpha)
    w, x = v, torch.zeros_like(v)
    phi, rho_bar = beta, alpha
    goal = rtol * alpha * beta
    active = goal > 0
    for step in range(max_steps):
        if step % _CHECK_EVERY == 0 and not bool(active.any()):
            break
        u = forward(v) - _like(alpha, u) * u
        beta = _norm(u)
        u = _safe_ratio(u, beta)
        v = adjoint(u) - _like(beta, v) * v
        alpha = _norm(v)
        v = _safe_ratio(v, alpha)
        rho = torch.hypot(rho_bar, _like(beta, rho_bar))
        c, s = _safe_ratio(rho_bar, rho), _safe_ratio(_like(beta, rho), rho)
        theta, rho_bar = s * alpha, -c * alpha
        x = x + torch.where(active, _safe_ratio(c * _like(phi, c), rho), 0.0) * w
        phi = s * _like(phi, s)
        w = v - _safe_ratio(theta, rho) * w
        # ||A^H r|| = phi alpha |c|.
        active = active & (phi * alpha * c.abs() > _like(goal, phi))
    return x


def _like(scalar: Tensor, other: Tensor) -> Tensor:
    """Per-image number shaped to the axes of ``other``; measurements may have fewer than images."""
    return scalar.view(-1, *[1] * (other.ndim - 1))


def lanczos_norm_bound(operator: LinearOperator, input_shape: Shape, *, steps: int = 64) -> Tensor:
    """Upper bound on the spectral norm from Lanczos on ``A^H A`` with a fixed random start.

    The largest Ritz value theta lies below the squared norm; dividing by ``1 - epsilon`` with
    ``epsilon = (log(1.648 sqrt(n) / delta) / (2 k - 1))^2`` after k steps puts it above with probability 1 -
    delta over the starts, delta = 1e-6. Twice the same call gives the same number.

    Args:
        operator: A.
        input_shape: (C, H, W).
        steps: k; 64 enlarge the norm by 1-2 % at n = 10^6.

    Returns:
        Tensor (), or (B,) for an operator with per-image tensors.

    Reference:
        Kuczynski and Wozniakowski (1992), theorem 3.2. Lanczos without reorthogonalisation: lost
        orthogonality repeats Ritz values but does not move the largest.
    """
    reference = next(
        (t for t in operator.tensors() if t.is_floating_point() or t.is_complex()), torch.empty(0)
    )
    batch = batch_of(operator)
    dtype = torch.float64 if reference.dtype in (torch.float64, torch.complex128) else torch.float32
    rng = torch.Generator().manual_seed(0)
    n = math.prod(input_shape)
    # Each image gets the same start, so that its bound does not depend on its place in the batch.
    v = torch.randn(1, *input_shape, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        v = (v / v.norm()).to(reference.device, dtype).expand(batch, *input_shape)
        previous, beta = torch.zeros_like(v), torch.zeros_like(_dot(v, v))
        alphas, betas = [], []
        for _ in range(steps):
            w = operator.adjoint(operator(v)) - beta * previous
            alpha = _dot(v, w)
            w = w - alpha * v
            alphas.append(alpha.flatten())
            beta = _norm(w)
            # Once the Krylov space is exhausted what remains is noise: cut the recursion there.
            beta = torch.where(beta > 32 * torch.finfo(dtype).eps * alphas[0].view_as(beta), beta, 0.0)
            previous, v = v, _safe_ratio(w, beta)
            betas.append(beta.flatten())
        matrix = torch.diag_embed(torch.stack(alphas, 1).double())
        off = torch.diag_embed(torch.stack(betas[:-1], 1).double(), offset=1)
        ritz = torch.linalg.eigvalsh(matrix + off + off.mT).amax(1).clamp_min(0)
    epsilon = (math.log(1.648 * math.sqrt(n) / 1e-6) / (2 * steps - 1)) ** 2
    bound: Tensor = ((ritz / (1 - epsilon)).sqrt() * (1 + 4 * torch.finfo(dtype).eps)).to(dtype)
    return bound.squeeze(0) if batch == 1 else bound
