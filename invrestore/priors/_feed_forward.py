"""A trained feed-forward restorer as a prior, and what its network gets to see."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from invrestore._checks import check_image, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import DTypeError, ShapeError
from invrestore.networks import Cascade, RestorerNetwork
from invrestore.operators import JPEG, Blur, Downsample, Identity, LinearOperator, Mask, Operator
from invrestore.priors._base import Capability, Prior

__all__ = ["FeedForward", "network_input"]

_OPERATORS: dict[str, tuple[type[Operator], ...]] = {
    "noise": (Identity,),
    "blur": (Blur,),
    "jpeg": (JPEG,),
    "reduced": (Downsample,),
    "sparse": (Mask,),
    "block": (Mask, Identity),
    "clutter": (Mask, Identity),
    "colornoise": (Identity,),
}
"""Operators that the kinds of trained degradations may be given as."""

_NOISY = ("noise", "blur", "reduced")
"""Kinds whose noise level the network was told."""

_DIFFERENCE = 0.11
"""Standard deviation of differences between neighbouring pixels of photos, in units of the image range: the smooth
inverse that an informed network begins with weighs them by (sigma / _DIFFERENCE)^2."""

_FILLED = 0.5
"""Share of the rectangle around them that missing pixels fill at least, to count as one hole."""

_LOWEST = 2e-3
"""Noise level that this weight assumes at least."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeedForward(Prior):
    """A network that maps the measurement straight to an image: ``solve(y, operator, prior)`` is one call of it.

    A network of the papers sees the measurement alone, with unknown pixels white. An informed one (see
    ``networks.RestorerNetwork``) sees a first restoration, the mask and the noise level as well.

    Args:
        network: The network, in evaluation mode.
        degradations: What it was trained to undo, as its card says: mappings with a "kind" and ranges of numbers.
            ``objection`` compares an operator with them; empty objects to nothing, and so does a range of holes or of
            chroma that is not there.

    Shapes:
        y: (B, *operator.output_shape); gray images reach a colour network as three equal channels and come back as
        their mean.

    Raises:
        DTypeError: ``network`` is no RestorerNetwork.
        ShapeError: The image's channels do not fit the network.

    Example:
        >>> from invrestore import networks, operators
        >>> network = networks.RestorationUNet(widths=(4, 8), blocks=1, informed=True).eval()
        >>> prior = FeedForward(network, degradations=({"kind": "jpeg", "quality": (5, 60)},))
        >>> prior.restore(torch.rand(1, 3, 9, 8), operators.JPEG(10)).shape
        torch.Size([1, 3, 9, 8])
        >>> prior.objection(operators.JPEG(90), torch.zeros(1))
        'it was trained for quality 5 to 60, and the quality is 90'
    """

    network: RestorerNetwork = dataclasses.field(default=None, kw_only=False)  # type: ignore[assignment]
    degradations: Sequence[Mapping[str, Any]] = dataclasses.field(default=(), kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.RESTORE})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.network, RestorerNetwork):
            raise DTypeError(
                self.name,
                expected="network as a networks.RestorerNetwork",
                found=type(self.network).__name__,
                remedy="An object with restore(y, operator) is a Restorer, which solve takes as it is.",
            )

    def restore(self, y: Tensor, operator: Operator, sigma: PerImage | None = None) -> Tensor:
        """The network's answer for the measurement ``y``, (B, C, H, W).

        Args:
            y: Measurement, (B, *operator.output_shape).
            operator: What made it.
            sigma: Noise level, a number or (B,), of which networks trained on several levels are told; None is 0.
        """
        x, gray = self._input(y, operator, sigma)
        out: Tensor = self.network(x)
        return out.mean(1, keepdim=True) if gray else out

    def stages(self, y: Tensor, operator: Operator, sigma: PerImage | None = None) -> tuple[Tensor, ...]:
        """Every image the network makes on the way, the last of which is ``restore``'s; two for a cascade."""
        x, gray = self._input(y, operator, sigma)
        made = self.network.stages(x) if isinstance(self.network, Cascade) else (self.network(x),)
        return tuple(image.mean(1, keepdim=True) if gray else image for image in made)

    def _input(self, y: Tensor, operator: Operator, sigma: PerImage | None) -> tuple[Tensor, bool]:
        shape = operator.input_shape_of(tuple(y.shape[1:]))
        channels = self.network.channels
        if shape[0] not in (1, channels):
            raise ShapeError(
                f"{self.name}.restore",
                expected=f"an image with 1 or {channels} channels",
                found=f"{shape[0]} channels",
                remedy="Restore groups of channels on their own.",
            )
        told = sigma if any(d["kind"] in _NOISY for d in self.degradations) else None
        x = network_input(y, operator, told, informed=self.network.informed)
        if shape[0] == channels:
            return x, False
        # Channel planes come first, image after image; mask and noise level have one channel as they are.
        images = x.shape[1] - (2 if self.network.informed else 0)
        planes = [x[:, k : k + 1].expand(-1, channels, -1, -1) for k in range(images)]
        return torch.cat([*planes, x[:, images:]], 1), True

    def objection(self, operator: Operator, sigma: Tensor) -> str:
        """Why the network may not suit the operator, or an empty string where it was trained for it."""
        if not self.degradations:
            return ""
        fitting = [d for d in self.degradations if isinstance(operator, _OPERATORS[d["kind"]])]
        if not fitting:
            kinds = ", ".join(dict.fromkeys(d["kind"] for d in self.degradations))
            return f"it was trained for {kinds}, and the operator is {operator.name}"
        reasons = [_beyond(d, operator, sigma) for d in fitting]
        return "" if "" in reasons else reasons[0]


def _beyond(degradation: Mapping[str, Any], operator: Operator, sigma: Tensor) -> str:
    """How an operator of the right kind exceeds what was trained, or an empty string."""
    checks: list[tuple[str, float, tuple[float, float]]] = []
    if isinstance(operator, JPEG):
        checks.append(("quality", operator.quality, degradation["quality"]))
        if operator.subsampling not in degradation.get("subsampling", (operator.subsampling,)):
            known = " or ".join(degradation["subsampling"])
            return f"it was trained for chroma {known}, and the JPEG has {operator.subsampling}"
    if degradation["kind"] == "sparse" and isinstance(operator, Mask):
        keep = float((operator.mask != 0).double().mean())
        low, high = degradation["keep"]
        checks.append(("share of known pixels", keep, (low, high)))
    if "size" in degradation and isinstance(operator, Mask):
        side, filled = _hole(operator.mask)
        if filled < _FILLED:
            return "it was trained for one square hole, and the missing pixels are scattered"
        checks.append(("side of the hole", side, degradation["size"]))
    if isinstance(operator, Blur):
        checks.append(("kernel side", max(operator.kernel.shape[-2:]), (1, degradation["side"][1])))
    if isinstance(operator, Downsample):
        factors = degradation["factor"]
        checks.append(("factor", operator.factor, (min(factors), max(factors))))
    if degradation["kind"] in _NOISY:
        low, high = degradation["sigma"]
        checks.append(("sigma", float(sigma.max()), (low, high)))
    for what, value, (low, high) in checks:
        # Estimates and rounded numbers of pixels may lie a little outside.
        if not 0.95 * low - 1e-3 <= value <= 1.05 * high + 1e-3:
            return f"it was trained for {what} {low:.3g} to {high:.3g}, and the {what} is {value:.3g}"
    return ""


def _hole(mask: Tensor) -> tuple[int, float]:
    """Most rows or columns in which pixels of a mask are missing, and the least share of where these cross that is."""
    sides, shares = [0], [1.0]
    for missing in (mask == 0).any(1):
        rows, columns = (int(missing.any(axis).sum()) for axis in (1, 0))
        if rows:
            sides.append(max(rows, columns))
            shares.append(float(missing.double().sum()) / (rows * columns))
    return max(sides), min(shares)


def network_input(y: Tensor, operator: Operator, sigma: PerImage | None = None, *, informed: bool) -> Tensor:
    """What a restorer's network is given for the measurement ``y``; used alike in training and in use.

    Args:
        y: Measurement, (B, *operator.output_shape).
        operator: What made it; Identity where nothing is known.
        sigma: Noise level, a number or (B,); None is 0. Measurements of nonlinear operators count as noiseless: what
            JPEG does is no noise.
        informed: False: the measurement as an image, white where a mask hides it. True: first image, measurement,
            mask and noise level along the channels, as ``networks.RestorerNetwork`` describes them.

    Returns:
        (B, C, H, W), or (B, 2 C + 2, H, W).
    """
    shape = operator.input_shape_of(tuple(y.shape[1:]))
    check_image("network_input", y.new_empty(1, *shape), "the image behind y")
    if not informed and isinstance(operator, Mask):
        return torch.where(operator.mask != 0, y, 1.0)
    noiseless = sigma is None or not isinstance(operator, LinearOperator)
    level = torch.as_tensor(0.0 if noiseless else sigma).to(y).expand(y.shape[0])
    first = _first_image(y, operator, level, shape) if informed else _as_image(y, operator, shape)
    if not informed:
        return first
    plane = first[:, :1]
    known = torch.ones_like(plane)
    seen = y if tuple(y.shape[1:]) == shape else first
    if isinstance(operator, Mask):
        kept = (operator.mask != 0).to(y.dtype)
        known, seen = kept.mean(1, keepdim=True).expand_as(plane), y * kept
    return torch.cat([first, seen, known, expand(level, plane).expand_as(plane)], 1)  # type: ignore[union-attr]


def _as_image(y: Tensor, operator: Operator, shape: Shape) -> Tensor:
    """The measurement where it is an image, else a cheap one made from it."""
    if isinstance(operator, LinearOperator):
        return operator.initial(y, shape)
    if tuple(y.shape[1:]) == shape:
        return y
    if y.ndim == 4 and y.shape[1] == 1 and tuple(y.shape[2:]) == shape[1:]:
        return y.expand(-1, *shape)
    return y.new_full((y.shape[0], *shape), 0.5)


def _first_image(y: Tensor, operator: Operator, sigma: Tensor, shape: Shape) -> Tensor:
    """A cheap restoration: holes filled from around, other linear operators undone by a smooth inverse."""
    image = _as_image(y, operator, shape)
    if not isinstance(operator, LinearOperator) or isinstance(operator, Identity | Mask):
        return image
    return operator.smooth_inverse(y, (sigma.clamp_min(_LOWEST) / _DIFFERENCE).square())
