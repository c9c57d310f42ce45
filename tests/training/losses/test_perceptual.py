"""Distances in feature maps against values computed by hand, and the weights of VGG, which are read from disk."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from invrestore.errors import UnknownNameError, WeightsError
from invrestore.training import losses


class Twice(nn.Module):
    """Maps a: 2 x, b: 6 x."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
        for layer, factor in ((self.a, 2.0), (self.b, 3.0)):
            layer.weight.data = factor * torch.eye(3)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x))
        return out


def test_perceptual_loss_equals_the_hand_computed_value() -> None:
    x, target = torch.full((1, 3, 2, 2), 0.75), torch.full((1, 3, 2, 2), 0.5)
    loss = losses.PerceptualLoss(Twice(), {"a": 1.0, "b": 0.5})
    assert loss(x, target).item() == pytest.approx(0.5 + 0.5 * 1.5)
    squared = losses.PerceptualLoss(Twice(), {"b": 2.0}, "mse")
    assert squared(x, target).item() == pytest.approx(2 * 1.5**2)
    moved = losses.PerceptualLoss(Twice(), {"a": 1.0}, normalise=True)
    assert moved(x, target).item() == pytest.approx(0.5 * sum(1 / s for s in (0.229, 0.224, 0.225)) / 3)


def test_perceptual_loss_is_frozen_and_differentiates_in_the_image() -> None:
    network = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU(inplace=True))).double()
    # The map is taken before the activation works on it in place.
    loss = losses.PerceptualLoss(network, {"conv": 1.0}, "mse").double()
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    assert gradcheck(lambda v: loss(v, target), (x,))
    expected = (network.conv(x) - network.conv(target)).square().mean()
    assert loss(x, target).item() == pytest.approx(expected.item())
    assert not any(p.requires_grad for p in loss.parameters())
    assert not loss.train().network.training


def test_perceptual_loss_refuses_unknown_layers_networks_and_distances() -> None:
    with pytest.raises(UnknownNameError, match="layer out of 'a', 'b', got 'c'"):
        losses.PerceptualLoss(Twice(), {"c": 1.0})
    with pytest.raises(UnknownNameError, match="network out of 'vgg16', 'vgg19'"):
        losses.PerceptualLoss("vgg11", {})  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="distance out of 'l1', 'mse'"):
        losses.PerceptualLoss(Twice(), {"a": 1.0}, "l2")  # type: ignore[arg-type]


def test_vgg_reads_torchvision_s_weights_from_disk_and_names_its_layers(tmp_path: Path) -> None:
    from torchvision.models import vgg as models

    torch.manual_seed(0)
    twin = models.vgg16(weights=None)
    twin.classifier = nn.Sequential()
    torch.save(twin.state_dict(), tmp_path / "vgg16-397923af.pth")
    network, names = losses.vgg(16, tmp_path)
    layer = dict(network.named_modules())[names["conv3_3"]]
    assert isinstance(layer, nn.Conv2d)
    assert (layer.in_channels, layer.out_channels) == (256, 256)
    torch.testing.assert_close(layer.weight, twin.features[14].weight)
    assert names["relu4_3"] == "22"
    assert losses.XGAN_LAYERS.keys() <= {f"relu{g}_1" for g in range(1, 6)}
    for layers in (losses.CASCADE_LAYERS, losses.UNIFIED_LAYERS):
        assert layers.keys() <= names.keys()
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"cut")
    with pytest.raises(WeightsError, match=r"VGG-16 in vgg16-397923af\.pth.*Fetch them again"):
        losses.vgg(16, tmp_path)


def test_missing_vgg_weights_are_named_and_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none in .*vgg19\(weights='DEFAULT'\)"):
        losses.vgg(19, tmp_path)
    with pytest.raises(UnknownNameError, match="depth out of '16', '19'"):
        losses.vgg(11)


def test_feature_matching_equals_the_hand_computed_value() -> None:
    real = [[torch.zeros(1, 2, 2, 2), torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 9.0)]]
    fake = [[torch.full((1, 2, 2, 2), 0.5), torch.full((1, 1, 1, 1), -2.0), torch.zeros(1, 1, 1, 1)]]
    # The last map is the logits and does not count.
    assert losses.feature_matching(real, fake).item() == 2.5
    assert losses.feature_matching(real * 3, fake * 3).item() == 7.5
    x = torch.rand(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: losses.feature_matching([[torch.zeros(1, 2, 2, 2), v]], [[v + 1, v]]), (x,))
    grown = torch.zeros(1, 1, 1, 1, requires_grad=True)
    assert not losses.feature_matching([[grown, grown]], [[torch.ones(1, 1, 1, 1)] * 2]).requires_grad
