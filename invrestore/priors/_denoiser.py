"""A denoiser as a prior: plug-and-play and regularisation by denoising."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import torch

from invrestore._checks import check_choice, check_count, check_image, check_sigma, expand
from invrestore._symmetry import under_symmetry
from invrestore._types import PerImage, Tensor
from invrestore.errors import CapabilityError, DTypeError, RangeError, ShapeError
from invrestore.networks import DenoiserNetwork, tiled
from invrestore.networks._precision import PRECISIONS, has_matrix_units
from invrestore.networks._tiles import check_tile
from invrestore.priors._base import Capability, Prior

__all__ = ["Denoiser"]

_WHOLE_PIXELS = 2**22
"""Images up to this size go through the network whole."""

_TILE = 1024
"""Side of the tiles that larger ones are cut into."""

_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""Axes to flip in one step after the other. They keep the shape, as quarter turns of oblong pictures would not."""


@dataclasses.dataclass(frozen=True, eq=False)
class Denoiser(Prior):
    """The prior behind a denoiser D: prox(v, step) = D(v, sqrt(lam * step)).

    The weight ``lam`` is in units of noise variance: plug-and-play papers that divide the data term by sigma^2
    have lam = lambda_paper * sigma^2. Left at None, ``solve`` takes 0.23 sigma^2 (Zhang et al., 2021). There is
    no objective: the prior declares no value, and a solution reports none.

    Args:
        network: ``network(x, sigma)`` with x (B, C, H, W) in about [0, 1] and sigma a float or (B,) in units of the
            image range: a network of this package, any deepinv Denoiser, or any callable.
        lam: Weight, >= 0.
        channels: Channels the network takes, 1 or 3; None asks ``network.channels`` and otherwise passes images as
            they are. Gray images reach a colour network as three equal channels at sqrt(3) sigma, and come back as
            their mean: noise that is the same in all channels is what is left in the mean of independent noise that
            much stronger. Colour images reach a gray network channel by channel.
        ensemble: Average over this many of the 8 flips and quarter turns; 1 or 8.
        flip: Axes that the network sees the image flipped along, out of (-1, -2). None flips nothing by itself, and
            step by step in half-quadratic splitting: not at all, left to right, top to bottom, both, and again, so
            that errors which depend on direction average out at no cost (Zhang et al., 2021; Terris et al., 2024);
            docs/choosing.md says what it is worth. ``()`` never flips, for networks that know up from down.
        precision: "auto", "full" or "bfloat16". "full" computes in the types of image and network. "bfloat16" lets the
            network multiply in bfloat16 and rounds only its estimate of the noise, never the image. "auto" does so
            for trained networks of this package on machines with matrix units for it, where it is 3 to 5 times
            faster and changed no restoration by more than 0.02 dB (see docs/choosing.md), unless gradients are wanted.
        tile: Side of the tiles that larger images go through the network in (see ``networks.tiled``), a multiple of 32
            above 64, or 0 for whole images whatever their size. None takes 1024 for images of more than 4 million
            pixels and networks of this package, so that memory does not grow with the image.

    Shapes:
        x: (B, C, H, W), C = 1 or ``channels``.
        sigma: a number, (B,) or (B, 1, H, W).

    Raises:
        DTypeError: ``network`` is not callable.
        ShapeError: The image's channels do not fit the network.
        RangeError: ``tile`` is no side of a tile, ``flip`` names another axis, or lam * step asks for a strength
            above 1.
        UnknownNameError: Unknown ``precision``.

    Reference:
        Venkatakrishnan, Bouman and Wohlberg (2013); Romano, Elad and Milanfar (2017); Zhang et al. (2021); Terris,
        Moreau, Pustelnik and Tachella (2024) on transforms that change from step to step.
    """

    network: Callable[..., Tensor] = dataclasses.field(default=None, kw_only=False)  # type: ignore[assignment]
    channels: int | None = dataclasses.field(default=None, kw_only=True)
    ensemble: int = dataclasses.field(default=1, kw_only=True)
    flip: tuple[int, ...] | None = dataclasses.field(default=None, kw_only=True)
    precision: str = dataclasses.field(default="auto", kw_only=True)
    tile: int | None = dataclasses.field(default=None, kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.DENOISE, Capability.PROX})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.network):
            raise DTypeError(
                self.name,
                expected="network as a callable (x, sigma) -> image",
                found=type(self.network).__name__,
                remedy="invrestore.networks.load(name) loads a shipped one.",
            )
        check_choice(self.name, "precision", self.precision, PRECISIONS)
        check_count(self.name, "ensemble", self.ensemble)
        if self.ensemble not in (1, 8):
            raise CapabilityError(self.name, expected="ensemble 1 or 8", found=str(self.ensemble))
        if self.flip is not None and (
            not isinstance(self.flip, tuple) or tuple(sorted(self.flip)) not in _FLIPS
        ):
            raise RangeError(
                self.name,
                expected="flip as (), (-1,), (-2,), (-2, -1) or None",
                found=repr(self.flip),
                remedy="The axes are counted from the last: -1 flips left to right, -2 top to bottom.",
            )
        if self.tile is not None and check_count(self.name, "tile", self.tile, least=0):
            check_tile(self.name, self.tile)

    @property
    def takes_maps(self) -> bool:
        """Whether the network was trained on noise that differs from pixel to pixel."""
        return bool(getattr(self.network, "maps", False))

    def denoise(self, x: Tensor, sigma: PerImage) -> Tensor:
        """``network(x, sigma)``, with channels adapted and transforms averaged as configured.

        Args:
            x: Noisy images (B, C, H, W).
            sigma: Noise level in [0, 1]: a number, (B,), or (B, 1, H, W) with one for each pixel, which a network
                trained on such maps (:attr:`takes_maps`) makes good use of.
        """
        where = f"{self.name}.denoise"
        check_image(where, x)
        if isinstance(sigma, torch.Tensor) and sigma.ndim == 4:
            batch, _, height, width = x.shape
            if sigma.shape not in {(n, 1, height, width) for n in (1, batch)}:
                raise ShapeError(
                    where,
                    expected=f"a noise map of shape ({batch}, 1, {height}, {width})",
                    found=str(tuple(sigma.shape)),
                    remedy="A map holds one level for each pixel, the same for all channels.",
                )
        if not isinstance(sigma, torch.Tensor) or sigma.device.type == "cpu":
            # A look at the values would make a loop on another device wait.
            check_sigma(where, sigma.flatten() if isinstance(sigma, torch.Tensor) else sigma)
        return self._denoise(x, sigma)

    def _denoise(self, x: Tensor, sigma: PerImage) -> Tensor:
        """``denoise`` of checked arguments."""
        if isinstance(sigma, torch.Tensor) and sigma.ndim == 4:
            # The map turns with the image: it goes along as one more channel.
            both = torch.cat((x, sigma.expand(x.shape[0], 1, *x.shape[2:])), dim=1)
            return self._viewed(lambda v: self._call(v[:, :-1], v[:, -1:]), both, x)
        return self._viewed(lambda v: self._call(v, sigma), x, x)

    def _viewed(self, act: Callable[[Tensor], Tensor], x: Tensor, like: Tensor) -> Tensor:
        """``act(x)``, shape of ``like``, under the flip or in the mean over the transforms asked for."""
        if self.ensemble == 1:
            return act(x.flip(self.flip)).flip(self.flip) if self.flip else act(x)
        total = torch.zeros_like(like)
        for turns in range(4):
            for flip in (False, True):
                total = total + under_symmetry(act, x, flip=flip, turns=turns)
        return total / 8

    def _call(self, x: Tensor, sigma: PerImage) -> Tensor:
        wanted = self.channels or getattr(self.network, "channels", None)
        given = x.shape[1]
        if not isinstance(wanted, int) or wanted == given:
            return self._run(x, sigma)
        if given == 1:
            return self._repeated(x, sigma, wanted)
        if wanted == 1:
            repeated = (
                sigma.repeat_interleave(given, 0) if isinstance(sigma, torch.Tensor) and sigma.ndim else sigma
            )
            return self._run(x.flatten(0, 1)[:, None], repeated).view_as(x)
        raise ShapeError(
            f"{self.name}.denoise",
            expected=f"an image with 1 or {wanted} channels",
            found=f"{given} channels",
            remedy="Denoise groups of channels on their own.",
        )

    def _repeated(self, x: Tensor, sigma: PerImage, channels: int) -> Tensor:
        """The network on gray images, with the contrast lowered where their level would exceed what it was trained for.

        A network without biases gives the same at any contrast.
        """
        top: float = (getattr(self.network, "sigma_range", None) or (0.0, 1.0))[1]
        level = channels**0.5 * sigma
        if isinstance(sigma, torch.Tensor):
            peak = sigma.amax((1, 2, 3), keepdim=True) if sigma.ndim == 4 else sigma
            contrast: PerImage = (peak.clamp_min(top) / (channels**0.5 * peak)).clamp_max(1.0)
        else:
            contrast = min(max(sigma, top) / level, 1.0) if level else 1.0
        scale = expand(contrast, x)
        found = self._run((scale * x).expand(-1, channels, -1, -1), contrast * level)
        return found.mean(1, keepdim=True) / scale

    def _run(self, x: Tensor, sigma: PerImage) -> Tensor:
        """The network, on tiles of large images."""
        tile = self.tile
        if tile is None:
            large = x.shape[-2] * x.shape[-1] > _WHOLE_PIXELS
            tile = _TILE if large and isinstance(self.network, DenoiserNetwork) else 0
        if tile:
            return tiled(self._pass, x, sigma, tile=tile)
        return self._pass(x, sigma)

    def _pass(self, x: Tensor, sigma: PerImage) -> Tensor:
        """The network, in the precision asked for."""
        fast = self.precision == "bfloat16" or (
            self.precision == "auto"
            and isinstance(self.network, DenoiserNetwork)
            and self.network.sigma_range is not None
            and x.dtype == torch.float32
            and not (torch.is_grad_enabled() and (x.requires_grad or self.network.training))
            and has_matrix_units(x.device)
        )
        if not fast:
            return self.network(x, sigma)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x, sigma).to(x.dtype)

    def prox(self, v: Tensor, step: PerImage = 1.0) -> Tensor:
        """``denoise(v, sqrt(lam * step))``: the prox variance of a Gaussian denoiser is lam * step."""
        variance = self.weight * step
        strength = variance.sqrt() if isinstance(variance, torch.Tensor) else variance**0.5
        _check_strength(f"{self.name}.prox", strength)
        return self._denoise(v, strength)

    def at(self, step: int, steps: int) -> Self:
        """The prior with the flip of this step, unless ``flip`` or ``ensemble`` is set."""
        if self.flip is not None or self.ensemble > 1:
            return self
        return dataclasses.replace(self, flip=_FLIPS[step % len(_FLIPS)])

    def first_lam(self, sigma: Tensor) -> Tensor:
        """0.23 sigma^2."""
        return 0.23 * sigma.square()


def _check_strength(where: str, strength: PerImage) -> None:
    """Raise RangeError for a strength outside [0, 1]; tensors on other devices than the CPU are not looked at."""
    if torch.compiler.is_compiling() or (
        isinstance(strength, torch.Tensor) and strength.device.type != "cpu"
    ):
        return
    top = float(strength.max()) if isinstance(strength, torch.Tensor) else strength
    if not 0 <= top <= 1:
        raise RangeError(
            where,
            expected="lam * step, the variance of the noise to remove, in [0, 1]",
            found=f"a standard deviation sqrt(lam * step) of {top:g}",
            remedy="For a denoiser lam is a noise variance, about 0.23 sigma^2; lam=None takes that.",
        )
