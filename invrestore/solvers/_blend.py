"""What is done with a generated image afterwards: put back the data, blend seams away, transplant brightness."""

from __future__ import annotations

from typing import TypeGuard

import torch
import torch.nn.functional as F

from invrestore._checks import check_image
from invrestore._types import Tensor
from invrestore.errors import CapabilityError, ShapeError
from invrestore.fidelity import Fidelity, Interval
from invrestore.kernels import gaussian
from invrestore.operators import JPEG, Blur, Grayscale, LinearOperator, Operator, Quantize, Value
from invrestore.operators._linalg import conjugate_gradient

__all__ = [
    "back_project",
    "importance_weights",
    "poisson_blend",
    "smooth_chroma",
    "transplant_value",
    "weighs_gray",
]


def importance_weights(mask: Tensor, window: int = 7) -> Tensor:
    """Weight of each known pixel by the holes around it: W_i = sum over j in N(i) of (1 - M_j) / |N(i)|, 0 in holes.

    N(i) is the ``window`` x ``window`` square about pixel i, cut at the borders of the image. Known pixels with
    no hole in their square get 0.

    Args:
        mask: Mask, nonzero where known, (B, C, H, W).
        window: Odd side of the square.

    Shapes:
        Returns: (B, C, H, W), values in [0, 1).

    Raises:
        ShapeError: ``window`` is even or < 1.

    Example:
        >>> importance_weights(torch.tensor([[[[1.0, 1.0, 0.0]]]]), window=3)
        tensor([[[[0.0000, 0.3333, 0.0000]]]])

    Reference:
        Yeh et al. (2017), equation 3.
    """
    if window < 1 or window % 2 == 0:
        raise ShapeError("importance_weights", expected="an odd window >= 1", found=str(window))
    known = (check_image("importance_weights", mask, "mask") != 0).to(mask.dtype)
    # Pixels beyond the border belong to no square, so they count neither as holes nor as members.
    holes = F.avg_pool2d(1 - known, window, stride=1, padding=window // 2, count_include_pad=False)
    return known * holes


def _check_pair(where: str, x: Tensor, y: Tensor) -> None:
    check_image(where, x)
    check_image(where, y, "y")
    if x.shape != y.shape:
        raise ShapeError(where, expected=f"y of x's shape {tuple(x.shape)}", found=str(tuple(y.shape)))


def poisson_blend(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """``y`` where known, and in the holes the image with the gradients of ``x`` that meets ``y`` at their rims.

    In the holes, the result u minimises sum |grad u - grad x|^2 with u = y outside; the correction u - x is the
    harmonic function with the values y - x on the rim. It is solved for by conjugate gradients on the five-point
    Laplacian, each image and channel of its own, with free borders of the image.

    Args:
        x: Source of the gradients, (B, C, H, W).
        y: Image to keep where ``mask`` is not 0, (B, C, H, W).
        mask: (B or 1, C or 1, H, W), boolean or real, nonzero where y is known. A channel without any known pixel
            keeps ``x``.

    Shapes:
        Returns: (B, C, H, W). A constant added to x does not change it.

    Raises:
        ShapeError: The shapes do not fit.

    Reference:
        Perez, Gangnet and Blake (2003), equation 4.
    """
    _check_pair("poisson_blend", x, y)
    try:
        hole = (mask == 0).to(x.dtype).expand(x.shape)
    except RuntimeError as error:
        raise ShapeError(
            "poisson_blend", expected=f"a mask that fits {tuple(x.shape)}", found=str(tuple(mask.shape))
        ) from error
    offset = (1 - hole) * (y - x)

    def laplacian(u: Tensor) -> Tensor:
        down, right = u.diff(dim=-2), u.diff(dim=-1)
        return (
            F.pad(down, (0, 0, 1, 0))
            - F.pad(down, (0, 0, 0, 1))
            + F.pad(right, (1, 0))
            - F.pad(right, (0, 1))
        )

    # Outside the holes the system is the identity with right-hand side 0, which keeps it positive definite.
    def system(e: Tensor) -> Tensor:
        inside = hole * e
        return hole * laplacian(inside) + (1 - hole) * e

    def rows(t: Tensor) -> Tensor:
        return t.reshape(-1, 1, *t.shape[-2:])

    def by_channel(e: Tensor) -> Tensor:
        return rows(system(e.view(x.shape)))

    correction = conjugate_gradient(by_channel, rows(-hole * laplacian(offset))).view(x.shape)
    return torch.where(hole > 0, x + correction, y)


def transplant_value(x: Tensor, v: Tensor) -> Tensor:
    """``x`` with the value channel max(R, G, B) of HSV replaced by ``v``; hue and saturation stay.

    Args:
        x: Colours, (B, 3, H, W); negative values count as 0.
        v: New value, (B, 1, H, W).

    Shapes:
        Returns: (B, 3, H, W); where x is black, gray of value v.

    Raises:
        ShapeError: ``x`` has not three channels, or ``v`` does not fit.

    Example:
        >>> transplant_value(torch.tensor([0.2, 0.4, 0.1]).view(1, 3, 1, 1), torch.full((1, 1, 1, 1), 0.8)).flatten()
        tensor([0.4000, 0.8000, 0.2000])
    """
    where = "transplant_value"
    check_image(where, x)
    check_image(where, v, "v")
    wanted = (x.shape[0], 1, *x.shape[2:])
    if x.shape[1] != 3 or tuple(v.shape) != wanted:
        raise ShapeError(
            where,
            expected=f"x (B, 3, H, W) and v {wanted}",
            found=f"{tuple(x.shape)} and {tuple(v.shape)}",
        )
    colour = x.clamp_min(0)
    top = colour.amax(1, keepdim=True)
    shade = colour / torch.where(top > 0, top, 1.0)
    return torch.where(top > 0, shade, 1.0) * v


def weighs_gray(operator: Operator) -> TypeGuard[Grayscale]:
    """Whether an operator gives gray pictures a brightness: weighted channels whose weights do not cancel."""
    return isinstance(operator, Grayscale) and float(torch.as_tensor(operator.weights).sum()) != 0


def smooth_chroma(x: Tensor, y: Tensor, operator: Grayscale, width: float) -> Tensor:
    """The measured luma with the colours of ``x``, after those were smoothed by a Gaussian.

    Colours vary more slowly over natural images than luma does, and what a generator gets wrong varies fast. With the
    weights w of the operator and their sum s, the colours c = x - w.x / s have luma 0, smoothed or not; the result
    y / s + smoothed c therefore fits the measurement exactly.

    Args:
        x: Colours, (B, C, H, W).
        y: Luma, (B, 1, H, W).
        operator: The weights, whose sum must not be 0.
        width: Standard deviation of the Gaussian in pixels, > 0. Edges are continued by their last pixel.

    Shapes:
        Returns: (B, C, H, W).

    Example:
        >>> from invrestore.operators import Grayscale
        >>> x, y = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)
        >>> torch.allclose(Grayscale()(smooth_chroma(x, y, Grayscale(), 2.0)), y, atol=1e-5)
        True
    """
    total = operator(torch.ones_like(x[:1, :, :1, :1]))
    chroma = x - operator(x) / total
    return y / total + Blur(gaussian(width).to(x), padding="replicate")(chroma)


def has_exact_step(operator: Operator, fidelity: Fidelity) -> bool:
    """Whether ``back_project`` knows how to make images meet measurements of this operator."""
    exact = isinstance(operator, LinearOperator | Quantize | JPEG | Value)
    return exact or isinstance(fidelity, Interval)


def back_project(x: Tensor, y: Tensor, operator: Operator, fidelity: Fidelity | None = None) -> Tensor:
    """The image nearest to ``x`` that fits the measurement.

    Linear operators: x + A^+ (y - A x). Quantize, and bounds given as ``fidelity.Interval``: values clipped to the
    interval that rounds to y. JPEG: DCT coefficients clipped to theirs. Value: brightness replaced, hue and
    saturation kept.

    Args:
        x: Images, (B, C, H, W).
        y: Measurements, (B, *operator.output_shape).
        operator: A.
        fidelity: An Interval replaces the operator's own bounds; others are not looked at.

    Raises:
        CapabilityError: The operator is nonlinear and none of these.

    Example:
        >>> from invrestore.operators import Mask
        >>> A = Mask(torch.tensor([[True, False]]))
        >>> back_project(torch.zeros(1, 1, 1, 2), torch.tensor([[[[5.0, 0.0]]]]), A)
        tensor([[[[5., 0.]]]])
    """
    if isinstance(fidelity, Interval):
        return torch.minimum(torch.maximum(x, fidelity.lower), fidelity.upper)
    if isinstance(operator, LinearOperator):
        return operator.project(x, y)
    if isinstance(operator, Quantize):
        lower, upper = operator.interval(y)
        return torch.minimum(torch.maximum(x, lower), upper)
    if isinstance(operator, JPEG):
        return operator.project(x, y)
    if isinstance(operator, Value):
        return transplant_value(x, y)
    raise CapabilityError(
        "back_project",
        expected="a linear operator, Quantize, JPEG or Value",
        found=operator.name,
        remedy="A nonlinear operator has no projection in closed form; leave the image as it is.",
    )
