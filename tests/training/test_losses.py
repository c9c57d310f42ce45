"""Each loss against a value computed by hand, and its gradient against finite differences."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from invrestore.errors import UnknownNameError, WeightsError
from invrestore.training import losses

LOGITS = torch.tensor([1.0, -2.0], dtype=torch.float64)
FAKE = torch.tensor([0.5, 3.0], dtype=torch.float64)


def softplus(value: float) -> float:
    return float(torch.log1p(torch.exp(torch.tensor(value, dtype=torch.float64))))


VALUES = {
    "non-saturating": (
        (softplus(-1) + softplus(2)) / 2 + (softplus(0.5) + softplus(3)) / 2,
        (softplus(-0.5) + softplus(-3)) / 2,
    ),
    "minimax": (
        (softplus(-1) + softplus(2)) / 2 + (softplus(0.5) + softplus(3)) / 2,
        -(softplus(0.5) + softplus(3)) / 2,
    ),
    # 1/2 mean (0, 9) + 1/2 mean (.25, 9); mean (.25, 4)
    "least-squares": (0.5 * 4.5 + 0.5 * 4.625, 2.125),
    # mean (.5, 3) - mean (1, -2); -mean (.5, 3)
    "wasserstein": (1.75 + 0.5, -1.75),
    "relativistic": (
        (softplus(-0.5) + softplus(5)) / 2,
        (softplus(0.5) + softplus(-5)) / 2,
    ),
}


def test_every_pair_has_a_value_here() -> None:
    assert VALUES.keys() == losses.ADVERSARIAL.keys()


@pytest.mark.parametrize("name", VALUES)
def test_adversarial_losses_equal_the_hand_computed_values(name: str) -> None:
    pair, (discriminator, generator) = losses.ADVERSARIAL[name], VALUES[name]
    assert float(pair.discriminator(LOGITS, FAKE)) == pytest.approx(discriminator)
    assert float(pair.generator(LOGITS, FAKE)) == pytest.approx(generator)


@pytest.mark.parametrize("name", VALUES)
def test_adversarial_gradients_match_finite_differences(name: str) -> None:
    pair = losses.ADVERSARIAL[name]
    real, fake = LOGITS.clone().requires_grad_(), FAKE.clone().requires_grad_()
    assert gradcheck(pair.discriminator, (real, fake))
    assert gradcheck(lambda f: pair.generator(LOGITS, f), (fake,))


@pytest.mark.parametrize("name", VALUES)
def test_updates_that_lower_the_losses_pull_logits_the_right_way(name: str) -> None:
    pair = losses.ADVERSARIAL[name]
    real, fake = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    up, down = torch.autograd.grad(pair.discriminator(real, fake), (real, fake))
    assert bool((up < 0).all())
    assert bool((down >= 0).all())
    (wish,) = torch.autograd.grad(pair.generator(torch.zeros(2), fake), fake)
    assert bool((wish < 0).all())


def test_the_strongest_discriminator_counts_alone() -> None:
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.5, 2.0, 1.0)]
    loss = losses.strongest(values)
    assert loss.item() == 2.0
    grads = torch.autograd.grad(loss, values)
    assert [float(g) for g in grads] == [0.0, 1.0, 0.0]
    assert gradcheck(lambda *v: losses.strongest(v), tuple(values))


class Linear(nn.Module):
    """D(x) = w sum of x^2 / 2, whose gradient w x is known."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.w * x.square().flatten(1).sum(1)


def test_lipschitz_penalty_equals_the_hand_computed_value() -> None:
    critic = Linear()
    real = torch.full((1, 1, 1, 4), 3.0, dtype=torch.float64)
    fake = torch.full((1, 1, 1, 4), 1.0, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    u = torch.rand((1, 1, 1, 1), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).item()
    # The gradient is 2 x, with x = 1 + 2 u at all 4 samples: norm 2 * 2 * (1 + 2 u).
    expected = (4 * (1 + 2 * u) - 1) ** 2
    penalty = losses.lipschitz_penalty(critic, real, fake, rng)
    assert penalty.item() == pytest.approx(expected)
    (grad,) = torch.autograd.grad(penalty, critic.w)
    # d/dw (w a - 1)^2 = 2 a (w a - 1) with a = 2 (1 + 2 u).
    a = 2 * (1 + 2 * u)
    assert grad.item() == pytest.approx(2 * a * (2 * a - 1))


def test_lipschitz_penalty_reaches_the_weights_of_a_network_but_not_the_images() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 1, 3, padding=1).double()
    real = torch.rand(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    fake = torch.rand(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def penalty(weight: Tensor) -> Tensor:
        def critic(x: Tensor) -> Tensor:
            return torch.tanh(nn.functional.conv2d(x, weight, padding=1)).flatten(1).sum(1)

        return losses.lipschitz_penalty(critic, real, fake, torch.Generator().manual_seed(1))

    assert gradcheck(penalty, (conv.weight,))
    assert torch.autograd.grad(penalty(conv.weight), (real, fake), allow_unused=True) == (None, None)


def test_clipping_keeps_every_weight_within_the_limit() -> None:
    critic = nn.Linear(8, 8)
    kept = critic.weight.detach().clone()
    losses.clip_weights(critic, 0.1)
    assert max(float(p.detach().abs().max()) for p in critic.parameters()) <= 0.1 + 1e-6
    torch.testing.assert_close(critic.weight.detach(), kept.clamp(-0.1, 0.1))
    assert critic.weight.requires_grad


def test_pixel_losses_equal_the_hand_computed_values() -> None:
    x = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]], dtype=torch.float64)
    assert losses.l1(x, target).item() == (1 + 0 + 2 + 3) / 4
    assert losses.mse(x, target).item() == (1 + 0 + 4 + 9) / 4
    known = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]], dtype=torch.float64)
    assert losses.corresponding_points(x, target, known).item() == (1 + 9) / 2
    assert losses.corresponding_points(x, target, known, "l1").item() == (1 + 3) / 2
    shifted = x.detach() + 0.3
    shifted.requires_grad_()
    for loss in (losses.l1, losses.mse):
        assert gradcheck(loss, (shifted, target))
    for distance in ("l2", "l1"):
        assert gradcheck(lambda v, d=distance: losses.corresponding_points(v, target, known, d), (shifted,))


def test_corresponding_points_count_each_channel_of_a_known_pixel_and_bear_an_empty_mask() -> None:
    x, target = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    known = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert losses.corresponding_points(x, target, known).item() == 1.0
    assert losses.corresponding_points(x, target, torch.zeros_like(known)).item() == 0.0
    with pytest.raises(UnknownNameError, match="distance out of 'l1', 'l2'"):
        losses.corresponding_points(x, target, known, "l3")  # type: ignore[arg-type]


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


def test_second_derivatives_of_the_smooth_losses_exist() -> None:
    real, fake = LOGITS.clone().requires_grad_(), FAKE.clone().requires_grad_()
    assert gradgradcheck(losses.least_squares_discriminator, (real, fake))
