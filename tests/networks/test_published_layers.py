"""Order, strides, skips and start of the layers of published networks."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from invrestore.networks import (
    DCGAN,
    Critic,
    DeblurDenoise,
    DnCNN,
    InpaintingGenerator,
    InpaintingResNet,
    MultiScaleDenoiser,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    ResidualGenerator,
)
from invrestore.networks._blocks import NormalisedBlock

WIDTHS = (4, 4, 6, 6, 8)


def kinds(*modules: nn.Module) -> list[str]:
    """Names of the layers in their order."""
    return [type(m).__name__ for module in modules for m in module.modules() if not list(m.children())]


def strides(module: nn.Module) -> list[int]:
    return [m.stride[0] for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def sides(module: nn.Module) -> list[int]:
    return [m.kernel_size[0] for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


class Watched:
    """What goes into a layer and comes out of it."""

    def __init__(self, layer: nn.Module) -> None:
        self.seen = self.made = torch.empty(0)
        layer.register_forward_pre_hook(self._before)
        layer.register_forward_hook(self._after)

    def _before(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        self.seen = inputs[0].detach().clone()

    def _after(self, layer: nn.Module, inputs: object, made: Tensor) -> None:
        self.made = made.detach().clone()


def watched(layers: Iterable[nn.Module]) -> list[Watched]:
    return [Watched(layer) for layer in layers]


def images(side: int = 16) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_inpainting_generator_adds_each_convolution_to_its_mirror() -> None:
    network = InpaintingGenerator(widths=(4, 6, 8)).eval()
    convs, deconvs, tail = watched(network.convs), watched(network.deconvs), Watched(network.tail)
    out = network(images())
    torch.testing.assert_close(convs[0].seen, 2 * images() - 1)
    torch.testing.assert_close(deconvs[0].seen, convs[2].made)
    torch.testing.assert_close(deconvs[1].seen, deconvs[0].made + convs[1].made)
    torch.testing.assert_close(tail.seen, deconvs[1].made + convs[0].made)
    torch.testing.assert_close(out, (1 + torch.tanh(tail.made)) / 2)


def test_inpainting_resnet_adds_both_sizes_to_their_mirrors() -> None:
    network = InpaintingResNet(width=4, blocks=1).eval()
    head, tail, body = Watched(network.head), Watched(network.tail), Watched(network.body)
    downs, ups = watched(network.downs), watched(network.ups)
    out = network(images())
    torch.testing.assert_close(head.seen, 2 * images() - 1)
    torch.testing.assert_close(body.seen, downs[1].made)
    torch.testing.assert_close(ups[0].seen, body.made)
    torch.testing.assert_close(ups[1].seen, ups[0].made + downs[0].made)
    torch.testing.assert_close(tail.seen, ups[1].made + head.made)
    torch.testing.assert_close(out, (1 + torch.tanh(tail.made)) / 2)


def test_inpainting_generators_normalise_every_layer_but_the_last() -> None:
    down, up = ["Conv2d", "BatchNorm2d", "LeakyReLU"], ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    network = InpaintingGenerator(widths=(4, 6, 8))
    assert kinds(network) == 3 * down + 2 * up + ["ConvTranspose2d"]
    assert (set(strides(network)), set(sides(network))) == ({2}, {4})
    network = InpaintingResNet(width=4, blocks=1)
    assert kinds(network.head, *network.downs) == 3 * down
    assert kinds(*network.ups, network.tail) == 2 * up + ["Conv2d"]
    assert strides(network) == [1, 2, 2, 1, 1, 2, 2, 1]
    assert sides(network) == [3, 4, 4, 3, 3, 4, 4, 3]


def test_residual_generator_normalises_every_layer_but_the_last() -> None:
    network = ResidualGenerator(width=4, blocks=1)
    assert kinds(network.down) == 3 * ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds(network.up) == 2 * ["ConvTranspose2d", "BatchNorm2d", "LeakyReLU"] + ["Conv2d"]
    assert strides(network) == [1, 2, 2, 1, 1, 2, 2, 1]
    assert sides(network) == [7, 3, 3, 3, 3, 3, 3, 7]


@pytest.mark.parametrize(("dropout", "between"), [(None, []), (0.5, ["Dropout"]), (0.0, ["Dropout"])])
def test_blocks_add_what_two_normalised_convolutions_make(dropout: float | None, between: list[str]) -> None:
    block = NormalisedBlock(4, dropout).eval()
    first = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds(block) == first + between + ["Conv2d", "BatchNorm2d"]
    layers, x = Watched(block.layers), torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(block(x), x + layers.made)
    assert torch.equal(layers.seen, x)


def test_blocks_of_x_gans_drop_features_in_training_and_those_of_the_cascade_do_not() -> None:
    x = torch.rand(1, 16, 8, 8)
    for network, random in (
        (ResidualGenerator(width=4, blocks=1), True),
        (InpaintingResNet(width=4, blocks=1), False),
    ):
        assert torch.equal(network.body(x), network.body(x)) != random
        network.eval()
        assert torch.equal(network.body(x), network.body(x))


def test_patch_discriminator_normalises_all_layers_but_the_first_and_the_last() -> None:
    network = PatchDiscriminator(width=4)
    inner = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds(network) == ["Conv2d", "LeakyReLU"] + 3 * inner + ["Conv2d"]
    assert strides(network) == [2, 2, 2, 1, 1]
    assert set(sides(network)) == {4}


def test_a_logit_of_the_patch_discriminator_sees_70_pixels() -> None:
    network = PatchDiscriminator(width=2).double().eval()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, 3, 144, 144, dtype=torch.float64, requires_grad=True)
    logits = network(x, x)[-1]
    (gradient,) = torch.autograd.grad(logits[0, 0, 9, 9], x)
    seen = gradient[0, 0].any(0).nonzero().flatten()
    assert int(seen[-1] - seen[0]) + 1 == 70


def test_discriminators_of_coarser_scales_see_the_pair_halved_without_darker_borders() -> None:
    network = MultiScaleDiscriminator(width=2, layers=1).eval()
    first = watched(d.stages[0] for d in network.discriminators)
    network(torch.full((1, 3, 32, 32), 0.3), torch.full((1, 3, 32, 32), 0.8))
    for side, watch in zip((32, 16, 8), first, strict=True):
        s, x = torch.full((1, 3, side, side), -0.4), torch.full((1, 3, side, side), 0.6)
        torch.testing.assert_close(watch.seen, torch.cat((s, x), 1))


def test_critic_halves_at_the_end_of_each_group() -> None:
    network = Critic(size=32, widths=WIDTHS, hidden=8)
    assert strides(network) == [1, 2, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2]
    assert set(sides(network)) == {3}
    assert kinds(network.layers) == ["Conv2d", "LeakyReLU"] + 12 * ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds(network.dense) == ["Linear", "LeakyReLU", "Linear"]
    plain = Critic(size=32, widths=WIDTHS, hidden=8, normalised=False)
    assert kinds(plain.layers) == 13 * ["Conv2d", "LeakyReLU"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: InpaintingGenerator(widths=(4, 6)),
        lambda: InpaintingResNet(width=4, blocks=1),
        lambda: ResidualGenerator(width=4, blocks=1),
        lambda: PatchDiscriminator(width=4),
        lambda: Critic(size=32, widths=WIDTHS, hidden=8),
        lambda: DCGAN(size=16, width=4).discriminator,
    ],
    ids=["encoder-decoder", "resnet", "residual", "patch", "critic", "dcgan"],
)
def test_leaky_slopes_of_adversarial_networks_are_a_fifth(make: Callable[[], nn.Module]) -> None:
    slopes = {m.negative_slope for m in make().modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}


@pytest.mark.parametrize(
    "make",
    [
        lambda: InpaintingGenerator(widths=(16, 32, 64)),
        lambda: InpaintingResNet(width=16, blocks=1),
        lambda: ResidualGenerator(width=16, blocks=1),
        lambda: PatchDiscriminator(width=16),
        lambda: DCGAN(size=16, width=16),
    ],
    ids=["encoder-decoder", "resnet", "residual", "patch", "dcgan"],
)
def test_weights_start_normal_with_deviation_0_02(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    weights = torch.cat([m.weight.detach().flatten() for m in convolutions])
    assert abs(float(weights.std()) - 0.02) < 5e-4
    assert abs(float(weights.mean())) < 5e-4
    assert all(not m.bias.any() for m in convolutions if m.bias is not None)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = torch.cat([m.weight.detach() for m in norms])
    assert abs(float(scales.mean()) - 1) < 0.01
    assert 0.01 < float(scales.std()) < 0.03


def test_dcgan_normalises_all_layers_but_those_at_the_image_and_the_logit() -> None:
    model = DCGAN(size=64, width=2)
    assert kinds(model.generator) == 4 * ["ConvTranspose2d", "BatchNorm2d", "ReLU"] + ["ConvTranspose2d"]
    inner = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds(model.discriminator) == ["Conv2d", "LeakyReLU"] + 3 * inner + ["Conv2d"]
    assert strides(model.generator) == [1, 2, 2, 2, 2]
    assert strides(model.discriminator) == [2, 2, 2, 2, 1]
    assert set(sides(model)) == {4}


def test_deblurring_network_subtracts_what_it_finds() -> None:
    network = DeblurDenoise(width=4).eval()
    nn.init.normal_(network.layers[-1].weight)
    layers, x = Watched(network.layers), images(5)
    torch.testing.assert_close(network(x), x - layers.made)
    inner = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds(network) == ["Conv2d", "LeakyReLU"] + 6 * inner + ["Conv2d"]


@pytest.mark.parametrize("depth", [2, 17])
def test_dncnn_normalises_all_layers_but_the_first_and_the_last(depth: int) -> None:
    network = DnCNN(depth=depth, width=2).eval()
    inner = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds(network) == ["Conv2d", "ReLU"] + (depth - 2) * inner + ["Conv2d"]
    layers, x = Watched(network.layers), images(5)
    torch.testing.assert_close(network(x, 0.1), x - layers.made)


def test_three_scale_denoiser_normalises_every_layer_but_the_last() -> None:
    network = MultiScaleDenoiser().eval()
    for part in (*network.encoders, *network.decoders):
        assert kinds(part) == 4 * ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds(*network.downs) == 2 * ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds(*network.ups) == 2 * ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    tail = Watched(network.tail)
    torch.testing.assert_close(network(images(), 0.1), images() - tail.made)


def test_three_scale_denoiser_adds_bottlenecks_and_fuses_each_scale_with_the_coarser_one() -> None:
    network = MultiScaleDenoiser().eval()
    first, narrow = Watched(network.encoders[0].first), Watched(network.encoders[0].bottleneck)
    encoders, decoders = watched(network.encoders), watched(network.decoders)
    ups, tail = watched(network.ups), Watched(network.tail)
    network(images(8), 0.1)
    torch.testing.assert_close(encoders[0].made, first.made + narrow.made)
    assert torch.equal(narrow.seen, first.made)
    # The last of each list is the first on the way up.
    assert torch.equal(ups[1].seen, encoders[2].made)
    torch.testing.assert_close(decoders[1].seen, torch.cat((encoders[1].made, ups[1].made), 1))
    assert torch.equal(ups[0].seen, decoders[1].made)
    torch.testing.assert_close(decoders[0].seen, torch.cat((encoders[0].made, ups[0].made), 1))
    assert torch.equal(tail.seen, decoders[0].made)
