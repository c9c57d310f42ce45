"""The catalogue of trained weights: what each file is, where it comes from, and how it is loaded safely.

A checkpoint is two files beside each other in `networks/weights/`: `NAME.safetensors` with half-precision
tensors and `NAME.json`, its card. Neither can run code when it is read. A folder named by the environment
variable INVRESTORE_WEIGHTS adds the checkpoints of one's own trainings, under names that the package does not have.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import nn

from invrestore.errors import UnknownNameError, WeightsError
from invrestore.io import write_bytes
from invrestore.networks._bi_skip import BiSkipGenerator
from invrestore.networks._blocks import DenoiserNetwork
from invrestore.networks._cascade import Cascade, DeblurDenoise, InpaintingGenerator, InpaintingResNet
from invrestore.networks._dcgan import DCGAN
from invrestore.networks._dncnn import DnCNN
from invrestore.networks._face_gan import FaceGAN
from invrestore.networks._high_level import Classifier, Segmenter
from invrestore.networks._multiscale import MultiScaleDenoiser
from invrestore.networks._unet import RestorationUNet, UNet
from invrestore.networks._xgan import ResidualGenerator

__all__ = ["ARCHITECTURES", "Card", "available", "build", "card", "load", "load_file", "save"]

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "BiSkipGenerator": BiSkipGenerator,
    "Cascade": Cascade,
    "Classifier": Classifier,
    "DCGAN": DCGAN,
    "DeblurDenoise": DeblurDenoise,
    "DnCNN": DnCNN,
    "FaceGAN": FaceGAN,
    "InpaintingGenerator": InpaintingGenerator,
    "InpaintingResNet": InpaintingResNet,
    "MultiScaleDenoiser": MultiScaleDenoiser,
    "ResidualGenerator": ResidualGenerator,
    "RestorationUNet": RestorationUNet,
    "Segmenter": Segmenter,
    "UNet": UNet,
}
"""Networks that a card may name."""


@dataclass(frozen=True)
class Card:
    """What is known about one checkpoint.

    Attributes:
        name: Name in the catalogue.
        architecture: Key of :data:`ARCHITECTURES`.
        arguments: Constructor arguments of the architecture.
        sha256: Hash of the safetensors file.
        channels: Image channels the network takes.
        sigma_range: Noise levels seen in training, in units of the image range; None for networks without.
        parameters: Number of parameters.
        data: What it was trained on.
        licence: Terms of the training data and of the weights.
        metrics: Scores by name, and the protocol they follow under "protocol".
        training: Effort and machine.
        recipe: Name of the recipe.
        commit: Revision of the project that trained it.
        reference: Paper of the architecture.
        degradations: What a restorer was trained to undo, each with its "kind" and the ranges of its numbers, as in
            recipes; empty for other networks.
        maps: Whether a denoiser was shown noise that differs from pixel to pixel.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    sha256: str
    channels: int
    sigma_range: tuple[float, float] | None
    parameters: int
    data: str
    licence: str
    metrics: dict[str, float | str]
    training: str
    recipe: str
    commit: str
    reference: str
    degradations: tuple[dict[str, Any], ...] = ()
    maps: bool = False


def available() -> list[str]:
    """Names of the checkpoints in the package and in the folder INVRESTORE_WEIGHTS, sorted.

    Raises:
        WeightsError: INVRESTORE_WEIGHTS is no folder, or holds a name that the package has as well.
    """
    return sorted(_places())


def card(name: str) -> Card:
    """Return the card of a checkpoint.

    Raises:
        UnknownNameError: There is no checkpoint of this name; the nearest names are suggested.
        WeightsError: The card is damaged.
    """
    return _read_card(_place("networks.card", name) / f"{name}.json")


def load(
    name: str, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """Load a trained network by name, ready for use: evaluation mode, no gradients of weights.

    Args:
        name: One of :func:`available`: in the package, or in the folder INVRESTORE_WEIGHTS.
        device: Where to put it; None for the CPU.
        dtype: Type of its weights and computations, torch.float32 by default. torch.bfloat16 is several times
            faster on processors and accelerators with matrix units; a denoiser then rounds its noise estimate
            to 8 bits.

    Raises:
        UnknownNameError: There is no checkpoint of this name; the nearest names are suggested.
        WeightsError: The file or its card is missing, damaged or belongs to another network.
    """
    folder = _place("networks.load", name)
    return _assemble(folder / f"{name}.safetensors", _read_card(folder / f"{name}.json"), device, dtype)


def load_file(
    path: str | Path, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """Load a network from a safetensors file with its card, the same name with `.json`, beside it.

    Raises:
        WeightsError: The file or its card is missing, damaged or belongs to another network.
    """
    path = Path(path)
    return _assemble(path, _read_card(path.with_suffix(".json")), device, dtype)


def save(network: nn.Module, path: str | Path, details: Card) -> Card:
    """Write a network as float16 safetensors with its card beside it.

    Args:
        network: Network to write.
        path: File to write, ending in `.safetensors`; the card gets the same name with `.json`.
        details: The card; its `sha256` and `parameters` are filled in.

    Returns:
        The card as written.

    Raises:
        WeightsError: A weight is not finite or too large for float16, or the card does not describe the
            network.
    """
    path = Path(path)
    tensors = {key: _halved(key, value) for key, value in network.state_dict().items()}
    data = dump_tensors(tensors)
    count = sum(p.numel() for p in network.parameters())
    done = Card(**{**asdict(details), "sha256": hashlib.sha256(data).hexdigest(), "parameters": count})
    twin = build(done)
    if {k: v.shape for k, v in twin.state_dict().items()} != {k: v.shape for k, v in tensors.items()}:
        raise WeightsError(
            "networks.save",
            expected=f"a {done.architecture}(**{done.arguments})",
            found=type(network).__name__,
        )
    write_bytes(path, data, force=True)
    card = json.dumps(asdict(done), indent=2) + "\n"
    write_bytes(path.with_suffix(".json"), card.encode(), force=True)
    return done


def build(details: Card) -> nn.Module:
    """Construct the network that a card describes, without its weights.

    Raises:
        UnknownNameError: The card names an architecture that this version does not have.
        WeightsError: The arguments do not fit the architecture.
    """
    if details.architecture not in ARCHITECTURES:
        raise UnknownNameError.suggest("networks.build", "architecture", details.architecture, ARCHITECTURES)
    try:
        return ARCHITECTURES[details.architecture](**details.arguments)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            "networks.build",
            expected=f"arguments of {details.architecture}",
            found=f"{details.arguments}: {error}",
        ) from error


def _places() -> dict[str, Traversable]:
    """The folder of each checkpoint."""
    package = resources.files("invrestore.networks").joinpath("weights")
    found = dict.fromkeys(_names(package), package)
    own = os.environ.get("INVRESTORE_WEIGHTS")
    if not own:
        return found
    folder = Path(own)
    if not folder.is_dir():
        raise WeightsError(
            "INVRESTORE_WEIGHTS",
            expected="a folder of NAME.safetensors with NAME.json beside each",
            found=own,
            remedy="Correct or unset the environment variable.",
        )
    names = _names(folder)
    if shared := sorted(found.keys() & names):
        raise WeightsError(
            "INVRESTORE_WEIGHTS",
            expected="names that the package does not have",
            found=", ".join(shared),
            remedy="Give the two files of each another name.",
        )
    return found | dict.fromkeys(names, folder)


def _names(folder: Traversable) -> set[str]:
    """Names of the checkpoints in a folder: those with a card beside them."""
    files = {entry.name for entry in folder.iterdir()}
    return {
        file.removesuffix(".json")
        for file in files
        if file.endswith(".json") and f"{file.removesuffix('.json')}.safetensors" in files
    }


def _place(where: str, name: str) -> Traversable:
    """The folder of one checkpoint."""
    places = _places()
    if name not in places:
        raise UnknownNameError.suggest(where, "checkpoint", name, sorted(places))
    return places[name]


def _read_card(path: Traversable) -> Card:
    try:
        content = json.loads(path.read_text())
        content = {"degradations": (), "maps": False} | content
        names = {field.name for field in fields(Card)}
        if set(content) != names:
            raise KeyError(", ".join(sorted(names ^ set(content))))
        content["degradations"] = tuple(dict(entry) for entry in content["degradations"])
        if content["sigma_range"] is not None:
            low, high = content["sigma_range"]
            content["sigma_range"] = (float(low), float(high))
        if not isinstance(content["maps"], bool):
            raise TypeError(f"maps is {content['maps']!r}, not true or false")
        return Card(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            "networks.load",
            expected=f"a readable card {path.name}",
            found=f"{type(error).__name__}: {error}",
            remedy="Install the package again, or export the weights again.",
        ) from error


def _assemble(
    path: Traversable, details: Card, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Module:
    remedy = "Install the package again, or export the weights again."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            "networks.load", expected=f"a file {path.name}", found="none", remedy=remedy
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != details.sha256:
        raise WeightsError(
            "networks.load", expected=f"{path.name} with sha256 {details.sha256}", found=found, remedy=remedy
        )
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise WeightsError(
            "networks.load", expected=f"tensors in {path.name}", found=str(error), remedy=remedy
        ) from error
    # The first weights, which the stored ones replace, are drawn from a random state of their own.
    with torch.random.fork_rng(devices=[]):
        network = build(details)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(
            "networks.load",
            expected=f"the tensors of {details.architecture}(**{details.arguments})",
            found="others",
            remedy="The card and the weights belong to different networks.",
        ) from error
    if isinstance(network, DenoiserNetwork):
        if network.channels != details.channels:
            raise WeightsError(
                "networks.load",
                expected=f"a network of {details.channels} channel(s), as its card says",
                found=str(network.channels),
                remedy=remedy,
            )
        network.sigma_range = details.sigma_range
        network.maps = details.maps
    return network.eval().requires_grad_(False).to(device=device, dtype=dtype)


def _halved(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Store floating-point tensors as float16; counters of batch normalisation stay whole numbers."""
    if not tensor.is_floating_point():
        return tensor.cpu().contiguous()
    half = tensor.detach().to(device="cpu", dtype=torch.float16).contiguous()
    if not bool(torch.isfinite(half).all()):
        raise WeightsError(
            "networks.save",
            expected="finite weights within float16",
            found=f"others in {key}",
            remedy="Train on.",
        )
    return half
