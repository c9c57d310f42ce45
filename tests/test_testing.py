from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings

from invrestore import CapabilityError, DTypeError, ShapeError, testing
from invrestore._types import PerImage, Shape, Tensor
from invrestore.operators import Blur, Identity, LinearOperator, Operator
from invrestore.priors import Capability, Prior
from invrestore.testing import LawError, check_operator, check_prior


@dataclasses.dataclass(frozen=True, eq=False)
class Honest(LinearOperator):
    """Three times the image, with one knob for each law to break."""

    fault: str = ""
    calls: list[int] = dataclasses.field(default_factory=list)

    def _apply(self, x: Tensor) -> Tensor:
        self.calls.append(1)
        if self.fault == "state":
            return 3 * x * (1 + 1e-3 * len(self.calls))
        if self.fault == "batch":
            return 3 * x / x.shape[0]
        if self.fault == "dtype":
            return 3 * x.double()
        if self.fault == "affine":
            return 3 * x + 1e-6
        if self.fault == "in-place":
            return x.mul_(3)
        if self.fault == "gradient":
            return 3 * x + (x - x.detach())
        return 3 * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return {"adjoint": 12.0, "sign": -3.0}.get(self.fault, 3.0) * y

    def output_shape_of(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], 1) if self.fault == "shape" else input_shape

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        return torch.tensor(2.9 if self.fault == "norm" else 3.0)

    def prox(self, z: Tensor, y: Tensor, step: PerImage) -> Tensor:
        return super().prox(z, y, 1.0 if self.fault == "prox" else step)


def test_an_honest_operator_passes(rng: torch.Generator) -> None:
    check_operator(Honest(), rng)
    check_operator(Identity(), rng, input_shape=(1, 1, 1), batch=1)
    check_operator(Blur(torch.ones(3, 1, 2, 2) / 4, padding="replicate"), rng)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("adjoint", r"Honest.adjoint.*ratio 4, relative error"),
        ("sign", r"Honest.adjoint.*ratio -1"),
        ("state", "state: expected the same answer twice"),
        ("batch", "batch: expected each image on its own"),
        ("dtype", "type: expected torch.float32 kept, got torch.float64"),
        ("affine", "linearity"),
        ("in-place", "an input left as it was"),
        ("gradient", "autograd to agree with the adjoint"),
        ("shape", "output_shape_of"),
        ("norm", "a bound on"),
        ("prox", r"x - z \+ step A\^H"),
    ],
)
def test_a_planted_fault_is_found_and_named(fault: str, message: str, rng: torch.Generator) -> None:
    with pytest.raises(LawError, match=message):
        check_operator(Honest(fault), rng)


def test_a_law_error_is_an_assertion_and_one_of_ours(rng: torch.Generator) -> None:
    with pytest.raises(AssertionError, match="wrong scale"):
        check_operator(Honest("adjoint"), rng)


def test_prox_can_be_left_out(rng: torch.Generator) -> None:
    check_operator(Honest("prox"), rng, prox=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Clip(Operator):
    """A nonlinear operator."""

    def _apply(self, x: Tensor) -> Tensor:
        return x.clamp(0.2, 0.8)


def test_nonlinear_operators_meet_the_laws_they_have(rng: torch.Generator) -> None:
    check_operator(Clip(), rng)


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge(Prior):
    """lam/2 ||x||^2, with one knob for each law to break."""

    fault: str = ""
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.VALUE, Capability.GRAD, Capability.PROX}
    )
    is_convex: ClassVar[bool] = True

    def value(self, x: Tensor) -> Tensor:
        total = 0.5 * self.weight * x.flatten(1).square().sum(1)
        return total.sum(0, keepdim=True).expand(x.shape[0]) if self.fault == "value" else total

    def grad(self, x: Tensor) -> Tensor:
        return self.weight * x * (2 if self.fault == "grad" else 1)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        weight = self.weight
        if self.fault == "weight":
            weight = 0.1 * weight
        if self.fault == "step":
            step = 1.0
        if self.fault == "apart":
            return 1.3 * v - 0.3 * v.mean() if isinstance(step, float) and step > 0 else v
        if self.fault == "neighbours":
            return v / (1 + step * weight) + 0.1 * step * (v - v.mean(0, keepdim=True))
        return v / (1 + step * weight)


def test_an_honest_prior_passes(rng: torch.Generator) -> None:
    check_prior(Ridge(), rng, tol=1e-10)
    check_prior(Ridge(lam=torch.tensor([2.0])), rng, batch=1, shape=(1, 1, 5))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("value", "each image on its own"),
        ("grad", r"Ridge.grad: expected the slope"),
        ("weight", "A weight used twice, not at all, or without the step"),
        ("step", "v itself at step 0"),
        ("apart", "Ridge.prox"),
        ("neighbours", "batch: expected each image on its own"),
    ],
)
def test_a_planted_fault_of_a_prior_is_found_and_named(
    fault: str, message: str, rng: torch.Generator
) -> None:
    with pytest.raises(LawError, match=message):
        check_prior(Ridge(fault=fault), rng, lam=1.0)


def test_wrong_arguments_are_named(rng: torch.Generator) -> None:
    with pytest.raises(DTypeError, match="an invrestore Operator"):
        check_operator(torch.nn.Identity(), rng)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"rng as a torch.Generator"):
        check_operator(Identity(), None)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="an invrestore Prior"):
        check_prior(Identity(), rng)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"rng as a torch.Generator"):
        check_prior(Ridge(), 0)  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="value, grad, prox or denoise"):
        check_prior(Prior(), rng)
    with pytest.raises(ShapeError, match="min_side <= max_side"):
        testing.images(min_side=3, max_side=2)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(x=testing.images(), kernel=testing.kernels(), mask=testing.masks(height=5, width=4, channels=3))
def test_strategies_give_what_they_promise(x: Tensor, kernel: Tensor, mask: Tensor) -> None:
    assert x.ndim == 4
    assert bool(((x >= 0) & (x <= 1)).all())
    assert kernel.shape[:2] == (1, 1)
    assert float(kernel.sum()) == pytest.approx(1)
    assert mask.shape == (1, 3, 5, 4)
    assert bool(((mask == 0) | (mask == 1)).all())
    assert float(mask.sum()) >= 1
