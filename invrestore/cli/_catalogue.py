"""The operators, priors and corruptions that the command line can name; torch loads when one is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invrestore.cli._specs import Entry, Spec, choice, file, integer, number, parse
from invrestore.errors import RangeError

if TYPE_CHECKING:
    import torch

    from invrestore._types import Shape
    from invrestore.operators import Operator
    from invrestore.priors import Prior

__all__ = [
    "CORRUPTIONS",
    "OPERATORS",
    "PRIOR_OPTIONS",
    "build_backwards",
    "build_forwards",
    "build_prior",
    "generator",
    "load_mask",
    "parse_operators",
]


def generator(seed: int) -> torch.Generator:
    """A random source on the CPU."""
    import torch

    return torch.Generator().manual_seed(seed)


def _identity(shape: Shape) -> Operator:
    from invrestore.operators import Identity

    return Identity()


def _blur(
    shape: Shape,
    sigma: float | None = None,
    disk: float | None = None,
    box: int | None = None,
    kernel: Path | None = None,
    size: int | None = None,
    padding: str = "circular",
) -> Operator:
    from invrestore import kernels
    from invrestore.operators import Blur

    if size is not None and sigma is None:
        raise RangeError("--operator blur", expected="size together with sigma", found="size without sigma")
    if kernel is not None:
        return Blur(_load_kernel(kernel), padding=padding)
    if sigma is not None:
        return Blur(kernels.gaussian(sigma, size=size), padding=padding)
    if disk is not None:
        return Blur(kernels.disk(disk), padding=padding)
    assert box is not None
    return Blur(kernels.box(box), padding=padding)


def _load_kernel(path: Path) -> torch.Tensor:
    from invrestore.io import load_image

    kernel = load_image(path, mode="gray")
    total = kernel.sum()
    if float(total) == 0:
        raise RangeError("--operator blur", expected="a kernel picture that is not black", found=str(path))
    return kernel / total


def _motion(shape: Shape, size: int = 15, seed: int = 0, padding: str = "circular") -> Operator:
    from invrestore import kernels
    from invrestore.operators import Blur

    return Blur(kernels.motion(size, rng=generator(seed)), padding=padding)


def _downsample(shape: Shape, factor: int, filter: str = "bicubic", padding: str = "reflect") -> Operator:
    from invrestore.operators import Downsample

    return Downsample(factor, filter=filter, padding=padding)


def _jpeg(shape: Shape, quality: int, subsampling: str = "4:2:0") -> Operator:
    from invrestore.operators import JPEG

    return JPEG(quality, subsampling=subsampling)


def _quantize(shape: Shape, levels: int) -> Operator:
    from invrestore.operators import Quantize

    return Quantize(levels)


def _grayscale(shape: Shape) -> Operator:
    from invrestore.operators import Grayscale

    return Grayscale()


def _value(shape: Shape) -> Operator:
    from invrestore.operators import Value

    return Value()


def _sparse(shape: Shape, keep: float, seed: int = 0) -> Operator:
    from invrestore.operators import SparseSampling

    return SparseSampling(shape, keep=keep, rng=generator(seed))


_PADDING = choice("circular", "reflect", "replicate", "zero", "valid")

OPERATORS = {
    "identity": Entry(_identity),
    "blur": Entry(
        _blur,
        {
            "sigma": number,
            "disk": number,
            "box": integer,
            "kernel": file,
            "size": integer,
            "padding": _PADDING,
        },
        needs=(("sigma", "disk", "box", "kernel"),),
    ),
    "motion": Entry(_motion, {"size": integer, "seed": integer, "padding": _PADDING}),
    "downsample": Entry(
        _downsample,
        {
            "factor": integer,
            "filter": choice("bicubic", "bilinear", "area"),
            "padding": choice("circular", "reflect", "replicate", "zero"),
        },
        needs=(("factor",),),
    ),
    "jpeg": Entry(
        _jpeg, {"quality": integer, "subsampling": choice("4:2:0", "4:4:4")}, needs=(("quality",),)
    ),
    "quantize": Entry(_quantize, {"levels": integer}, needs=(("levels",),)),
    "grayscale": Entry(_grayscale),
    "value": Entry(_value),
    "sparse": Entry(_sparse, {"keep": number, "seed": integer}, needs=(("keep",),)),
}


def parse_operators(texts: list[str] | None) -> list[Spec]:
    """The operators named by ``--operator``, in the order they act; the identity where there is none."""
    return [parse("--operator", text, OPERATORS) for text in texts or ["identity"]]


def build_forwards(specs: list[Spec], shape: Shape) -> list[Operator]:
    """The operators for an image of the given shape (C, H, W)."""
    built = []
    for spec in specs:
        operator: Operator = spec.build(shape=shape)
        shape = operator.output_shape_of(shape)
        built.append(operator)
    return built


def build_backwards(specs: list[Spec], shape: Shape) -> list[Operator]:
    """The operators that led to a measurement of the given shape (C, H, W)."""
    built: list[Operator] = []
    for spec in reversed(specs):
        operator: Operator = spec.build(shape=shape)
        shape = operator.input_shape_of(shape)
        built.insert(0, operator)
    return built


def load_mask(path: Path) -> torch.Tensor:
    """A mask picture as (1, 1, H, W): 1 where it is middle gray or lighter (known), else 0."""
    from invrestore.io import load_image

    return (load_image(path, mode="gray") >= 0.5).float()


def _damage(name: str) -> Any:
    """Function that applies the corruption ``name`` with the given options."""

    def apply(x: torch.Tensor, rng: torch.Generator, **options: Any) -> torch.Tensor:
        from invrestore import corruptions

        damaged = getattr(corruptions, name)(**options)(x, rng)
        y: torch.Tensor = damaged[0] if isinstance(damaged, tuple) else damaged
        return y

    return apply


def _clutter(x: torch.Tensor, rng: torch.Generator, image: Path, size: int) -> torch.Tensor:
    """A block of another picture put over the picture."""
    from invrestore import corruptions
    from invrestore.io import load_image

    donors = load_image(image, mode="gray" if x.shape[1] == 1 else "rgb")
    return corruptions.ClutteredBlock(size, donors=donors)(x, rng)[0]


CORRUPTIONS = {
    "color-noise": Entry(_damage("ColorNoise"), {"amount": number}, needs=(("amount",),)),
    "salt-pepper": Entry(_damage("SaltPepper"), {"amount": number}, needs=(("amount",),)),
    "block": Entry(_damage("MissingBlock"), {"size": integer}, needs=(("size",),)),
    "clutter": Entry(_clutter, {"image": file, "size": integer}, needs=(("image",), ("size",))),
    "poisson": Entry(_damage("Poisson"), {"gain": number}, needs=(("gain",),)),
    "uniform": Entry(_damage("Uniform"), {"width": number}, needs=(("width",),)),
}
"""Damage whose place a restoration does not know."""

PRIOR_OPTIONS: dict[str, dict[str, Callable[[str], Any]]] = {"wavelet": {"wavelet": str, "levels": integer}}
"""Options that ``--prior NAME:KEY=VALUE`` understands."""


def build_prior(text: str, lam: float | None) -> Prior:
    """The prior named by ``--prior``: NAME, or NAME:KEY=VALUE,... for those with options.

    Raises:
        UnknownNameError: There is no such prior or option.
        RangeError: ``lam`` or an option is out of range.
    """
    from invrestore import priors

    entries = {name: Entry(lambda: None, PRIOR_OPTIONS.get(name, {})) for name in priors.available()}
    spec = parse("--prior", text, entries)
    prior = priors.load(spec.name)
    if spec.options:
        prior = dataclasses.replace(prior, **spec.options)
    return prior if lam is None else prior.with_lam(lam)
