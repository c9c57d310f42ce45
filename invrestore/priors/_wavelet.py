"""Sparsity of wavelet coefficients."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F

from invrestore._checks import (
    check_batch_tensor,
    check_choice,
    check_count,
    check_image,
    check_shape,
    check_sigma,
    check_step,
    check_tensor,
    expand,
)
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import CapabilityError
from invrestore.operators import LinearOperator
from invrestore.operators._wavelet import (
    WaveletTransform,
    approximation_shape,
    check_wavelet,
    map_details,
    shift_offsets,
)
from invrestore.priors._base import Capability, Prior

__all__ = ["Wavelet"]


def _soft(c: Tensor, threshold: PerImage) -> Tensor:
    if not isinstance(threshold, torch.Tensor):
        if not c.is_complex():
            return F.softshrink(c, float(threshold))
        threshold = torch.as_tensor(threshold, dtype=c.real.dtype, device=c.device)
    t = expand(threshold, c)
    if c.is_complex():
        size = c.abs()
        return c * ((size - t).clamp_min(0) / torch.where(size > 0, size, 1))
    assert isinstance(t, torch.Tensor)
    return c - torch.minimum(torch.maximum(c, -t), t)


def _hard(c: Tensor, threshold: PerImage) -> Tensor:
    return torch.where(c.abs() > expand(threshold, c), c, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Wavelet(Prior):
    """``lam * sum_i |(W x)_i|`` over the detail coefficients of an orthonormal wavelet transform W.

    The approximation coefficients (the coarse picture) are not penalised. W is periodic and orthonormal at
    every image size, see ``operators.WaveletTransform``, so that ``prox`` is exact: transform, shrink towards
    zero by lam * step, transform back.

    ``shifts = k > 1`` removes most of the visible blocks of W, in one of two ways:

    - Cycle spinning: ``prox`` is the mean, over k circular shifts, of shift, shrink, shift back. This is a
      proximal map again, of a convex function slightly below the mean penalty (the proximal average of the k
      penalties), which has no closed form and changes with the step. So there is no ``value``, and the answer
      of a solver depends a little on its step size.
    - ``frame=True``: the penalty is the mean over the shifts, and ``analysis`` its Parseval frame. Solvers
      of the primal-dual kind minimise it exactly, at k transforms a step; there is no closed ``prox``.

    ``threshold="hard"`` counts coefficients instead, lam * #{i: (W x)_i != 0}: ``prox`` then keeps a
    coefficient or drops it, at sqrt(2 * lam * step). It is exact too, but the penalty is not convex, its
    ``value`` counts rounding errors as coefficients, and the mean over shifts is no proximal map.

    Args:
        wavelet: One of PyWavelets' orthogonal names: "haar", "db1" to "db38", "sym2" to "sym20", "coif1" to
            "coif17", "dmey" (an exactly orthonormal neighbour of it, see ``operators.WaveletTransform``).
        lam: Weight >= 0, a number or (B,), or None: ``solve`` chooses it. For denoising, between sigma and
            3 sigma; ``sure_lam`` finds it.
        levels: Depth >= 1; None goes on until the filter is longer than the shorter side.
        shifts: Number of circular shifts, >= 1. The first 4 make level 1 translation-invariant, 16 level 2.
        threshold: "soft" for the sum of magnitudes, "hard" for the count.
        frame: Penalise the mean over the shifts instead of averaging proximal maps. Without effect on one
            shift.

    Shapes:
        x, v: (B, C, H, W), any range, real or complex; values are never clamped. Channels are independent.
            16-bit types are computed in float32.

    Raises:
        UnknownNameError: ``wavelet`` or ``threshold`` is no known name.
        RangeError: ``lam`` is negative or not finite, ``levels`` or ``shifts`` is less than 1.
        CapabilityError: ``frame`` with ``threshold="hard"``, which no solver here could minimise.

    Example:
        >>> v = torch.tensor([[[[3.0, 1.0], [1.0, 1.0]]]])
        >>> Wavelet("haar", lam=1.0).prox(v)
        tensor([[[[1.5000, 1.5000],
                  [1.5000, 1.5000]]]])

    Reference:
        Donoho and Johnstone (1994) for the shrinkage; Coifman and Donoho (1995) for cycle spinning; Bauschke,
        Goebel, Lucet and Wang (2008) for the proximal average.
    """

    wavelet: str = "db4"
    levels: int | None = dataclasses.field(default=None, kw_only=True)
    shifts: int = dataclasses.field(default=1, kw_only=True)
    threshold: Literal["soft", "hard"] = dataclasses.field(default="soft", kw_only=True)
    frame: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_wavelet(self.name, self.wavelet)
        if self.levels is not None:
            check_count(self.name, "levels", self.levels)
        check_count(self.name, "shifts", self.shifts)
        check_choice(self.name, "threshold", self.threshold, ("soft", "hard"))
        soft = self.threshold == "soft"
        if self.frame and not soft:
            raise CapabilityError(
                self.name,
                expected="threshold='soft' with frame=True",
                found="threshold='hard'",
                remedy="Leave frame out: hard thresholds are averaged over the shifts.",
            )
        if self.shifts > 1:
            able = {Capability.VALUE, Capability.ANALYSIS} if self.frame else {Capability.PROX}
        else:
            able = {Capability.VALUE, Capability.PROX} | ({Capability.ANALYSIS} if soft else set())
        # The contract has one answer for a whole class; here it depends on the options.
        object.__setattr__(self, "capabilities", frozenset(able))
        object.__setattr__(self, "is_convex", soft)

    def _transform(self) -> WaveletTransform:
        return WaveletTransform(self.wavelet, levels=self.levels, shifts=self.shifts)

    def _checked(self, where: str, x: Tensor, step: PerImage = 1.0) -> Tensor:
        x = check_image(where, x, "x" if where.endswith("value") else "v")
        check_step(where, step)
        check_batch_tensor(where, "step", step, x.shape[0])
        check_batch_tensor(where, "lam", self.lam, x.shape[0])
        return x

    def value(self, x: Tensor) -> Tensor:
        """``lam`` times the penalty of each image, shape (B,); for a frame, the mean over the shifts.

        Raises:
            CapabilityError: Several shifts without ``frame``: what ``prox`` minimises has no closed form.
        """
        if not self.can(Capability.VALUE):
            raise self._lacks("value")
        x = self._checked(f"{self.name}.value", x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        transform = self._transform()
        total: Any = 0.0
        for part in transform.split(transform(x)):
            cost = part.abs() if self.threshold == "soft" else (part != 0).to(x.real.dtype)
            total = total + cost.flatten(1).sum(1)
        # The frame holds W S_j x / sqrt(k), and the mean over j needs 1 / k in all.
        value: Tensor = self.weight * (total / math.sqrt(self.shifts))
        return value

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """argmin_x step * lam * g(x) + 1/2 ||x - v||^2, in closed form; with shifts, cycle spinning.

        Raises:
            CapabilityError: Several shifts with ``frame``.
        """
        if not self.can(Capability.PROX):
            raise CapabilityError(
                f"{self.name}.prox",
                expected="frame=False or shifts=1",
                found=f"frame=True, shifts={self.shifts}",
                remedy="method='pdhg' needs no prox; frame=False averages the proximal maps of the shifts.",
            )
        v = self._checked(f"{self.name}.prox", v, step)
        if self.shifts == 1:
            return self._shrink(v, step)
        total: Any = 0
        for rows, columns in shift_offsets(self.shifts):
            moved = self._shrink(torch.roll(v, (rows, columns), (-2, -1)), step)
            total = total + torch.roll(moved, (-rows, -columns), (-2, -1))
        average: Tensor = total / self.shifts
        return average

    def _shrink(self, v: Tensor, step: PerImage) -> Tensor:
        product = self.weight * step
        if isinstance(product, torch.Tensor):
            product = product.to(v.device, torch.promote_types(v.real.dtype, torch.float32))
        if self.threshold == "hard":
            t = (2 * product).sqrt() if isinstance(product, torch.Tensor) else math.sqrt(2 * product)
            return map_details(v, self.wavelet, self.levels, lambda c: _hard(c, t))
        return map_details(v, self.wavelet, self.levels, lambda c: _soft(c, product))

    def analysis(self, shape: Shape) -> LinearOperator:
        """The transform, approximation included; ``dual_prox`` knows which coefficients are free."""
        if not self.can(Capability.ANALYSIS):
            raise self._lacks("analysis")
        return self._transform()

    def dual_prox(self, q: Tensor) -> Tensor:
        """Projection: details to magnitude <= lam (lam / sqrt(shifts) for the frame), approximation to 0.

        Zero, because the penalty does not depend on the approximation: its conjugate is infinite elsewhere.
        """
        if not self.can(Capability.ANALYSIS):
            raise self._lacks("analysis")
        where = f"{self.name}.dual_prox"
        q = check_tensor(where, "q", q)
        check_shape(
            where, "q", q, (None, None, None) if self.shifts == 1 else (self.shifts, None, None, None)
        )
        bound = expand(self.weight, q)
        if isinstance(bound, torch.Tensor):
            bound = bound.to(q.device, q.real.dtype)
        bound = bound / math.sqrt(self.shifts)
        if q.is_complex():
            size = q.abs()
            p = q * torch.where(size > bound, bound / torch.where(size > bound, size, 1), 1)
        elif isinstance(bound, torch.Tensor):
            p = torch.minimum(torch.maximum(q, -bound), bound)
        else:
            p = q.clamp(-bound, bound)
        rows, columns = approximation_shape(self.wavelet, self.levels, *q.shape[-2:])
        p[..., :rows, :columns] = 0
        return p

    def first_lam(self, sigma: Tensor) -> Tensor:
        """``sigma``; for the count, the weight that drops coefficients below three sigma."""
        return sigma if self.threshold == "soft" else 4.5 * sigma.square()

    def sure_lam(self, y: Tensor, sigma: PerImage) -> Tensor:
        """The weight with which ``prox(y)`` has the least estimated squared error, of each image, (B,).

        Exact minimiser of Stein's unbiased risk estimate for white Gaussian noise,

            SURE(lam) = sum_i min(c_i^2, lam^2) + sigma^2 (n - 2 #{i: |c_i| <= lam}),

        over all detail coefficients c of ``y``, up to the universal bound sigma * sqrt(2 log n). One weight
        serves all levels, where the paper's SureShrink takes one for each. With shifts, risks are averaged.

        Args:
            y: Noisy images, (B, C, H, W), real.
            sigma: Standard deviation of the noise in units of the image range, in [0, 1]; a number or (B,).

        Raises:
            CapabilityError: ``threshold`` is "hard": the risk estimate needs a continuous shrinkage.
            RangeError: ``sigma`` is negative or above 1.

        Reference:
            Donoho and Johnstone (1995), Adapting to unknown smoothness via wavelet shrinkage.
        """
        where = f"{self.name}.sure_lam"
        if self.threshold == "hard":
            raise CapabilityError(
                where,
                expected="threshold='soft'",
                found="threshold='hard'",
                remedy="The universal choice for n pixels is lam = sigma^2 * log(n).",
            )
        y = check_image(where, y, "y")
        check_sigma(where, sigma)
        check_batch_tensor(where, "sigma", sigma, y.shape[0])
        work = torch.promote_types(y.dtype, torch.float32)
        transform = self._transform()
        with torch.no_grad():
            q = transform(y.to(work)) * math.sqrt(self.shifts)
            power = torch.cat([part.flatten(1) for part in transform.split(q)], dim=1).square().double()
            variance = (
                torch.as_tensor(sigma, dtype=torch.float64, device=y.device).square().expand(len(y))[:, None]
            )
            n = power.shape[1]
            power = power.sort(dim=1).values
            # Between two magnitudes the risk grows with lam: its least value is at a magnitude or at 0.
            power = torch.cat([power.new_zeros(len(y), 1), power], dim=1)
            kept = torch.arange(n, -1, -1, device=y.device, dtype=torch.float64)
            risk = power.cumsum(1) + kept * power + variance * (2 * kept - n)
            bound = 2 * variance * math.log(max(n / self.shifts, 1))
            risk = torch.where(power <= bound, risk, torch.inf)
            best = power.gather(1, risk.argmin(1, keepdim=True))
        return best[:, 0].sqrt().to(work)
