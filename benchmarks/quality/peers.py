"""Published colour denoisers with their authors' weights, for measuring side by side.

The weights are not part of this project and are never trained from: give the folder that holds the MATLAB
files of the authors, `color_sigma{15,25,50}.mat` (cszn/DnCNN) and `FFDNet_color.mat` (cszn/FFDNet). Run as a
script, it scores them on a folder of images by the protocol of the published tables::

    python -m benchmarks.quality.peers --peers DIR --images DIR/cbsd68 --limit 12
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore.errors import WeightsError
from invrestore.io import load_image
from invrestore.networks import DenoiserNetwork, DnCNN
from invrestore.networks._blocks import pad_to_multiple
from invrestore.training import score_denoiser

__all__ = ["PUBLISHED", "FFDNet", "load_dncnn", "load_ffdnet", "main"]

PUBLISHED = {
    "FFDNet": {15: 33.87, 25: 31.21, 50: 27.96},
    "DnCNN": {15: 33.90, 25: 31.24, 50: 27.95},
}
"""Mean PSNR in dB on all of CBSD68, by the tables of the papers."""


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


def load_dncnn(folder: str | Path, level: int) -> DnCNN:
    """Load the authors' colour DnCNN for one noise level.

    Args:
        folder: Holds `color_sigma{level}.mat`.
        level: 15, 25 or 50, in 8-bit units.

    Raises:
        WeightsError: The file is missing or holds another network.
    """
    layers = _convolutions(Path(folder) / f"color_sigma{level}.mat")
    network = DnCNN(depth=len(layers), normalised=False)
    _fill(network.layers, layers)
    return network.eval().requires_grad_(False)


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


def main() -> None:
    """Score the peers, and networks of ours, on a folder of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the authors' files")
    parser.add_argument("--images", type=Path, required=True, help="folder of colour images")
    parser.add_argument("--limit", type=int, help="use only the first images")
    parser.add_argument("--level", type=int, action="append", help="15, 25 or 50; all three by default")
    parser.add_argument("--ours", action="append", default=[], help="a catalogue name or a .safetensors file")
    options = parser.parse_args()
    from invrestore import networks

    paths = sorted(path for path in options.images.iterdir() if path.suffix in {".png", ".jpg"})[
        : options.limit
    ]
    images = [load_image(path) for path in paths]
    print(f"{len(images)} images of {options.images.name}; mean RGB PSNR in dB")
    for level in options.level or [15, 25, 50]:
        rows: dict[str, Callable[..., Tensor]] = {
            "FFDNet": load_ffdnet(options.peers),
            "DnCNN": load_dncnn(options.peers, level),
        }
        for name in options.ours:
            rows[name] = networks.load_file(name) if name.endswith(".safetensors") else networks.load(name)
        scores = {name: score_denoiser(network, images, level / 255) for name, network in rows.items()}
        print(
            f"sigma {level}: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
