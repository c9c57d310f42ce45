"""What a solver minimises, with the few maps it may call."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch

from invrestore._types import PerImage, Shape, Tensor
from invrestore.fidelity import L2, Fidelity, Weighted
from invrestore.operators import Identity, LinearOperator, Operator
from invrestore.operators._base import DataStep
from invrestore.operators._linalg import conjugate_gradient
from invrestore.priors import Capability, Prior

__all__ = ["Problem"]


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """argmin_x f(A x; y) + lam * g(x), or lam * g(x) subject to A x = y.

    Attributes:
        y: Measurement, (B, *operator.output_shape).
        operator: A.
        fidelity: f; not used when ``exact``.
        prior: lam * g.
        sigma: Noise standard deviation of each image, (B,), in units of the image range.
        input_shape: (C, H, W) of the image.
        exact: The data hold exactly: a constraint instead of a penalty.
    """

    y: Tensor
    operator: Operator
    fidelity: Fidelity
    prior: Prior
    sigma: Tensor
    input_shape: Shape
    exact: bool = False

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.y.shape[0]

    @property
    def linear(self) -> LinearOperator | None:
        """The operator if it is linear."""
        return self.operator if isinstance(self.operator, LinearOperator) else None

    def data_value(self, x: Tensor) -> Tensor:
        """f(A x; y) of each image, (B,)."""
        return self.fidelity.value(self.operator(x), self.y)

    def data_grad(self, x: Tensor) -> Tensor:
        """Gradient of f(A x; y) in x: J(x)^T f'(A x; y)."""
        if isinstance(self.operator, Identity):
            return self.fidelity.grad(x, self.y)
        return self.operator.vjp(x, self.fidelity.grad(self.operator(x), self.y))

    def objective(self, x: Tensor) -> Tensor | None:
        """F + lam * g of each image, (B,); None where the prior has no value."""
        if not self.prior.can(Capability.VALUE):
            return None
        value = self.prior.value(x)
        return value if self.exact else value + self.data_value(x)

    def misfit(self, x: Tensor) -> Tensor:
        """Root mean square of A x - y for each image, (B,), in units of the image range."""
        return (self.operator(x) - self.y).flatten(1).square().mean(1).sqrt()

    @cached_property
    def curvature(self) -> Tensor | None:
        """Bound on the Lipschitz constant of ``data_grad``, () or (B,); None where none is known."""
        if isinstance(self.fidelity, Weighted):
            top: float | Tensor | None = self.fidelity.weights.amax()
        else:
            top = self.fidelity.curvature
        if self.linear is None or top is None:
            return None
        norm = self.linear.norm(self.input_shape).to(self.y)
        return norm.square() * top

    @cached_property
    def has_data_prox(self) -> bool:
        """Whether ``data_prox`` exists: a linear operator with L2, an exact constraint, or no operator at all."""
        if self.linear is None:
            return False
        return self.exact or isinstance(self.fidelity, L2) or isinstance(self.operator, Identity)

    @cached_property
    def data_prox_is_cheap(self) -> bool:
        """Whether ``data_prox`` has a closed form."""
        return self.has_data_prox and self.linear is not None and self.linear.has_closed_form

    def data_prox(
        self,
        z: Tensor,
        step: PerImage,
        *,
        start: Tensor | None = None,
        rtol: float | None = 1e-5,
        reduction: float = 0.0,
    ) -> Tensor:
        """argmin_x step * f(A x; y) + 1/2 ||x - z||^2; for exact data the nearest image with A x = y.

        Args:
            z: Point to stay near, (B, C, H, W).
            step: Weight of the data, a number or (B,).
            start: Where conjugate gradients begin, for operators without a closed form.
            rtol: Relative residual at which they stop; None takes 1e-6 in float32, 1e-12 in float64.
            reduction: Share of the residual of ``start`` at which they also stop.
        """
        assert self.linear is not None
        if self.exact:
            return self.linear.project(z, self.y)
        if isinstance(self.operator, Identity):
            return self.fidelity.prox(z, self.y, step)
        if self.linear.has_closed_form:
            return self._data_step(z, step)
        operator = self.linear
        s = step.view(-1, 1, 1, 1) if isinstance(step, torch.Tensor) and step.ndim == 1 else step
        rhs = z + s * self._back_projection
        return conjugate_gradient(
            lambda x: x + s * operator.gram(x),
            rhs,
            init=z if start is None else start,
            rtol=rtol,
            reduction=reduction,
        )

    @cached_property
    def _data_step(self) -> DataStep:
        assert self.linear is not None
        return self.linear.data_step(self.y)

    @cached_property
    def _back_projection(self) -> Tensor:
        assert self.linear is not None
        return self.linear.adjoint(self.y)

    def with_prior(self, prior: Prior) -> Problem:
        """The same data under another prior; what was prepared for the data is kept."""
        other = dataclasses.replace(self, prior=prior)
        for key in ("_data_step", "_back_projection", "curvature", "has_data_prox", "data_prox_is_cheap"):
            if key in self.__dict__:
                other.__dict__[key] = self.__dict__[key]
        return other
