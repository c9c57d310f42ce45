"""Where a latent search moves: z, the styles w and w+, or the output of a layer; one contract for all."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from invrestore._types import Tensor
from invrestore.operators import Grayscale, Operator, Value
from invrestore.priors import Latent

__all__ = ["Call", "Codes", "Layer", "Methods", "Space", "W", "WPlus", "Z", "sees_gray", "spaces_of"]

Call = Callable[..., Tensor]
"""``call(name, *arguments)``: a method of the generator, "forward" for the generator itself, with whatever weights."""

_STYLE_SAMPLES = 4096


class Methods(nn.Module):
    """A generator whose methods are reached through ``forward``, so that ``functional_call`` can swap its weights."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, name: str, *arguments: Any) -> Tensor:
        """A method of the generator; "forward" is the generator itself, "tail" its layers from the given one on."""
        if name == "tail":
            return self._tail(*arguments)
        method = self.generator if name == "forward" else getattr(self.generator, name)
        found: Tensor = method(*arguments)
        return found

    def head(self, latent: Tensor, layer: int) -> tuple[Tensor, ...]:
        """What the layers up to the given one hand to the next."""
        if isinstance(self.generator, nn.Sequential):
            return (self.generator[:layer](latent),)
        found: Tensor | tuple[Tensor, ...] = self.generator.synthesis.features(latent, layer)
        return found if isinstance(found, tuple) else (found,)

    def _tail(self, latent: Tensor, layer: int, *features: Tensor) -> Tensor:
        if isinstance(self.generator, nn.Sequential):
            rest: Tensor = self.generator[layer:](features[0])
            return rest
        whole = features if len(features) > 1 else features[0]
        found: Tensor = self.generator.synthesis(latent, whole, layer)
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """Points of one space: what the search moves, and what stays with it; all (N, ...)."""

    code: Tensor
    fixed: tuple[Tensor, ...] = ()

    def __getitem__(self, index: Any) -> Codes:
        return Codes(self.code[index], tuple(t[index] for t in self.fixed))


@dataclasses.dataclass(frozen=True, eq=False)
class Space(ABC):
    """A parametrisation of the generator's images whose coordinates have unit scale.

    Attributes:
        prior: The latent prior.
        call: The generator's methods with its own weights.
    """

    prior: Latent
    call: Methods

    name: ClassVar[str]

    @abstractmethod
    def enter(self, native: Tensor, kind: str) -> Codes:
        """Codes from latents of an earlier kind: "z" (N, d), "w" (N, dw) or "w+" (N, L, dw)."""

    @abstractmethod
    def native(self, codes: Codes) -> Tensor:
        """The latents the codes stand for, which the next space enters with and ``Solution.z`` holds."""

    @abstractmethod
    def raw(self, codes: Codes, call: Call) -> Tensor:
        """The generator's images, in its own range."""

    @abstractmethod
    def energy(self, codes: Codes) -> Tensor:
        """-log of the density of the codes up to a constant, (N,)."""

    def confine(self, codes: Codes) -> Codes:
        """The nearest admissible codes."""
        return codes


@dataclasses.dataclass(frozen=True, eq=False)
class Z(Space):
    """The generator's input."""

    name: ClassVar[str] = "z"

    def enter(self, native: Tensor, kind: str) -> Codes:
        """As they are, moved to the nearest admissible ones."""
        return self.confine(Codes(native))

    def native(self, codes: Codes) -> Tensor:
        """As they are."""
        return codes.code

    def raw(self, codes: Codes, call: Call) -> Tensor:
        """G(z)."""
        return call("forward", codes.code.view(-1, *self.prior.latent_shape))

    def energy(self, codes: Codes) -> Tensor:
        """||z||^2 / 2 for normal latents, 0 for uniform ones."""
        if self.prior.distribution == "uniform":
            return codes.code.new_zeros(codes.code.shape[0])
        return 0.5 * codes.code.square().sum(1)

    def confine(self, codes: Codes) -> Codes:
        """On the sphere or in the box, as the prior says."""
        z = codes.code
        if self.prior.confine == "sphere":
            size = torch.linalg.vector_norm(z, dim=1, keepdim=True)
            return Codes(z * (z.shape[1] ** 0.5 / size.clamp_min(torch.finfo(z.dtype).tiny)))
        if self.prior.confine == "clip":
            return Codes(z.clamp(-self.prior.bound, self.prior.bound))
        return Codes(z.clamp(-1, 1)) if self.prior.distribution == "uniform" else codes


@dataclasses.dataclass(frozen=True, eq=False)
class W(Space):
    """The generator's styles, whitened: w = mean + (principal axes times standard deviations) v, with v near N(0, I).

    Reference:
        Whitening: Zhu et al. (2020), without their undoing of the last activation.
    """

    mean: Tensor
    axes: Tensor
    scale: Tensor

    name: ClassVar[str] = "w"

    @classmethod
    def of(cls, prior: Latent, call: Methods) -> W:
        """Mean and axes from the styles of random latents."""
        z = prior.sample(_STYLE_SAMPLES)
        w = torch.cat([call("mapping", part.view(-1, *prior.latent_shape)) for part in torch.split(z, 512)])
        mean = w.mean(0)
        centred = (w - mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(w))
        # Directions in which styles do not vary are left out, those of rounding errors included.
        kept = values > 1e-6 * values[-1]
        return cls(prior, call, mean, vectors[:, kept].to(w), values[kept].sqrt().to(w))

    def mean_codes(self, count: int) -> Codes:
        """The mean style, ``count`` times."""
        return Codes(self.mean.new_zeros(count, len(self.scale)))

    def whiten(self, w: Tensor) -> Tensor:
        """Whitened styles v of w (..., dw)."""
        return ((w - self.mean) @ self.axes) / self.scale

    def colour(self, v: Tensor) -> Tensor:
        """Styles (..., dw) of v."""
        return self.mean + (v * self.scale) @ self.axes.T

    def enter(self, native: Tensor, kind: str) -> Codes:
        """From z by the mapping, from ws as their mean over layers."""
        if kind == "w+":
            native = native.mean(1)
        elif kind == "z":
            native = self.call("mapping", native.view(-1, *self.prior.latent_shape))
        return Codes(self.whiten(native))

    def native(self, codes: Codes) -> Tensor:
        """The styles w, (N, dw)."""
        return self.colour(codes.code)

    def raw(self, codes: Codes, call: Call) -> Tensor:
        """synthesis(w)."""
        return call("synthesis", self.colour(codes.code))

    def energy(self, codes: Codes) -> Tensor:
        """||v||^2 / 2."""
        return 0.5 * codes.code.square().sum(1)


@dataclasses.dataclass(frozen=True, eq=False)
class WPlus(W):
    """One style for each layer, with a pull to their common mean and of that to the mean of all styles."""

    name: ClassVar[str] = "w+"

    def enter(self, native: Tensor, kind: str) -> Codes:
        """From z or w, the same style for every layer."""
        if kind != "w+":
            common = super().enter(native, kind).code
            return Codes(common[:, None].repeat(1, self.prior.generator.num_layers, 1))  # type: ignore[attr-defined]
        return Codes(self.whiten(native))

    def energy(self, codes: Codes) -> Tensor:
        """||m||^2 / 2 + sum over layers of ||v_l - m||^2 / (2 spread^2), with m the mean of the v_l."""
        common = codes.code.mean(1)
        apart = (codes.code - common[:, None]) / self.prior.layer_spread
        return 0.5 * (common.square().sum(1) + apart.square().sum((1, 2)))


@dataclasses.dataclass(frozen=True, eq=False)
class Layer(Space):
    """The output h of a layer, within a ball about that of the latents found before.

    Reference:
        Daras et al. (2021), with a Euclidean ball in place of the l1 ball.
    """

    before: Space

    name: ClassVar[str] = "layer"

    @property
    def _depth(self) -> int:
        assert self.prior.layer is not None
        return self.prior.layer

    def _shaped(self, latent: Tensor) -> Tensor:
        return latent.view(-1, *self.prior.latent_shape) if self.before.name == "z" else latent

    def enter(self, native: Tensor, kind: str) -> Codes:
        """Displacement 0 from the layer's output, which stays with the codes, as do the latents."""
        features = self.call.head(self._shaped(native), self._depth)
        flat = sum(h[0].numel() for h in features)
        return Codes(features[0].new_zeros(len(native), flat), (native, *features))

    def native(self, codes: Codes) -> Tensor:
        """The latents the displacement started from."""
        return codes.fixed[0]

    def raw(self, codes: Codes, call: Call) -> Tensor:
        """The rest of the generator, from the displaced output."""
        latent, *features = codes.fixed
        whole = torch.cat([h.flatten(1) for h in features], 1)
        room = self.prior.layer_radius * torch.linalg.vector_norm(whole, dim=1)
        size = torch.linalg.vector_norm(codes.code, dim=1)
        # Beyond the rim, codes stand for their nearest point on it. The divisor is safe where it does not count.
        factor = torch.where(size > room, room / torch.where(size > room, size, 1.0), 1.0)
        moved = torch.split(whole + codes.code * factor[:, None], [h[0].numel() for h in features], 1)
        shaped = [m.reshape(h.shape) for m, h in zip(moved, features, strict=True)]
        return call("tail", self._shaped(latent), self._depth, *shaped)

    def energy(self, codes: Codes) -> Tensor:
        """0 inside the ball."""
        return codes.code.new_zeros(codes.code.shape[0])


def sees_gray(operator: Operator) -> bool:
    """Whether measurements say nothing of colours."""
    return isinstance(operator, Grayscale | Value)


def spaces_of(prior: Latent, operator: Operator) -> list[Space]:
    """The spaces a search passes through, each starting where the one before ended."""
    call = Methods(prior.generator)
    space = prior.space
    if space == "auto":
        # A gray picture says nothing of colours, which layers with styles of their own would turn at will.
        layered = isinstance(getattr(prior.generator, "num_layers", None), int)
        plus = layered and not sees_gray(operator)
        styled = prior.has_styles and prior.confine == "none"
        space = ("w+" if plus else "w") if styled else "z"
    spaces: list[Space] = []
    if space == "z":
        spaces.append(Z(prior, call))
    else:
        styles = W.of(prior, call)
        spaces.append(styles)
        if space == "w+":
            spaces.append(WPlus(prior, call, styles.mean, styles.axes, styles.scale))
    if prior.layer is not None:
        spaces.append(Layer(prior, call, spaces[-1]))
    return spaces
