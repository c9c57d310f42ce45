"""Published colour denoisers with their authors' weights.

The weights are not part of this project and are never trained from: give the folder that holds the MATLAB
files of the authors, `color_sigma{15,25,50}.mat` (cszn/DnCNN) and `FFDNet_color.mat` (cszn/FFDNet).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore.bench._types import Problem
from invrestore.errors import CapabilityError, WeightsError
from invrestore.networks import DenoiserNetwork, DnCNN
from invrestore.networks._blocks import pad_to_multiple

__all__ = ["FFDNet", "dncnn", "dncnn_blind", "ffdnet", "load_dncnn", "load_ffdnet"]

_LEVELS = (15, 25, 50)
"""Noise levels that DnCNN was published for, in 8-bit units."""


def dncnn(problem: Problem, *, peers: str) -> Tensor:
    """Colour DnCNN with its authors' weights for this noise level.

    Args:
        problem: What to restore.
        peers: Folder of the authors' files.

    Raises:
        CapabilityError: Another noise level than 15, 25 or 50 of 255, or gray images.
        WeightsError: The file is missing or holds another network.
    """
    level = round(255 * problem.sigma)
    if level not in _LEVELS or abs(level - 255 * problem.sigma) > 0.01:
        raise CapabilityError(
            "bench dncnn", expected=f"noise level {_LEVELS} of 255", found=f"{255 * problem.sigma:g}"
        )
    return _denoise(problem, load_dncnn(peers, level))


def dncnn_blind(problem: Problem, *, peers: str) -> Tensor:
    """Colour DnCNN with its authors' weights for all noise levels up to 55/255, which is not told the level.

    Args:
        problem: What to restore.
        peers: Folder of the authors' files.

    Raises:
        CapabilityError: Gray images.
        WeightsError: The file is missing or holds another network.
    """
    return _denoise(problem, load_dncnn(peers, None))


def ffdnet(problem: Problem, *, peers: str) -> Tensor:
    """Colour FFDNet with its authors' weights.

    Args:
        problem: What to restore.
        peers: Folder of the authors' file.

    Raises:
        CapabilityError: Gray images.
        WeightsError: The file is missing or holds another network.
    """
    return _denoise(problem, load_ffdnet(peers))


def _denoise(problem: Problem, network: DenoiserNetwork) -> Tensor:
    if problem.view.shape[1] != 3:
        raise CapabilityError(
            "bench", expected="colour images for published colour weights", found="gray images"
        )
    with torch.no_grad():
        found: Tensor = network(problem.y, problem.sigma)
    return found


class FFDNet(DenoiserNetwork):
    """Convolutions at half resolution over the four phases of the image and a noise map.

    Args:
        channels: Image channels.
        depth: Number of convolutions: 12 for colour.
        width: Feature channels: 96 for colour.

    Reference:
        Zhang et al. (2018), FFDNet: Toward a Fast and Flexible Solution for CNN-based Image Denoising.
    """

    def __init__(self, channels: int = 3, depth: int = 12, width: int = 96) -> None:
        super().__init__(channels)
        layers: list[nn.Module] = [nn.Conv2d(4 * channels + 1, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(width, 4 * channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return x minus the image that the network estimates."""
        height, width = x.shape[-2:]
        phases = F.pixel_unshuffle(pad_to_multiple(x, 2), 2)
        level = pad_to_multiple(sigma, 2)[..., ::2, ::2]
        image = F.pixel_shuffle(self.layers(torch.cat((phases, level), dim=1)), 2)
        return x - image[..., :height, :width]


@functools.cache
def load_dncnn(folder: str | Path, level: int | None) -> DnCNN:
    """Load the authors' colour DnCNN.

    Args:
        folder: Holds `color_sigma{level}.mat` and `GD_Color_Blind.mat`.
        level: 15, 25 or 50, in 8-bit units, for the network of one level; None for the blind one.

    Raises:
        WeightsError: The file is missing or holds another network.
    """
    name = "GD_Color_Blind.mat" if level is None else f"color_sigma{level}.mat"
    layers = _convolutions(Path(folder) / name)
    network = DnCNN(depth=len(layers), normalised=False)
    _fill(network.layers, layers)
    return network.eval().requires_grad_(False)


@functools.cache
def load_ffdnet(folder: str | Path) -> FFDNet:
    """Load the authors' colour FFDNet.

    Raises:
        WeightsError: The file is missing or holds another network.
    """
    layers = _convolutions(Path(folder) / "FFDNet_color.mat")
    network = FFDNet(depth=len(layers))
    # MATLAB lists the four phases of a pixel by columns, PyTorch by rows.
    order = np.arange(12).reshape(3, 2, 2).transpose(0, 2, 1).ravel()
    (first, first_bias), (last, last_bias) = layers[0], layers[-1]
    layers[0] = first[:, [*order, 12]], first_bias
    layers[-1] = last[order], last_bias[order]
    _fill(network.layers, layers)
    return network.eval().requires_grad_(False)


def _convolutions(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (outputs, inputs, 3, 3) and biases of every convolution in a MATLAB v7.3 file of MatConvNet."""
    import h5py

    if not path.is_file():
        raise WeightsError("peers", expected=f"the authors' file {path.name}", found="none")
    found = []
    with h5py.File(path) as file:
        net: Any = file["net"]
        for reference in net["layers"][()].ravel():
            layer: Any = file[reference]
            kind = "".join(map(chr, layer["type"][()].ravel()))
            if kind == "conv":
                weight, bias = (file[entry][()] for entry in layer["weights"][()].ravel())
                # HDF5 reverses MATLAB's axes (height, width, inputs, outputs).
                found.append((weight.transpose(0, 1, 3, 2), bias.ravel()))
    return found


def _fill(layers: nn.Sequential, values: list[tuple[np.ndarray, np.ndarray]]) -> None:
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for convolution, (weight, bias) in zip(convolutions, values, strict=True):
        if convolution.weight.shape != weight.shape:
            raise WeightsError(
                "peers", expected=str(tuple(convolution.weight.shape)), found=str(weight.shape)
            )
        convolution.weight.data = torch.from_numpy(np.ascontiguousarray(weight))
        convolution.bias.data = torch.from_numpy(np.ascontiguousarray(bias))  # type: ignore[union-attr]
