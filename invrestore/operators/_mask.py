"""Missing pixels: masks and sparse sampling."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Self

import torch
import torch.nn.functional as F

from invrestore._checks import check_finite, check_nonnegative, check_rng, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.operators._base import DataStep, LinearOperator

__all__ = ["Mask", "SparseSampling"]

_MAD_TO_STD = 1 / 0.6744897501960817
"""Ratio of standard deviation to median absolute value of a centred normal variable."""


def _normalised_mask(mask: object) -> Tensor:
    """The mask as a boolean or floating tensor with four axes; raises on anything that is no usable mask."""
    if not isinstance(mask, torch.Tensor):
        if not hasattr(mask, "__array__"):
            raise DTypeError(
                "Mask",
                expected="mask as a torch.Tensor",
                found=type(mask).__name__,
                remedy="torch.as_tensor converts lists.",
            )
        mask = torch.as_tensor(mask)
    if mask.is_complex():
        raise DTypeError("Mask", expected="a boolean or real mask", found=str(mask.dtype))
    if not 2 <= mask.ndim <= 4 or mask.numel() == 0:
        raise ShapeError(
            "Mask",
            expected="mask of shape (H, W), (C, H, W) or (B, C, H, W) with at least one pixel",
            found=str(tuple(mask.shape)),
        )
    if not (mask.is_floating_point() or mask.dtype == torch.bool):
        if bool(((mask != 0) & (mask != 1)).any()):
            raise RangeError(
                "Mask",
                expected="a whole-number mask to hold 0 and 1 only",
                found=f"values from {int(mask.min())} to {int(mask.max())}",
                remedy="mask > 127 turns an 8-bit picture into a mask.",
            )
        mask = mask.bool()
    if mask.is_floating_point():
        check_finite("Mask", "mask", mask.detach())
    full = mask[(None,) * (4 - mask.ndim)]
    empty = ~(full != 0).flatten(1).any(1)
    if bool(empty.any()):
        where = "" if full.shape[0] == 1 else f" for image {int(empty.nonzero()[0])}"
        raise RangeError(
            "Mask",
            expected="a mask that keeps at least one pixel",
            found=f"an empty mask{where}",
            remedy="True (or 1) marks known pixels; invert a mask of holes with ~mask.",
        )
    return full


@dataclasses.dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """``A x = mask * x``: pixels are missing (mask 0), kept (1) or weighted (any real number).

    Args:
        mask: Boolean (True where known) or real, finite, of shape (H, W), (C, H, W) or (B, C, H, W); an axis
            B or C of length 1 stands for all images or channels. numpy arrays are converted.

    Shapes:
        x, y: (B, C, H, W) with the mask's H and W; unknown pixels of y are 0 and ignored.

    Raises:
        RangeError: The mask is all zero (for any image), not finite, or whole numbers other than 0 and 1.
        ShapeError: The mask has fewer than two or more than four axes, or the image another size.
        DTypeError: The mask is no array, or complex.

    Example:
        >>> A = Mask(torch.tensor([[True, False]]))
        >>> A(torch.tensor([[[[3.0, 5.0]]]]))
        tensor([[[[3., 0.]]]])
    """

    mask: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _normalised_mask(self.mask))

    @property
    def input_shape(self) -> Shape | None:
        """(C, H, W) for a mask with several channels; None for a one-channel mask, which fits any C."""
        return tuple(self.mask.shape[1:]) if self.mask.shape[1] > 1 else None

    def _check_size(self, where: str, name: str, x: Tensor) -> Tensor:
        b, c, h, w = self.mask.shape
        fits = (
            x.ndim == 4
            and tuple(x.shape[2:]) == (h, w)
            and (c == 1 or x.shape[1] == c)
            and (b == 1 or x.shape[0] == b)
        )
        if not fits:
            expected = f"{name} to fit the mask ({b if b > 1 else 'any'}, {c if c > 1 else 'any'}, {h}, {w})"
            raise ShapeError(
                where,
                expected=expected,
                found=str(tuple(x.shape)),
                remedy="Mask and image need the same height and width; images are (B, C, H, W).",
            )
        return x

    def _check_input(self, x: object, where: str = "") -> Tensor:
        return self._check_size(where or self.name, "x", super()._check_input(x, where))

    def _check_output(self, y: object, where: str) -> Tensor:
        return self._check_size(where, "y", super()._check_output(y, where))

    def _weights(self, like: Tensor) -> Tensor:
        return self.mask.to(like.dtype) if self.mask.dtype == torch.bool or like.is_complex() else self.mask

    def _apply(self, x: Tensor) -> Tensor:
        return (self._weights(x) * x).to(x.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self._weights(y) * y).to(y.dtype)

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Largest absolute mask value, shape () or (B,) for one mask per image."""
        if self.mask.dtype == torch.bool:
            top = self.mask.new_ones(self.mask.shape[0], dtype=torch.get_default_dtype())
        else:
            top = self.mask.abs().flatten(1).amax(1)
        return top[0] if top.shape[0] == 1 else top

    def initial(self, y: Tensor, input_shape: Shape) -> Tensor:
        """Known pixels divided by the mask, holes filled from averages over ever larger squares of known pixels."""
        known = (self._weights(y) != 0).to(y.dtype).expand_as(y)
        return self._fill(self.pinv(y), known)

    def interpolate(
        self, y: Tensor, tension: float = 0.5, *, rtol: float = 1e-3, max_steps: int = 200
    ) -> Tensor:
        """Known pixels divided by the mask, holes filled by a thin plate under tension.

        The image minimises ``||D^T D x||^2 + tension ||D x||^2``, D forward differences, among those with the known
        pixels: biharmonic at tension 0, which overshoots in large holes, harmonic at infinity, which is pointed at
        single pixels. Conjugate gradients begin with ``initial``.

        Args:
            y: Measurement, (B, C, H, W).
            tension: >= 0; 0.5 is best or nearly so for scattered pixels, squares, scratches and letters.
            rtol: Relative residual at which conjugate gradients stop.
            max_steps: Steps after which they stop anyway; only large holes take more.

        Returns:
            (B, C, H, W).

        Raises:
            RangeError: ``tension`` is negative or not finite.
            ShapeError: ``y`` does not fit the mask.

        Reference:
            Smith and Wessel (1990), Gridding with continuous curvature splines in tension.
        """
        from invrestore.operators._gradient import Gradient
        from invrestore.operators._linalg import conjugate_gradient

        where = f"{self.name}.interpolate"
        y = self._check_output(y, where)
        check_nonnegative(where, "tension", tension)
        D = Gradient()
        hole = (self._weights(y) == 0).to(y.dtype)
        first = self.initial(y, tuple(y.shape[1:]))

        def bent(x: Tensor) -> Tensor:
            laplacian = D.gram(x)
            return hole * (D.gram(laplacian) + tension * laplacian)

        filling = conjugate_gradient(
            lambda x: bent(hole * x),
            -bent((1 - hole) * first),
            hole * first,
            rtol=rtol,
            max_steps=max_steps,
            warn=False,
        )
        return torch.where(hole > 0, filling, first)

    @classmethod
    def _fill(cls, x: Tensor, known: Tensor) -> Tensor:
        """Fill holes: average known pixels two by two down to a picture without holes, interpolate on the way up."""
        if bool((known > 0).all()) or max(x.shape[-2:]) == 1:
            return x
        half = [1 if n == 1 else 2 for n in x.shape[-2:]]
        share = F.avg_pool2d(known, half, ceil_mode=True)
        mean = F.avg_pool2d(x * known, half, ceil_mode=True) / torch.where(share > 0, share, 1.0)
        coarse = cls._fill(mean, (share > 0).to(x.dtype))
        up = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return torch.where(known > 0, x, up)

    def data_step(self, y: Tensor) -> DataStep:
        """``(z + step m y) / (1 + step m^2)``, pixel by pixel."""
        m = self._weights(y)
        back, gram = m * y, m * m

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            s = expand(step, z)
            return ((z + s * back) / (1 + s * gram)).to(z.dtype)

        return step_from

    def pinv(self, y: Tensor) -> Tensor:
        """``y / m`` where the mask is not 0, else 0."""
        return self.project(torch.zeros_like(y), y)

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """``y / m`` where the mask is not 0, else ``z``; unknown pixels are kept bit for bit."""
        where = f"{self.name}.project"
        z, y = self._check_input(z, where), self._check_output(y, where)
        known = self.mask != 0
        if self.mask.dtype == torch.bool:
            return torch.where(known, y, z)
        # The divisor is made safe first: a division by 0 in the branch not taken would poison gradients.
        return torch.where(known, y / torch.where(known, self.mask, 1), z).to(z.dtype)

    def estimate_sigma(self, y: Tensor) -> Tensor:
        """Noise standard deviation of each measurement, shape (B,), from the known pixels alone.

        Where at least 64 squares of 2x2 known pixels exist, the median absolute value of their diagonal
        Haar coefficients (overlapping squares), divided by 0.6745. Sparser masks use, along each row, the
        difference between a known pixel and the line through its known neighbours on either side, scaled
        to unit noise gain: on textured images an upper estimate, because the neighbours lie apart. Where no
        row has three known pixels, differences of consecutive known pixels. One known pixel gives 0.
        """
        y = self._check_output(y, f"{self.name}.estimate_sigma")
        values = y.detach().to(torch.promote_types(y.dtype, torch.float32))
        mask = self.mask.detach().expand(y.shape[0], *self.mask.shape[1:])
        gain = mask.to(values.dtype).expand_as(values)
        known = gain != 0
        # y = m x + n: with v = y / m the noise of v has standard deviation sigma / |m|.
        gain = torch.where(known, gain, 1)
        v, var = values / gain, 1 / gain**2
        return torch.stack([_sigma_of_known(*one) for one in zip(v, var, known, strict=True)])


def _robust_std(d: Tensor) -> Tensor:
    return d.abs().median() * _MAD_TO_STD


def _sigma_of_known(v: Tensor, var: Tensor, known: Tensor) -> Tensor:
    """Noise level of one image from its known values ``v`` (C, H, W), of noise variance sigma^2 ``var``."""

    def corners(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return t[:, :-1, :-1], t[:, :-1, 1:], t[:, 1:, :-1], t[:, 1:, 1:]

    a, b, c, d = corners(v)
    full = torch.stack(corners(known)).all(0)
    if int(full.sum()) >= 64:
        scale = torch.stack(corners(var)).sum(0).sqrt()
        return _robust_std(((a - b - c + d) / scale)[full])
    index = known.flatten().nonzero()[:, 0]
    if index.numel() < 2:
        return v.new_zeros(())
    width = v.shape[-1]
    values, variances = v.flatten()[index], var.flatten()[index]
    row, col = index // width, (index % width).to(v.dtype)
    same_row = row[2:] == row[:-2] if index.numel() > 2 else row.new_zeros(0, dtype=torch.bool)
    if bool(same_row.any()):
        t = (col[1:-1] - col[:-2]) / (col[2:] - col[:-2])
        gap = values[1:-1] - (1 - t) * values[:-2] - t * values[2:]
        spread = variances[1:-1] + (1 - t) ** 2 * variances[:-2] + t**2 * variances[2:]
        return _robust_std((gap / spread.sqrt())[same_row])
    return _robust_std((values[1:] - values[:-1]) / (variances[1:] + variances[:-1]).sqrt())


def _sobel_magnitude(guide: Tensor) -> Tensor:
    """Gradient magnitude (B, H, W) of the channel mean, borders replicated."""
    gray = F.pad(guide.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    smooth, slope = guide.new_tensor([1.0, 2.0, 1.0]), guide.new_tensor([-1.0, 0.0, 1.0])
    kernel = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]
    magnitude: Tensor = torch.linalg.vector_norm(F.conv2d(gray, kernel), dim=1)
    return magnitude


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class SparseSampling(Mask):
    """A mask that keeps an exact number of pixels, drawn uniformly or guided by edges.

    ``round(keep H W)`` pixels (at least one) are kept in all channels. With a guide image, pixels are drawn
    without replacement with probability proportional to its Sobel gradient magnitude, plus a hundredth of
    the mean magnitude so that flat areas keep some.

    Args:
        shape: (C, H, W) of the image.
        keep: Fraction of kept pixels, in (0, 1]; 0.01 to 0.2 is typical.
        guide: Image (C, H, W) or (B, C, H, W) of the same height and width whose edges attract samples; a
            batch gives each image its own mask.
        rng: Random source; None is a generator seeded with 0, so that the same call gives the same mask.

    Raises:
        RangeError: ``keep`` is outside (0, 1], or the guide is not finite.
        ShapeError: ``shape`` is not (C, H, W), or the guide has another size.

    Example:
        >>> int(SparseSampling((3, 10, 10), keep=0.2).mask.sum())
        20

    Reference:
        Sampling without replacement by exponential races: Efraimidis and Spirakis (2006).
    """

    shape: Shape
    keep: float

    def __init__(
        self,
        shape: Shape,
        *,
        keep: float = 0.1,
        guide: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        where = "SparseSampling"
        check_rng(where, rng)
        known = isinstance(shape, tuple | list) and len(shape) == 3
        if not known or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
            raise ShapeError(where, expected="shape (C, H, W) of whole numbers >= 1", found=str(shape))
        if isinstance(keep, bool) or not isinstance(keep, int | float):
            raise DTypeError(where, expected="keep as a number", found=type(keep).__name__)
        if not 0 < keep <= 1:
            raise RangeError(
                where,
                expected="keep in (0, 1]",
                found=f"{keep:g}",
                remedy="keep is a fraction: 10 % of the pixels is 0.1." if keep > 1 else "",
            )
        _, height, width = shape
        rng = torch.Generator().manual_seed(0) if rng is None else rng
        weight = torch.ones(1, height * width, dtype=torch.float64, device=rng.device)
        if guide is not None:
            weight = self._edge_weights(guide, height, width).to(rng.device)
        race = -torch.log1p(-torch.rand(weight.shape, generator=rng, dtype=torch.float64, device=rng.device))
        count = max(1, math.floor(keep * height * width + 0.5))
        first = (race / weight).topk(count, dim=1, largest=False).indices
        mask = torch.zeros(weight.shape, dtype=torch.bool, device=rng.device).scatter_(1, first, True)
        mask = mask.view(-1, 1, height, width)
        object.__setattr__(self, "mask", mask if guide is None else mask.to(guide.device))
        object.__setattr__(self, "shape", tuple(shape))
        object.__setattr__(self, "keep", float(keep))

    @staticmethod
    def _edge_weights(guide: Tensor, height: int, width: int) -> Tensor:
        where = "SparseSampling"
        if not isinstance(guide, torch.Tensor) or not guide.is_floating_point():
            found = str(guide.dtype) if isinstance(guide, torch.Tensor) else type(guide).__name__
            raise DTypeError(where, expected="guide as a floating-point torch.Tensor", found=found)
        if guide.ndim not in (3, 4) or tuple(guide.shape[-2:]) != (height, width):
            raise ShapeError(
                where,
                expected=f"guide of shape (C, {height}, {width}) or (B, C, {height}, {width})",
                found=str(tuple(guide.shape)),
            )
        check_finite(where, "guide", guide)
        edges = _sobel_magnitude((guide if guide.ndim == 4 else guide[None]).detach().double()).flatten(1)
        mean = edges.mean(1, keepdim=True)
        return torch.where(mean > 0, edges + 0.01 * mean, torch.ones_like(edges))

    @property
    def input_shape(self) -> Shape | None:
        """(C, H, W) as given."""
        return self.shape

    def to(self, target: torch.device | torch.dtype | str) -> Self:
        """Copy with the same kept pixels on another device."""
        moved = copy.copy(self)
        moved.__dict__.pop("_memory", None)
        if not isinstance(target, torch.dtype):
            object.__setattr__(moved, "mask", self.mask.to(target))
        return moved
