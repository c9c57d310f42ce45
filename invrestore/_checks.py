"""Argument checks, each written once; every public border calls these before work starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from invrestore._types import PerImage, Tensor
from invrestore.errors import DeviceError, DTypeError, RangeError, ShapeError

__all__ = [
    "check_batch_tensor",
    "check_choice",
    "check_count",
    "check_device",
    "check_finite",
    "check_image",
    "check_nonnegative",
    "check_rng",
    "check_shape",
    "check_sigma",
    "check_step",
    "check_tensor",
    "expand",
]


def expand(value: PerImage, like: Tensor) -> float | Tensor:
    """Shape a per-image number so that it multiplies ``like``: (B,) becomes (B, 1, 1, 1)."""
    if isinstance(value, torch.Tensor) and value.ndim == 1:
        return value.view(-1, *[1] * (like.ndim - 1))
    return value


def check_tensor(where: str, name: str, x: object) -> Tensor:
    """Return ``x`` if it is a floating-point (or complex) tensor."""
    if not isinstance(x, torch.Tensor):
        raise DTypeError(
            where,
            expected=f"{name} as a torch.Tensor",
            found=type(x).__name__,
            remedy="torch.as_tensor converts arrays; invrestore.load_image reads files.",
        )
    if not (x.is_floating_point() or x.is_complex()):
        raise DTypeError(
            where,
            expected=f"{name} of a floating-point type",
            found=str(x.dtype),
            remedy="8-bit images become x.float() / 255, 16-bit ones x.float() / 65535.",
        )
    return x


def _describe(shape: Sequence[int | None]) -> str:
    return "(B, " + ", ".join("any" if s is None else str(s) for s in shape) + ")"


def check_shape(where: str, name: str, x: Tensor, shape: Sequence[int | None]) -> None:
    """Raise ShapeError unless ``x`` is (B, *shape); None in ``shape`` fits any size."""
    if x.ndim == len(shape) + 1 and all(s is None or s == n for s, n in zip(shape, x.shape[1:], strict=True)):
        return
    remedy = ""
    if len(shape) == 3:
        fits = [s is None or s == n for s, n in zip(shape, x.shape[-3:], strict=False)]
        if x.ndim == 3 and all(fits):
            remedy = "Add the batch axis: x[None]."
        elif x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
            remedy = "Images are channels-first; permute(0, 3, 1, 2)?"
    raise ShapeError(
        where, expected=f"{name} of shape {_describe(shape)}", found=str(tuple(x.shape)), remedy=remedy
    )


def check_image(where: str, x: object, name: str = "x") -> Tensor:
    """Return ``x`` if it is a floating-point tensor (B, C, H, W) without empty axes."""
    x = check_tensor(where, name, x)
    check_shape(where, name, x, (None, None, None))
    if x.numel() == 0:
        raise ShapeError(
            where,
            expected=f"{name} with at least one image and one pixel",
            found=str(tuple(x.shape)),
            remedy="Leave empty batches out.",
        )
    return x


def check_finite(where: str, name: str, x: Tensor) -> None:
    """Raise RangeError if ``x`` holds NaN or an infinity; costs one pass and one host synchronisation."""
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        kind = "NaN" if bool(torch.isnan(x).any()) else "infinite"
        raise RangeError(
            where,
            expected=f"{name} with finite values only",
            found=f"{int(bad.sum())} {kind} value(s)",
            remedy="torch.nan_to_num replaces them; better, treat those pixels as missing with operators.Mask.",
        )


def check_device(where: str, **tensors: Tensor | None) -> None:
    """Raise DeviceError unless all given tensors live on one device."""
    devices = {name: t.device for name, t in tensors.items() if t is not None}
    if len(set(devices.values())) > 1:
        found = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise DeviceError(
            where, expected="tensors on one device", found=found, remedy="Move them with .to(device)."
        )


def check_nonnegative(where: str, name: str, value: PerImage | None, *, positive: bool = False) -> None:
    """Raise unless ``value`` is None, a finite number >= 0 (> 0 if ``positive``), or a tensor () or (B,) of such."""
    if value is None:
        return
    rule = "> 0" if positive else ">= 0"
    if isinstance(value, torch.Tensor):
        if value.ndim > 1 or value.numel() == 0:
            raise ShapeError(where, expected=f"{name} of shape () or (B,)", found=str(tuple(value.shape)))
        if value.is_complex() or value.dtype == torch.bool:
            raise DTypeError(where, expected=f"{name} as real numbers", found=str(value.dtype))
        low = value.detach()
        if bool(torch.isfinite(low).all()) and bool((low > 0 if positive else low >= 0).all()):
            return
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise DTypeError(where, expected=f"{name} as a number or tensor", found=type(value).__name__)
    elif math.isfinite(value) and (value > 0 if positive else value >= 0):
        return
    raise RangeError(where, expected=f"{name} {rule} and finite", found=str(value))


def check_step(where: str, step: PerImage, name: str = "step", *, positive: bool = False) -> None:
    """Raise unless ``step`` is >= 0 (> 0 if ``positive``); tensors on another device than the CPU are not looked at.

    Loops call this at every step, and a look would make the host wait for the device.
    """
    if isinstance(step, torch.Tensor) and step.device.type != "cpu":
        return
    check_nonnegative(where, name, step, positive=positive)


def check_sigma(where: str, sigma: PerImage | None) -> None:
    """Raise unless ``sigma`` is None or in [0, 1], the unit of the image range."""
    check_nonnegative(where, "sigma", sigma)
    if sigma is None:
        return
    top = float(sigma.detach().max()) if isinstance(sigma, torch.Tensor) else float(sigma)
    if top > 1:
        raise RangeError(
            where,
            expected="sigma in [0, 1]",
            found=f"{top:g}",
            remedy=f"Noise levels use the image range; 8-bit level {top:g} is {top:g}/255 = {top / 255:.3f}.",
        )


def check_count(where: str, name: str, value: object, *, least: int = 1) -> int:
    """Return ``value`` if it is a whole number >= ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DTypeError(where, expected=f"{name} as an int", found=type(value).__name__)
    if value < least:
        raise RangeError(where, expected=f"{name} >= {least}", found=str(value))
    return value


def check_choice(where: str, name: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        from invrestore.errors import UnknownNameError

        raise UnknownNameError.suggest(where, name, value, choices)
    return value


def check_rng(where: str, rng: object) -> torch.Generator | None:
    """Return ``rng`` if it is None or a torch.Generator."""
    if rng is not None and not isinstance(rng, torch.Generator):
        raise DTypeError(
            where,
            expected="rng as a torch.Generator",
            found=type(rng).__name__,
            remedy="torch.Generator().manual_seed(0) makes one.",
        )
    return rng


def check_batch_tensor(where: str, name: str, value: PerImage | None, batch: int) -> None:
    """Raise ShapeError if a per-image tensor has another length than the batch."""
    if isinstance(value, torch.Tensor) and value.ndim == 1 and value.shape[0] not in (1, batch):
        raise ShapeError(
            where,
            expected=f"{name} of shape () or ({batch},), one number for each image",
            found=str(tuple(value.shape)),
        )
