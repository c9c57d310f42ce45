"""The border of ``solve``: whatever a user may pass becomes a Problem's parts, or a clear error."""

from __future__ import annotations

from typing import Any

import torch

from invrestore._checks import (
    check_batch_tensor,
    check_device,
    check_finite,
    check_sigma,
    check_tensor,
)
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.fidelity import L1, L2, Fidelity, Huber, Interval, Poisson
from invrestore.operators import JPEG, Identity, Operator, Quantize
from invrestore.priors import Capability, Prior, RestorerPrior, as_prior_or_none, load

__all__ = ["as_fidelity", "as_images", "as_measurement", "as_prior", "as_sigma", "check_measurement"]

_JPEG_SHARE = 0.6
"""Coding error follows the picture, so that a weight made for white noise of its size smooths too much; between 0.5
and 0.7 of it was best on crops of the bundled photos at qualities 10 and 40."""

_JPEG_SHARE_OF_DENOISER = {3: 1.4, 1: 0.8}
"""A denoiser tells structure from coding error better. In colour it may take all of it and more, of 1, 1.2, 1.4 and 1.7
on crops of training images at qualities 10 and 30, because most of the error is common to the channels, where a
denoiser of independent noise expects 1 / sqrt(3) of it; in gray that is taken care of by ``priors.Denoiser``."""

_BRIGHTEST = 8.0
"""No image in [0, 1] with noise of sigma <= 1 gets here, seven standard deviations up, but one in 8-bit or 16-bit
units."""


def as_measurement(y: object, notes: list[str]) -> Tensor:
    """A tensor as it is; a numpy array or PIL image as (1, C, H, W) in [0, 1], which ``notes`` then says."""
    if isinstance(y, torch.Tensor):
        return _real("y", check_tensor("solve", "y", y))
    import numpy as np

    origin = f"{type(y).__module__}.{type(y).__name__}"
    if origin.startswith("PIL."):
        y = _from_pillow(y)
    if not isinstance(y, np.ndarray):
        raise DTypeError(
            "solve",
            expected="y as a torch.Tensor, numpy array or PIL image",
            found=type(y).__name__,
            remedy="invrestore.load_image reads files.",
        )
    return _from_array(y, origin, notes)


def _real(name: str, x: Tensor) -> Tensor:
    if x.is_complex():
        raise DTypeError(
            "solve",
            expected=f"{name} of real numbers",
            found=str(x.dtype),
            remedy="torch.view_as_real splits complex numbers; let the operator return both parts.",
        )
    return x


def _from_pillow(image: Any) -> Any:
    """Samples of a picture as ``load_image`` would read them: 16 bits as 16 bits, gray as gray, opacity dropped."""
    import numpy as np

    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        samples = np.asarray(image)
        if samples.min() < 0 or samples.max() > 65535:
            raise RangeError(
                "solve",
                expected="a picture of mode I with samples in 0 to 65535",
                found=f"{samples.min()} to {samples.max()}",
                remedy="Pass numpy.asarray(image) divided by its white value.",
            )
        return samples.astype(np.uint16)
    if image.mode == "F":
        return np.array(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))


def _from_array(array: Any, origin: str, notes: list[str]) -> Tensor:
    import numpy as np

    given = f"{origin} of shape {array.shape} and type {array.dtype}"
    if array.dtype == np.uint8:
        array, scale = array.astype(np.float32) / 255, ", divided by 255"
    elif array.dtype == np.uint16:
        array, scale = array.astype(np.float32) / 65535, ", divided by 65535"
    elif array.dtype in (np.float32, np.float64):
        scale = ""
    else:
        raise DTypeError(
            "solve", expected="an array of uint8, uint16, float32 or float64", found=str(array.dtype)
        )
    if array.ndim == 2:
        array = array[None, None]
    elif array.ndim == 3 and array.shape[-1] in (1, 3):
        array = np.moveaxis(array, -1, 0)[None]
    elif array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        array = np.moveaxis(array, -1, 1)
    elif array.ndim != 4:
        raise ShapeError(
            "solve",
            expected="an array (H, W), (H, W, 1 or 3) or (B, H, W, 1 or 3)",
            found=str(array.shape),
            remedy="Pass measurements of other shapes as a torch.Tensor.",
        )
    y = torch.from_numpy(np.ascontiguousarray(array))
    notes.append(f"y: {given} read as {tuple(y.shape)}{scale}.")
    return y


def check_measurement(y: Tensor, operator: Operator) -> Shape:
    """Check ``y`` against the operator; return (C, H, W) of the image behind it.

    Raises:
        ShapeError: ``y`` is not (B, *output_shape), or is empty.
        DeviceError: ``y`` and the operator live on different devices.
        RangeError: ``y`` holds NaN or infinities, or 8-bit values.
    """
    if y.ndim < 2 or y.numel() == 0:
        raise ShapeError(
            "solve",
            expected="y of shape (B, *output_shape) with at least one sample",
            found=str(tuple(y.shape)),
            remedy="Add the batch axis: y[None]." if y.ndim else "",
        )
    if operator.output_shape is None and operator.image_range and y.ndim != 4:
        remedies = {
            2: "An operator with flat measurements, such as a stack, has to know its image: input_shape=(C, H, W).",
            3: "Add the batch axis: y[None].",
        }
        raise ShapeError(
            "solve",
            expected=f"y of shape (B, C, H, W) for {operator.name}(input_shape=None)",
            found=str(tuple(y.shape)),
            remedy=remedies.get(y.ndim, ""),
        )
    if (
        operator.image_range
        and y.ndim == 4
        and y.shape[-1] in (1, 3, 4)
        and y.shape[1] > 4
        and y.shape[2] > 4
    ):
        raise ShapeError(
            "solve",
            expected="y as (B, C, H, W)",
            found=str(tuple(y.shape)),
            remedy="Images are channels-first; y.permute(0, 3, 1, 2)?",
        )
    check_device("solve", y=y, operator=next(iter(operator.tensors()), None))
    operator._check_output(y, "solve")
    check_finite("solve", "y", y)
    if operator.image_range:
        _check_range("y", y)
    shape = operator.input_shape_of(tuple(y.shape[1:]))
    # The operator's own checks (mask size, kernel count) speak before the first iteration.
    if len(shape) == 3:
        with torch.no_grad():
            found = operator.output_shape_of(shape)
        if tuple(found) != tuple(y.shape[1:]):
            raise ShapeError(
                "solve", expected=f"y of shape (B, {', '.join(map(str, found))})", found=str(tuple(y.shape))
            )
    return shape


def as_prior(prior: object) -> Prior:
    """A Prior, a name, a deepinv Denoiser or Prior, or an object with ``restore``.

    Raises:
        UnknownNameError: No prior of that name.
        DTypeError: Something else.
    """
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, str):
        return load(prior)
    if isinstance(prior, type) and issubclass(prior, Prior):
        raise DTypeError(
            "solve",
            expected="a prior object",
            found=f"the class {prior.__name__}",
            remedy=f"Write {prior.__name__}().",
        )
    found = as_prior_or_none(prior)
    if found is not None:
        return found
    if callable(getattr(prior, "restore", None)):
        return RestorerPrior(prior)  # type: ignore[arg-type]
    raise DTypeError(
        "solve",
        expected="a Prior, the name of one, a deepinv Denoiser or Prior, or a Restorer",
        found=type(prior).__name__,
        remedy="priors.Denoiser(network) wraps a network (x, sigma) -> image.",
    )


def as_sigma(sigma: PerImage | None, y: Tensor, operator: Operator, prior: Prior, notes: list[str]) -> Tensor:
    """Noise level of each image, (B,), estimated when not given.

    Raises:
        RangeError: ``sigma`` is negative, not finite or above 1, or 0 for some images of the batch only.
    """
    check_sigma("solve", sigma)
    check_batch_tensor("solve", "sigma", sigma, y.shape[0])
    rounds = isinstance(operator, Quantize | JPEG)
    if sigma is None or (rounds and bool((torch.as_tensor(sigma) == 0).all())):
        with torch.no_grad():
            found = operator.estimate_sigma(y.detach()).to(y)
        if isinstance(operator, JPEG) and prior.can(Capability.PROX):
            shares = _JPEG_SHARE_OF_DENOISER
            found = (shares[y.shape[1]] if prior.can(Capability.DENOISE) else _JPEG_SHARE) * found
        notes.append("sigma: from the operator's rounding error." if rounds else "sigma: estimated from y.")
        # Far below what 8 bits resolve; keeps the noise model from becoming a constraint nobody asked for.
        return found.clamp_min(1e-4)
    values = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(y.shape[0])
    if bool((values == 0).any()) and not bool((values == 0).all()):
        raise RangeError(
            "solve",
            expected="sigma above 0 for all images or 0 for all",
            found="a batch with both",
            remedy="Solve exact and noisy measurements in two calls.",
        )
    return values


_FIDELITIES = {"l2": L2, "l1": L1, "huber": Huber, "poisson": Poisson}


def as_fidelity(
    fidelity: object, y: Tensor, operator: Operator, prior: Prior, exact: bool, notes: list[str]
) -> tuple[Operator, Fidelity]:
    """The fidelity, and the operator it is used with.

    "auto" is L2, with one exception: for Quantize and JPEG with a prior that is minimised, the measurement is
    read as the image plus an error bounded by the quantiser's intervals, so that the operator becomes the
    identity and the fidelity a box, for priors other than denoisers with a quadratic pull to y.
    """
    if isinstance(fidelity, Fidelity):
        if isinstance(fidelity, Interval) and isinstance(operator, Quantize):
            return Identity(), fidelity
        return operator, fidelity
    if not isinstance(fidelity, str):
        raise DTypeError("solve", expected="fidelity as a Fidelity or a name", found=type(fidelity).__name__)
    if fidelity != "auto":
        if fidelity not in _FIDELITIES:
            raise UnknownNameError.suggest("solve", "fidelity", fidelity, ["auto", *_FIDELITIES])
        return operator, _FIDELITIES[fidelity]()
    latent = prior.can(Capability.LATENT)
    if exact or not (prior.can(Capability.PROX) or latent):
        return operator, L2()
    if isinstance(operator, Quantize):
        lower, upper = operator.interval(y)
        # Priors that shrink run to the edges of the box unless something pulls them back; denoisers do not.
        pull = 0.0 if prior.can(Capability.DENOISE) else 1.0
        how = ", with a quadratic pull to y" if pull else ""
        notes.append(f"fidelity: the interval of values that quantise to y{how}.")
        return Identity(), Interval(lower, upper, pull=pull)
    if isinstance(operator, JPEG) and not latent:
        notes.append("fidelity: y read as the image plus coding error (L2).")
        return Identity(), L2()
    return operator, L2()


def as_images(name: str, x: object, y: Tensor, operator: Operator, shape: Shape) -> Tensor | None:
    """``truth`` or ``init`` in the type of ``y``, if it is None or images of the shape to restore."""
    if x is None:
        return None
    found = _real(name, check_tensor("solve", name, x))
    if tuple(found.shape) != (y.shape[0], *shape):
        raise ShapeError(
            "solve", expected=f"{name} of shape {(y.shape[0], *shape)}", found=str(tuple(found.shape))
        )
    check_device("solve", y=y, **{name: found})
    check_finite("solve", name, found)
    if operator.image_range:
        _check_range(name, found)
    return found.to(y.dtype)


def _check_range(name: str, x: Tensor) -> None:
    top = float(x.detach().abs().max())
    if top > _BRIGHTEST:
        raise RangeError(
            "solve",
            expected=f"{name} in units of the image range [0, 1]",
            found=f"values up to {top:g}",
            remedy="Divide 8-bit values by 255, 16-bit ones by 65535.",
        )
