"""Distances in the feature maps of a network: perceptual losses and feature matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from invrestore.errors import UnknownNameError, WeightsError

__all__ = ["CASCADE_LAYERS", "UNIFIED_LAYERS", "XGAN_LAYERS", "PerceptualLoss", "feature_matching", "vgg"]

XGAN_LAYERS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
"""Layers of VGG-19 and their weights in X-GANs, from pix2pixHD; the distance is L1."""

CASCADE_LAYERS = {"relu1_2": 0.25, "relu2_2": 0.25, "relu3_3": 0.25, "relu4_3": 0.25}
"""Layers of VGG-16 in the deep cascade, a mean of squared distances."""

UNIFIED_LAYERS = {"conv3_3": 1.0}
"""Layer of VGG-16 in the unified conditional GAN, a squared distance."""

_FILES = {16: "vgg16-397923af.pth", 19: "vgg19-dcbb9e9d.pth"}
_COUNTS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PerceptualLoss(nn.Module):
    """sum_i w_i d(F_i(x), F_i(t)), d the mean absolute or mean squared difference of the maps of layer i.

    Args:
        network: "vgg16" or "vgg19", whose weights torchvision's users have on disk, or any module with named
            layers. It is kept frozen and in evaluation mode.
        layers: Weight of each layer by name. Layers of VGG are called conv1_1 to conv5_4 and relu1_1 to
            relu5_4, those of other modules as in `named_modules`.
        distance: "l1" or "mse".
        normalise: Move images from [0, 1] to the mean and deviation of ImageNet's; None does for VGG only.

    Shapes:
        x, t: (N, 3, H, W) in [0, 1], or what the module takes. Returns a number. No gradient flows to t.

    Raises:
        WeightsError: The weights of VGG are not on disk.
        UnknownNameError: There is no such network or distance, or the network has no such layer.

    Reference:
        Johnson et al. (2016), Perceptual Losses for Real-Time Style Transfer and Super-Resolution.
    """

    def __init__(
        self,
        network: nn.Module | Literal["vgg16", "vgg19"],
        layers: Mapping[str, float],
        distance: Literal["l1", "mse"] = "l1",
        normalise: bool | None = None,
    ) -> None:
        super().__init__()
        where = "PerceptualLoss"
        if distance not in ("l1", "mse"):
            raise UnknownNameError.suggest(where, "distance", distance, ("l1", "mse"))
        if isinstance(network, str):
            if network not in ("vgg16", "vgg19"):
                raise UnknownNameError.suggest(where, "network", network, ("vgg16", "vgg19"))
            self.network, names = vgg(int(network[3:]))
            layers = {names[_known(where, name, names)]: weight for name, weight in layers.items()}
            normalise = True if normalise is None else normalise
        else:
            self.network = network
        modules = dict(self.network.named_modules())
        self.weights = {_known(where, name, modules): float(weight) for name, weight in layers.items()}
        self.squared = distance == "mse"
        self.network.eval().requires_grad_(False)
        scale = (_MEAN, _STD) if normalise else ((0.0,), (1.0,))
        self.mean, self.std = (nn.Buffer(torch.tensor(v).view(1, -1, 1, 1), persistent=False) for v in scale)
        self._maps: dict[str, Tensor] = {}
        for name in self.weights:
            modules[name].register_forward_hook(self._keeper(name))

    def _keeper(self, name: str):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            # A copy where the next layer may work in place.
            self._maps[name] = output.clone()

        return keep

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps of the chosen layers, in the order in which they were named."""
        self._maps.clear()
        self.network((x - self.mean) / self.std)
        maps = [self._maps[name] for name in self.weights]
        self._maps.clear()
        return maps

    def train(self, mode: bool = True) -> PerceptualLoss:
        """The network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Distance of x from the target."""
        with torch.no_grad():
            wanted = self.features(target)
        total = x.new_zeros(())
        for f, t, weight in zip(self.features(x), wanted, self.weights.values(), strict=True):
            difference = _wide(f - t)
            total = total + weight * (difference.square() if self.squared else difference.abs()).mean()
        return total


def vgg(depth: Literal[16, 19] | int, folder: str | Path | None = None) -> tuple[nn.Module, dict[str, str]]:
    """The convolutions of torchvision's VGG-16 or VGG-19 with their ImageNet weights, read from disk.

    Nothing is downloaded.

    Args:
        depth: 16 or 19.
        folder: Where the weights lie under torchvision's file name; None looks where torchvision keeps them.

    Returns:
        The module, and the names of its layers by their usual names conv1_1, relu1_1 and so on.

    Raises:
        UnknownNameError: depth is another one.
        WeightsError: The file is not there or damaged.
    """
    if depth not in _FILES:
        raise UnknownNameError.suggest("losses.vgg", "depth", str(depth), map(str, _FILES))
    place = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)
    path = place / _FILES[depth]
    expected = f"the ImageNet weights of VGG-{depth} in {path.name}"
    if not path.is_file():
        raise WeightsError(
            "losses.vgg",
            expected=expected,
            found=f"none in {place}",
            remedy=f"torchvision.models.vgg{depth}(weights='DEFAULT') fetches them; other networks do as well.",
        )
    from torchvision.models import vgg as models

    network: nn.Module = getattr(models, f"vgg{depth}")(weights=None).features
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(
            {k.removeprefix("features."): v for k, v in weights.items() if k.startswith("features.")}
        )
    except Exception as error:
        raise WeightsError(
            "losses.vgg", expected=expected, found=f"{type(error).__name__}", remedy="Fetch them again."
        ) from error
    names, index = {}, 0
    for group, count in enumerate(_COUNTS[depth], 1):
        for number in range(1, count + 1):
            names[f"conv{group}_{number}"], names[f"relu{group}_{number}"] = str(index), str(index + 1)
            index += 2
        index += 1
    return network, names


def feature_matching(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """sum_k sum_i 1/N_i ||D_k^(i)(s, x) - D_k^(i)(s, G(s))||_1 over discriminators k and their layers i.

    The logits, the last map of each discriminator, do not count.

    Args:
        real: Maps of each discriminator for true images; no gradient flows back through them.
        fake: Maps for generated images.

    Shapes:
        real, fake: For each discriminator a list of maps (N, C_i, h_i, w_i) of its layers, the logits last; both alike.
        returns: (), at least float32.

    Reference:
        Wang et al. (2018), High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs.
    """
    distances = [
        _wide(f - r.detach()).abs().mean()
        for these, those in zip(real, fake, strict=True)
        for r, f in zip(these[:-1], those[:-1], strict=True)
    ]
    return torch.stack(distances).sum()


def _known(where: str, name: str, names: Mapping[str, object]) -> str:
    if name not in names:
        raise UnknownNameError.suggest(where, "layer", name, [n for n in names if n])
    return name


def _wide(x: Tensor) -> Tensor:
    """At least float32, in which maps from half precision are averaged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
