"""Rows of the benchmark that run other libraries on the same measurement, one image at a time."""

from __future__ import annotations

import dataclasses
import unittest.mock
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from invrestore._types import Tensor
from invrestore.bench._classical import operator_of
from invrestore.bench._types import Problem
from invrestore.operators import Blur, Identity, Mask

__all__ = [
    "biharmonic",
    "bm3d",
    "deepinv_dpir",
    "deepinv_tv",
    "deepinv_wavelet",
    "opencv_inpaint",
    "skimage_tv",
]

_COLOUR_NOISE = 0.25
"""Standard deviation that random colours are treated as, before any factor."""

_STEP = 10.0
"""Step of deepinv's splitting, large because data come with little or no noise."""

_LEAST = 1 / 255
"""Noise level assumed of exact data by methods that need one."""


def _singles(problem: Problem) -> Iterator[Problem]:
    """The images of a problem as problems of one image."""
    for i in range(problem.y.shape[0]):
        one = slice(i, i + 1)
        operator = problem.operator
        if isinstance(operator, Mask) and operator.mask.shape[0] > 1:
            operator = Mask(operator.mask[one])
        elif isinstance(operator, Blur) and operator.kernel.shape[0] > 1:
            operator = dataclasses.replace(operator, kernel=operator.kernel[one])
        yield dataclasses.replace(
            problem, y=problem.y[one], view=problem.view[one], operator=operator, seeds=problem.seeds[one]
        )


def _level(problem: Problem) -> float:
    """Noise level of a problem of one image; for rounded data the size of the rounding error."""
    if problem.operator is None:
        return _COLOUR_NOISE
    if problem.kind in ("quantize", "jpeg"):
        return float(problem.operator.estimate_sigma(problem.y))
    return problem.sigma


def _array(x: Tensor) -> Any:
    """(H, W, C) in double precision from one image (1, C, H, W)."""
    return x[0].permute(1, 2, 0).double().numpy()


def _image(array: Any) -> Tensor:
    """One image (1, C, H, W) from (H, W, C) or (H, W)."""
    return torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1)[None].float()


def _hole(problem: Problem) -> Any:
    """Where pixels of a problem of one image are unknown, boolean (H, W)."""
    return (operator_of(problem)(torch.ones_like(problem.view)) == 0).any(1)[0].numpy()


def biharmonic(problem: Problem) -> Tensor:
    """Unknown pixels by the biharmonic equation, scikit-image."""
    from skimage.restoration import inpaint_biharmonic

    return torch.cat(
        [_image(inpaint_biharmonic(_array(one.y), _hole(one), channel_axis=-1)) for one in _singles(problem)]
    )


def opencv_inpaint(problem: Problem, *, flavour: str, radius: int = 3) -> Tensor:
    """Unknown pixels by OpenCV, which works on 8 bits.

    Args:
        problem: What to restore.
        flavour: "telea" (fast marching) or "navier-stokes".
        radius: Of the neighbourhood, pixels.
    """
    import cv2

    flags = {"telea": cv2.INPAINT_TELEA, "navier-stokes": cv2.INPAINT_NS}[flavour]
    parts = []
    for one in _singles(problem):
        hole = _hole(one)
        bytes_ = (_array(one.y.clamp(0, 1)) * 255).round().astype(np.uint8)
        filled = _image(cv2.inpaint(bytes_, hole.astype(np.uint8), radius, flags) / 255)
        parts.append(torch.where(torch.from_numpy(hole), filled, one.y))
    return torch.cat(parts)


def skimage_tv(problem: Problem, *, strength: float = 1.0) -> Tensor:
    """Chambolle's total variation, scikit-image.

    Args:
        problem: What to restore.
        strength: Weight relative to the noise level.
    """
    from skimage import restoration

    denoise: Any = restoration.denoise_tv_chambolle
    return torch.cat(
        [
            _image(
                denoise(
                    _array(one.y), weight=strength * _level(one), eps=1e-5, max_num_iter=500, channel_axis=-1
                )
            )
            for one in _singles(problem)
        ]
    )


def bm3d(problem: Problem, *, strength: float = 1.0, profile: str = "np") -> Tensor:
    """Block matching and 3-D filtering by its authors' package; for blur their two-step deblurring.

    Colour images are filtered in the opponent colour space, with blocks matched in its luminance.

    Args:
        problem: What to restore.
        strength: Noise level given to the filter relative to the true one.
        profile: Settings of the package by name.

    Reference:
        Mäkinen, Azzari and Foi (2020); Dabov, Foi, Katkovnik and Egiazarian (2007, 2008).
    """
    import bm3d as package

    parts = []
    for one in _singles(problem):
        level = strength * _level(one)
        z = _array(one.y)
        if isinstance(one.operator, Blur):
            kernel = one.operator.kernel[0, 0].double().numpy()
            found = np.stack([_bm3d_deblur(c, level, kernel, profile) for c in np.moveaxis(z, 2, 0)], 2)
        elif z.shape[2] == 3:
            found = package.bm3d_rgb(z, level, profile)
        else:
            found = package.bm3d(z[..., 0], level, profile)
        parts.append(_image(found))
    return torch.cat(parts)


def _bm3d_deblur(z: Any, sigma: float, kernel: Any, profile: str) -> Any:
    """One blurred channel (H, W), circular borders: the package's own function fails with NumPy 2.

    Reference:
        Dabov, Foi, Katkovnik and Egiazarian (2008), Image restoration by sparse 3D transform-domain
        collaborative filtering; weights 4e-4 and 5e-3 of the two regularised inverses as there.
    """
    import bm3d as package

    padded = np.zeros(z.shape)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    transfer = np.fft.fft2(np.roll(padded, [-(side // 2) for side in kernel.shape], (0, 1)))
    spectrum, power = np.fft.fft2(z), np.full(z.shape, sigma**2 * z.size)

    def filtered(inverse: Any, stage: Any) -> Any:
        sharp = np.real(np.fft.ifft2(spectrum * inverse))
        return package.bm3d(sharp, power * np.abs(inverse) ** 2, profile, stage_arg=stage)

    energy = np.abs(transfer) ** 2
    # The package calls the integral by the name it had before NumPy 2.
    with unittest.mock.patch.object(np, "trapz", np.trapezoid, create=True):
        inverse = transfer.conj() / (energy + 4e-4 * power)
        pilot = filtered(inverse, package.BM3DStages.HARD_THRESHOLDING)
        seen = np.abs(np.fft.fft2(pilot)) ** 2
        return filtered(transfer.conj() * seen / (seen * energy + 5e-3 * power), pilot[..., None])


# deepinv ----------------------------------------------------------------------------------------------------


def deepinv_tv(problem: Problem, *, lam: float = 0.01, steps: int = 100) -> Tensor:
    """Total variation of every channel on its own, by deepinv's denoiser or Douglas-Rachford splitting.

    Args:
        problem: What to restore.
        lam: Weight of the prior.
        steps: Most steps of the splitting.
    """
    import deepinv

    parts = []
    for one in _singles(problem):
        # Their denoiser starts from its last answer: every image gets a new one.
        if isinstance(one.operator, Identity):
            parts.append(deepinv.models.TVDenoiser(n_it_max=300, crit=1e-5)(one.y, lam))
        else:
            prior = deepinv.optim.TVPrior(def_crit=1e-5, n_it_max=10)
            parts.append(_deepinv_split(one, prior, lam, steps))
    return torch.cat(parts)


def deepinv_wavelet(problem: Problem, *, lam: float = 0.01, steps: int = 100) -> Tensor:
    """Soft thresholds of the db8 wavelet coefficients, by deepinv's denoiser or Douglas-Rachford splitting.

    Args:
        problem: What to restore.
        lam: Weight of the prior.
        steps: Most steps of the splitting.
    """
    import deepinv

    parts = []
    for one in _singles(problem):
        if isinstance(one.operator, Identity):
            parts.append(deepinv.models.WaveletDenoiser(level=3, wv="db8")(one.y, lam))
        else:
            # The prox multiplies the weight it is given by a threshold that the algorithms leave at 0.1.
            prior = deepinv.optim.WaveletPrior(level=3, wv="db8")
            parts.append(_deepinv_split(one, prior, 10 * lam, steps))
    return torch.cat(parts)


def _physics(problem: Problem) -> Any:
    return operator_of(problem).to_deepinv(tuple(problem.view.shape[1:]))  # type: ignore[attr-defined]


def _start(problem: Problem) -> tuple[Tensor, Tensor]:
    """Both start images: the adjoint that deepinv takes by default leaves holes at 0 for long."""
    x = operator_of(problem).initial(problem.y, tuple(problem.view.shape[1:]))  # type: ignore[attr-defined]
    return x, x


def _deepinv_split(problem: Problem, prior: Any, lam: float, steps: int) -> Tensor:
    import deepinv

    algorithm = deepinv.optim.DRS(
        data_fidelity=deepinv.optim.L2(),
        prior=prior,
        lambda_reg=lam,
        stepsize=_STEP,
        max_iter=steps,
        early_stop=True,
        thres_conv=1e-4,
    )
    with torch.no_grad():
        found: Tensor = algorithm(problem.y, _physics(problem), init=_start(problem))
    return found


def deepinv_dpir(problem: Problem, *, network: str = "denoiser") -> Tensor:
    """Deepinv's DPIR, eight steps of half-quadratic splitting, with a denoiser of this package.

    Args:
        problem: What to restore.
        network: Name of the denoiser.
    """
    import deepinv

    from invrestore import priors

    prior = priors.load(network)

    class Adapted(deepinv.models.Denoiser):  # type: ignore[misc]
        def forward(self, x: Tensor, sigma: Any, **_: object) -> Tensor:
            return prior.denoise(x, float(torch.as_tensor(sigma).max()))

    parts = []
    for one in _singles(problem):
        algorithm = deepinv.optim.DPIR(sigma=max(one.sigma, _LEAST), denoiser=Adapted())
        with torch.no_grad():
            parts.append(algorithm(one.y, _physics(one), init=_start(one)))
    return torch.cat(parts)
