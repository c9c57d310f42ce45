"""Learned perceptual distance, where its weights are on disk."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from invrestore._checks import check_choice
from invrestore._types import Tensor
from invrestore.errors import RangeError, ShapeError, WeightsError
from invrestore.metrics._pair import check_pair

__all__ = ["lpips"]

_WEIGHTS = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}
_SIDE = 32


def _weights_file(network: str) -> tuple[Path, str]:
    """Where torchvision keeps the weights, and where they come from."""
    import torchvision

    url = getattr(torchvision.models, _WEIGHTS[network]).DEFAULT.url
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name, url


@functools.lru_cache(maxsize=3)
def _distance(network: str, _path: Path, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    net = LearnedPerceptualImagePatchSimilarity(net_type=network).net  # type: ignore[arg-type]
    return net.to(device=device, dtype=dtype).requires_grad_(False)


def lpips(x: Tensor, x_true: Tensor, network: str = "alex") -> Tensor:
    """Learned perceptual distance (LPIPS 0.1): weighted squared difference of network features.

    Nothing is downloaded: the features of torchvision's ImageNet networks must be on disk already.

    Args:
        x: Estimate, values in [0, 1]; differentiable.
        x_true: Truth, of the same shape and on the same device.
        network: "alex" (what papers report), "vgg" or "squeeze".

    Shapes:
        x, x_true: (B, 3, H, W), real floating point, H and W >= 32. Returns (B,).

    Raises:
        WeightsError: The network's weights are not on disk; the message says where they belong.
        ShapeError: The shapes differ, are not (B, 3, H, W), or a side is shorter than 32.
        RangeError: A value is outside [0, 1].
        UnknownNameError: No such network.

    Reference:
        Zhang, Isola, Efros, Shechtman and Wang (2018), The unreasonable effectiveness of deep features as a
        perceptual metric. Network and linear weights as in torchmetrics.
    """
    check_choice("lpips", "network", network, list(_WEIGHTS))
    x, x_true = check_pair("lpips", x, x_true)
    if x.shape[1] != 3 or min(x.shape[-2:]) < _SIDE:
        raise ShapeError(
            "lpips",
            expected=f"images of shape (B, 3, H, W) with H and W >= {_SIDE}",
            found=str(tuple(x.shape)),
            remedy="Gray images become RGB with x.expand(-1, 3, -1, -1)." if x.shape[1] == 1 else "",
        )
    for name, image in (("x", x), ("x_true", x_true)):
        low, high = (float(v) for v in image.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise RangeError(
                "lpips",
                expected=f"{name} in [0, 1]",
                found=f"[{low:g}, {high:g}]",
                remedy="metrics.quantize or clamp(0, 1) make it the image that is seen.",
            )
    path, url = _weights_file(network)
    if not path.is_file():
        raise WeightsError(
            "lpips",
            expected=f"the weights of {network!r} at {path}",
            found="no file",
            remedy=f"Download {url} to that place, or score with psnr and ssim.",
        )
    distance: Tensor = _distance(network, path, x.device, x.dtype)(x, x_true, normalize=True)
    return distance.flatten()
