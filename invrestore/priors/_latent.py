"""A generative network as a prior: images are what it makes of latent vectors."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import nn

from invrestore._checks import check_choice, check_count, check_nonnegative, check_tensor
from invrestore._types import Shape, Tensor
from invrestore.errors import CapabilityError, DTypeError, RangeError, ShapeError
from invrestore.networks import DCGANGenerator, StyleGenerator
from invrestore.networks._precision import PRECISIONS, has_matrix_units
from invrestore.priors._base import Capability, Prior

__all__ = ["Latent"]

SPACES = ("auto", "z", "w", "w+")
OPTIMISERS = ("adam", "nesterov", "lbfgs")
DISTRIBUTIONS = ("normal", "uniform")
BLENDS = ("auto", "none", "poisson", "chroma", "detail", "value")
_DIMENSION_NAMES = ("latent_dim", "z_dim", "nz")


@dataclasses.dataclass(frozen=True, eq=False)
class Latent(Prior):
    """A generator G as a prior: the image is G(z) for a latent vector z, which ``solve`` searches for.

    With a discriminator D and the density p of latent vectors, the search minimises, for each image,

        f(W A(G(z)); W y) + lam [c (log(1 - D(G(z))) - log D(G(z))) - log p(z)],

    in which the first two logarithms estimate -log of the ratio of the densities of real and generated images, and c
    is ``discriminator_weight``. The full pipeline is the default: starts from the encoder and from a table of random
    latents, restarts of which the best is kept, the richest latent space the generator offers, fine-tuning of a copy
    of the generator for each image, and data consistency. Plain MAP with one random start is
    ``Latent(G, D, space="z", candidates=1, restarts=1, importance=0.0, adapt=0, consistency=False, blend="none")``.

    What the search settings ought to be depends on the generator, which is why they are kept with it. The generator
    itself is never changed: its weights, their gradients and flags, and its training mode are as before afterwards.

    Args:
        generator: Module or function from latents (N, *latent_dim) to images (N, C, H, W). It is called in evaluation
            mode and has to treat latents independently. A style-based generator may offer ``mapping(z) -> w`` (N, dw),
            ``synthesis(ws)`` for (N, dw) or (N, num_layers, dw), and ``num_layers``. Intermediate layers are those of a
            ``torch.nn.Sequential``, or of a synthesis with ``features(ws, layer) -> h`` (a tensor or several) that is
            called as ``synthesis(ws, h, layer)``.
        discriminator: Module or function from images, in the generator's own range, to one logit (or a map of them) for
            each; larger is more real. None leaves its term out.
        encoder: Module or function from images, in the generator's own range, to latents, or to several tensors of
            which the first is the latent; its attribute ``space`` ("z", "w" or "w+", "z" if it has none) says which.
        latent_dim: Length of a latent vector, or its shape, as (100, 1, 1); None asks the generator's ``latent_dim``,
            ``z_dim`` or ``nz``.
        output_range: Values that black and white have in the generator's images; (-1, 1) for tanh.
        distribution: Density of latent vectors: "normal" is N(0, I); "uniform" on [-1, 1], which bounds the search.
        discriminator_output: "logit", or "probability" for a discriminator that ends in a sigmoid.
        discriminator_weight: c, >= 0.
        lam: Weight of the bracket, in units of noise variance (L2) or mean deviation (L1). None: found along with z, as
            s + k max(m - s, 0) with the noise s (sigma^2 for L2) and the mean misfit m: what the generator cannot
            explain counts as noise of a size found from the data, of which k samples are alike (see ``evidence``).
        evidence: Independent errors a generator is taken to make, for each latent dimension: of n samples,
            k = max(1, n / (evidence d)) share one. Noise is white, the errors of a generator are not. None: 2 for
            ``Downsample``, whose samples are means of many pixels, 0.5 for others.
        importance: Share a in [0, 1] of the weights W = 1 - a + a W_i that count pixels near holes, for masks: W_i is
            the share of holes in the 7x7 pixels around. 1 leaves out pixels far from holes; 0 is off.
        space: "z", "w", "w+" or "auto": the last of these that the generator offers, but "w" at most for gray
            measurements, which say nothing of colours, and "z" where it is confined. "w+" passes through "w".
        layer: After that, also search the output of this many modules (or layers) of the generator; None: do not.
        layer_radius: How far that output may move, relative to its norm.
        layer_spread: Standard deviation of the w of one layer about their mean, in "w+", relative to that of w.
        confine: In "z": "none", "sphere" (norm sqrt(d), the shell where a normal vector lives) or "clip" (to [-bound,
            bound]).
        bound: Where "clip" ends.
        candidates: Size of the table of random latents starts are chosen from, by data loss.
        encoder_rounds: Times an image is encoded, each time after its measurement was put into the last reconstruction.
        mean_start: In "w" and "w+": one search starts from the mean style, whatever its data loss; with one restart, it
            is the only one. None: where there is no encoder, or the data are gray, so that it sees no colours.
        restarts: Searches for each image, of which the best is kept; ``solve(restarts=...)`` overrides it.
        prune: After a quarter of the steps, go on with the better quarter of the restarts.
        optimiser: "adam", "nesterov" (momentum 0.9) or "lbfgs" (10 pairs, one evaluation a step).
        steps: Steps of the search where ``solve`` gets no ``max_steps``; the step size falls over them.
        rate: Step size at the start, falling to a twentieth along a cosine; None: 0.05 (adam), 1e-3 (nesterov). L-BFGS
            finds its own.
        adapt: Fine-tuning steps for each image, 0 for none. None: 100 for noisy or rounded data and for masks,
            but none for exact data of other linear operators, which are met by projection, for ``Quantize`` with a
            ``denoiser``, nor for a mask whose missing pixels mostly have no known one in the 7x7 pixels around: tuning
            on what surrounds a large hole spoils its content.
        adapt_rate: Their step size for the weights; the latent moves at 10 times that. None: 1e-4 for exact data, 3e-4
            for noisy ones, whose noise level ends the tuning in time.
        consistency: Put the data back at the end, where they are exact: x + A^+ (y - A x), or the nearest image in the
            interval of Quantize and JPEG.
        blend: "poisson": holes of a mask get the gradients of G(z) and meet the known pixels at their rims. "chroma":
            a gray measurement gets the colours of G(z), smoothed. "detail": so does a reduced one with the detail of
            G(z). "value": brightness is put into the colours of G(z) as they are. "auto": the first for a mask, the
            second for ``Grayscale``, the third for ``Downsample``, where data are exact.
        denoiser: A denoiser prior. Its plug-and-play answer to the same data is averaged with what came of the search:
            both fit the data where those are exact, and their errors differ.
        denoised: Share of that answer, in [0, 1]. None: 0.85 for noisy images, blurred or not, 0.7 for rounded data,
            0.5 for ``Downsample``, 0.7 for masks of whose missing pixels 90 % have a known one in the 7x7 around, and 0
            for what leaves the content to the generator: larger holes, gray data, anything else.
        chunk: Most images in one pass through the generator; None: 64 on a CPU, 512 on an accelerator.
        precision: "full" computes in the types of the networks. "bfloat16" lets generator and discriminator multiply
            in bfloat16 during the descent; the images that come out are made in full precision. "auto" does so for the
            package's own generators, where the machine has matrix units for it.

    Shapes:
        z: (N, d); x: (N, C, H, W) in [0, 1].

    Raises:
        DTypeError: A network is not callable, or a setting has the wrong type.
        RangeError: A setting is out of range.
        UnknownNameError: A named choice does not exist.
        CapabilityError: The generator does not tell its latent dimension, or lacks the space asked for.

    Example:
        >>> from invrestore import solve
        >>> from invrestore.operators import Mask
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> G = nn.Sequential(nn.Linear(2, 12), nn.Sigmoid(), nn.Unflatten(1, (3, 2, 2)))
        >>> prior = Latent(G, latent_dim=2, adapt=0)
        >>> z = torch.tensor([[0.3, -0.2]])
        >>> A = Mask(torch.tensor([[True, True], [False, True]]))
        >>> s = solve(A(prior.generate(z)), A, prior, sigma=0.0)
        >>> bool((s.z - z).abs().max() < 1e-2)
        True

    Reference:
        Bora et al. (2017); Yeh et al. (2017) for the discriminator term and the weights near holes; Abdal et al. (2019)
        for w+; Daras et al. (2021) for layers (with their l1 ball replaced by a Euclidean one); Hussein et al. (2020)
        for adaptation and back-projection.
    """

    generator: Callable[..., Tensor] = dataclasses.field(default=None, kw_only=False)  # type: ignore[assignment]
    discriminator: Callable[..., Tensor] | None = dataclasses.field(default=None, kw_only=False)
    encoder: Callable[..., Tensor] | None = dataclasses.field(default=None, kw_only=False)

    latent_dim: int | Shape | None = dataclasses.field(default=None, kw_only=True)
    output_range: tuple[float, float] = dataclasses.field(default=(0.0, 1.0), kw_only=True)
    distribution: str = dataclasses.field(default="normal", kw_only=True)
    discriminator_output: str = dataclasses.field(default="logit", kw_only=True)
    discriminator_weight: float = dataclasses.field(default=1.0, kw_only=True)
    evidence: float | None = dataclasses.field(default=None, kw_only=True)
    importance: float = dataclasses.field(default=0.9, kw_only=True)
    space: str = dataclasses.field(default="auto", kw_only=True)
    layer: int | None = dataclasses.field(default=None, kw_only=True)
    layer_radius: float = dataclasses.field(default=0.2, kw_only=True)
    layer_spread: float = dataclasses.field(default=0.5, kw_only=True)
    confine: str = dataclasses.field(default="none", kw_only=True)
    bound: float = dataclasses.field(default=1.0, kw_only=True)
    candidates: int = dataclasses.field(default=64, kw_only=True)
    encoder_rounds: int = dataclasses.field(default=3, kw_only=True)
    mean_start: bool | None = dataclasses.field(default=None, kw_only=True)
    restarts: int = dataclasses.field(default=8, kw_only=True)
    prune: bool = dataclasses.field(default=True, kw_only=True)
    optimiser: str = dataclasses.field(default="adam", kw_only=True)
    steps: int = dataclasses.field(default=300, kw_only=True)
    rate: float | None = dataclasses.field(default=None, kw_only=True)
    adapt: int | None = dataclasses.field(default=None, kw_only=True)
    adapt_rate: float | None = dataclasses.field(default=None, kw_only=True)
    consistency: bool = dataclasses.field(default=True, kw_only=True)
    blend: str = dataclasses.field(default="auto", kw_only=True)
    denoiser: Prior | None = dataclasses.field(default=None, kw_only=True)
    denoised: float | None = dataclasses.field(default=None, kw_only=True)
    chunk: int | None = dataclasses.field(default=None, kw_only=True)
    precision: str = dataclasses.field(default="auto", kw_only=True)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.LATENT})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, network in self.networks().items():
            if not callable(network):
                raise DTypeError(
                    self.name,
                    expected=f"{name} as a module or function of a tensor",
                    found=type(network).__name__,
                    remedy="Make an instance first." if isinstance(network, type) else "",
                )
        check_choice(self.name, "distribution", self.distribution, DISTRIBUTIONS)
        check_choice(self.name, "discriminator_output", self.discriminator_output, ("logit", "probability"))
        check_choice(self.name, "space", self.space, SPACES)
        check_choice(self.name, "confine", self.confine, ("none", "sphere", "clip"))
        if self.confine != "none" and self.space not in ("auto", "z"):
            raise RangeError(
                self.name,
                expected="space='z' (or 'auto') with a confined search",
                found=f"space={self.space!r}, confine={self.confine!r}",
                remedy="Styles have no shell to be kept on; leave confine at 'none'.",
            )
        check_choice(self.name, "optimiser", self.optimiser, OPTIMISERS)
        check_choice(self.name, "blend", self.blend, BLENDS)
        check_choice(self.name, "precision", self.precision, PRECISIONS)
        for name in ("candidates", "encoder_rounds", "restarts", "steps"):
            check_count(self.name, name, getattr(self, name))
        if self.adapt is not None:
            check_count(self.name, "adapt", self.adapt, least=0)
        if self.chunk is not None:
            check_count(self.name, "chunk", self.chunk)
        for name in ("rate", "adapt_rate", "bound", "evidence", "layer_radius", "layer_spread"):
            check_nonnegative(self.name, name, getattr(self, name), positive=True)
        check_nonnegative(self.name, "discriminator_weight", self.discriminator_weight)
        check_nonnegative(self.name, "importance", self.importance)
        check_nonnegative(self.name, "denoised", self.denoised)
        for name in ("importance", "denoised"):
            if (getattr(self, name) or 0) > 1:
                raise RangeError(self.name, expected=f"{name} in [0, 1]", found=f"{getattr(self, name):g}")
        if self.denoiser is not None and not (
            isinstance(self.denoiser, Prior) and self.denoiser.can(Capability.DENOISE)
        ):
            raise DTypeError(
                self.name,
                expected="denoiser as a denoiser prior",
                found=type(self.denoiser).__name__,
                remedy="priors.Denoiser wraps networks; priors.load('denoiser') is the shipped one.",
            )
        low, high = self.output_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise RangeError(self.name, expected="output_range (low < high)", found=str(self.output_range))
        self._check_spaces()
        object.__setattr__(self, "latent_dim", self._latent_shape())

    def _check_spaces(self) -> None:
        if self.space in ("w", "w+") and not self.has_styles:
            raise CapabilityError(
                f"{self.name}(space={self.space!r})",
                expected="a generator with mapping(z) and synthesis(ws)",
                found=type(self.generator).__name__,
                remedy="space='z' suits every generator.",
            )
        if self.space == "w+" and not isinstance(getattr(self.generator, "num_layers", None), int):
            raise CapabilityError(
                f"{self.name}(space='w+')",
                expected="a generator with num_layers",
                found=type(self.generator).__name__,
                remedy="space='w' needs none.",
            )
        if self.layer is None:
            return
        check_count(self.name, "layer", self.layer)
        sequential = isinstance(self.generator, nn.Sequential)
        features = getattr(getattr(self.generator, "synthesis", None), "features", None)
        if not sequential and not (callable(features) and self.has_styles):
            raise CapabilityError(
                f"{self.name}(layer={self.layer})",
                expected="a torch.nn.Sequential, or a generator with mapping and synthesis.features(ws, layer)",
                found=type(self.generator).__name__,
                remedy="layer=None leaves intermediate layers alone.",
            )
        if isinstance(self.generator, nn.Sequential) and self.layer >= len(self.generator):
            raise RangeError(
                self.name, expected=f"layer from 1 to {len(self.generator) - 1}", found=str(self.layer)
            )
        if not sequential and self.space == "z":
            raise CapabilityError(
                f"{self.name}(layer={self.layer})",
                expected="space 'w' or 'w+', which its layers are fed with",
                found="space='z'",
            )

    def _latent_shape(self) -> Shape:
        given = self.latent_dim
        if given is None:
            given = next(
                (n for n in (getattr(self.generator, k, None) for k in _DIMENSION_NAMES) if n is not None),
                None,
            )
        if given is None:
            raise CapabilityError(
                self.name,
                expected="the length of a latent vector",
                found=f"a {type(self.generator).__name__} without {', '.join(_DIMENSION_NAMES)}",
                remedy="Latent(generator, latent_dim=...) tells it.",
            )
        shape = (given,) if isinstance(given, int) else tuple(given)
        for n in shape:
            check_count(self.name, "latent_dim", n)
        if not shape:
            raise ShapeError(self.name, expected="latent_dim with at least one axis", found="()")
        return shape

    @property
    def latent_shape(self) -> Shape:
        """Shape of one latent vector as the generator takes it."""
        assert isinstance(self.latent_dim, tuple)
        return self.latent_dim

    @property
    def latent_size(self) -> int:
        """d, how many numbers a latent vector has."""
        return math.prod(self.latent_shape)

    @property
    def has_styles(self) -> bool:
        """Whether the generator offers ``mapping`` and ``synthesis``."""
        return all(callable(getattr(self.generator, name, None)) for name in ("mapping", "synthesis"))

    def networks(self) -> dict[str, Any]:
        """Generator, discriminator and encoder, those that are there."""
        found = {"generator": self.generator, "discriminator": self.discriminator, "encoder": self.encoder}
        return {k: v for k, v in found.items() if v is not None or k == "generator"}

    def tensors(self) -> list[Tensor]:
        """The generator's weights, detached: no gradients flow to them through a search."""
        if not isinstance(self.generator, nn.Module):
            return []
        return [t.detach() for t in (*self.generator.parameters(), *self.generator.buffers())]

    def sample(self, count: int, rng: torch.Generator | None = None, *, like: Tensor | None = None) -> Tensor:
        """Random latent vectors, (count, d), on the device and in the type of the generator's weights.

        Args:
            count: How many.
            rng: Random source; None is one seeded with 0.
            like: Tensor whose device and type they get where the generator has no weights.
        """
        check_count(f"{self.name}.sample", "count", count)
        rng = torch.Generator().manual_seed(0) if rng is None else rng
        # Drawn in float32 whatever the generator computes in, so that a seed means the same latents.
        if self.distribution == "uniform":
            z = 2 * torch.rand(count, self.latent_size, generator=rng, device=rng.device) - 1
        else:
            z = torch.randn(count, self.latent_size, generator=rng, device=rng.device)
        like = next((t for t in self.tensors() if t.is_floating_point()), like)
        return z if like is None else z.to(like)

    def generate(self, z: Tensor) -> Tensor:
        """Images in [0, 1] from latent vectors (N, d), in evaluation mode.

        Raises:
            DTypeError: ``z`` is not a floating-point tensor.
            ShapeError: ``z`` has another length.
        """
        where = f"{self.name}.generate"
        z = check_tensor(where, "z", z)
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            raise ShapeError(where, expected=f"z of shape (N, {self.latent_size})", found=str(tuple(z.shape)))
        with self.frozen():
            return self.to_image(self.generator(z.view(-1, *self.latent_shape)))

    def encode(self, x: Tensor) -> Tensor:
        """The encoder's latents of images in [0, 1]; to be called within ``frozen``."""
        assert self.encoder is not None
        found: Tensor | tuple[Tensor, ...] = self.encoder(self.from_image(x))
        return found[0] if isinstance(found, tuple) else found

    def to_image(self, raw: Tensor) -> Tensor:
        """The generator's own range to [0, 1]."""
        low, high = self.output_range
        return raw if (low, high) == (0.0, 1.0) else (raw - low) / (high - low)

    def from_image(self, x: Tensor) -> Tensor:
        """Images in [0, 1] to the generator's own range."""
        low, high = self.output_range
        return x if (low, high) == (0.0, 1.0) else low + (high - low) * x

    def doubt(self, raw: Tensor) -> Tensor:
        """log(1 - D) - log D of images in the generator's own range, (N,): the logit with its sign changed.

        A map of logits is averaged. A probability is kept 1e-6 away from 0 and 1.
        """
        assert self.discriminator is not None
        with self.quickly(raw.device):
            verdict = self.discriminator(raw)
        if self.discriminator_output == "probability":
            verdict = torch.logit(verdict, eps=1e-6)
        return -verdict.reshape(raw.shape[0], -1).to(raw.dtype).mean(1)

    def quickly(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """A context for passes of a descent through the networks: bfloat16 where ``precision`` says so."""
        fast = self.is_quick(device)
        return torch.autocast(device.type, torch.bfloat16) if fast else contextlib.nullcontext()

    def is_quick(self, device: torch.device) -> bool:
        """Whether a descent on this device multiplies in bfloat16."""
        if self.precision != "auto":
            return self.precision == "bfloat16"
        if not isinstance(self.generator, StyleGenerator | DCGANGenerator):
            return False
        return next(self.generator.parameters()).dtype == torch.float32 and has_matrix_units(device)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Networks in evaluation mode and without gradients of their weights; all flags as before afterwards."""
        modules = [m for n in self.networks().values() if isinstance(n, nn.Module) for m in n.modules()]
        modes = [(m, m.training) for m in modules]
        flags = [(p, p.requires_grad) for m in modules for p in m.parameters(recurse=False)]
        try:
            for module, _ in modes:
                module.training = False
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
