"""What every feed-forward restorer promises, and the shapes the papers give their networks."""

import pytest
import torch
from torch import nn

from invrestore import networks
from invrestore.errors import DTypeError, RangeError, ShapeError, UnknownNameError
from invrestore.networks import (
    BiSkipGenerator,
    Cascade,
    Critic,
    DeblurDenoise,
    InpaintingGenerator,
    InpaintingResNet,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    ResidualGenerator,
    RestorationUNet,
    RestorerNetwork,
)
from invrestore.networks._weights import ARCHITECTURES

CATALOGUE = {
    "bi-skip": lambda informed: BiSkipGenerator(width=6, depth=5, informed=informed),
    "residual": lambda informed: ResidualGenerator(width=4, blocks=2, informed=informed),
    "encoder-decoder": lambda informed: InpaintingGenerator(widths=(4, 6, 8), informed=informed),
    "resnet": lambda informed: InpaintingResNet(width=4, blocks=2, informed=informed),
    "unet": lambda informed: RestorationUNet(widths=(6, 8), blocks=1, informed=informed),
    "cascade": lambda informed: Cascade(arguments={"widths": (4, 6), "informed": informed}, width=6),
    "cascade-unet": lambda informed: Cascade(
        "RestorationUNet", {"widths": (4, 6), "blocks": 1, "informed": informed}, width=6
    ),
}


def stirred(network: nn.Module) -> nn.Module:
    """Give layers that start at zero a value, so that tests see every path of the network."""
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture(params=CATALOGUE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(name: str, informed: bool = False) -> RestorerNetwork:
    torch.manual_seed(0)
    network = stirred(CATALOGUE[name](informed)).eval()
    assert isinstance(network, RestorerNetwork)
    return network


def inputs(network: RestorerNetwork, *size: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, network.inputs, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(1, 1), (3, 10), (17, 8)])
@pytest.mark.parametrize("informed", [False, True])
def test_every_size_is_restored_to_the_same_size(name: str, informed: bool, size: tuple[int, int]) -> None:
    network = build(name, informed)
    x = inputs(network, *size)
    out = network(x)
    assert network.inputs == (8 if informed else 3)
    assert out.shape == (2, 3, *size)
    assert out.isfinite().all()


def test_images_of_a_batch_do_not_influence_each_other(name: str) -> None:
    network = build(name)
    x = inputs(network, 8, 8, batch=3)
    alone = torch.cat([network(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x), alone, atol=2e-6, rtol=1e-5)


def test_result_has_the_type_of_the_input(name: str) -> None:
    network = build(name).to(torch.bfloat16)
    x = inputs(network, 8, 8)
    assert network(x).dtype == torch.float32
    assert (network(x) - build(name)(x)).abs().max() < 0.2


def test_gradients_reach_the_input_and_every_parameter(name: str) -> None:
    network = build(name, informed=True)
    x = inputs(network, 8, 8).requires_grad_()
    network(x).square().sum().backward()
    assert x.grad is not None
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_networks_that_end_in_tanh_stay_in_range() -> None:
    for name in ("residual", "encoder-decoder", "resnet"):
        out = build(name)(20 * inputs(build(name), 8, 8))
        assert 0 <= out.min() <= out.max() <= 1


def test_wrong_channels_and_types_are_refused(name: str) -> None:
    network = build(name, informed=True)
    with pytest.raises(ShapeError, match=r"\(B, 8, H, W\).*priors\.FeedForward"):
        network(torch.rand(1, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\).*channels"):
        build(name)(torch.rand(1, 1, 8, 8))
    with pytest.raises(DTypeError):
        network(torch.ones(1, 8, 8, 8, dtype=torch.uint8))


def layers(network: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, kinds)]


def test_bi_skip_generator_has_fifteen_and_fifteen_layers() -> None:
    network = BiSkipGenerator()
    assert len(layers(network, nn.Conv2d)) == len(layers(network, nn.ConvTranspose2d)) == 15
    for layer in layers(network, nn.Conv2d, nn.ConvTranspose2d):
        assert layer.kernel_size == (3, 3)
        assert layer.stride == (1, 1)
        assert {layer.in_channels, layer.out_channels} <= {3, 64}


def test_bi_skip_generator_adds_every_second_layer_to_its_mirror() -> None:
    network = stirred(BiSkipGenerator(channels=1, width=1, depth=4)).double()
    for k, layer in enumerate([*network.convs, *network.deconvs]):
        nn.init.zeros_(layer.weight)
        layer.weight.data[0, 0, 1, 1] = k + 2.0
        nn.init.zeros_(layer.bias)
    x = torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64)
    # Convolutions double, triple, times 4, times 5; only the second is kept (the fourth faces its own mirror):
    # its value 3 meets the output of transposed convolution 3', the second, before the ReLU.
    conv2 = 0.5 * 2 * 3
    deconv = conv2 * 4 * 5 * 6 * 7 + conv2
    torch.testing.assert_close(network(x), x + deconv * 8 * 9)


def test_bi_skip_and_refiner_begin_at_the_identity() -> None:
    for network in (
        BiSkipGenerator(width=4, depth=3),
        DeblurDenoise(width=4),
        RestorationUNet(widths=(4, 8)),
    ):
        x = torch.rand(1, 3, 6, 6)
        torch.testing.assert_close(network.eval()(x), x)


def test_residual_generator_is_the_paper_s() -> None:
    network = ResidualGenerator()
    assert len(layers(network.body, nn.Dropout)) == len(network.body) == 9
    assert {m.p for m in layers(network, nn.Dropout)} == {0.5}
    assert all(m.kernel_size == (3, 3) for m in layers(network.body, nn.Conv2d))
    assert len(layers(network.down, nn.Conv2d)) == len(layers(network.down, nn.BatchNorm2d)) == 3
    assert network.down(torch.rand(1, 3, 32, 32)).shape == (1, 256, 8, 8)


def test_inpainting_generators_are_the_paper_s() -> None:
    network = InpaintingGenerator()
    assert len(network.convs) == len(network.deconvs) + 1 == 5
    assert network.multiple == 32
    assert len(layers(network, nn.LeakyReLU)) == 5
    assert len(layers(InpaintingResNet().body, nn.BatchNorm2d)) == 14


def test_deblurring_network_is_the_paper_s() -> None:
    network = DeblurDenoise()
    convs = layers(network, nn.Conv2d)
    assert len(convs) == 8
    assert {c.out_channels for c in convs[:-1]} == {96}
    assert len(layers(network, nn.BatchNorm2d)) == 6
    assert {m.negative_slope for m in layers(network, nn.LeakyReLU)} == {0.001}


def test_cascade_shows_its_intermediate_image_and_can_stop_there() -> None:
    network = build("cascade")
    assert isinstance(network, Cascade)
    x = inputs(network, 8, 8)
    filled, sharp = network.stages(x)
    torch.testing.assert_close(filled, network.generator(x))
    torch.testing.assert_close(sharp, network(x))
    assert (filled - sharp).abs().max() > 1e-3
    alone = Cascade(arguments={"widths": (4, 6)}, refined=False).eval()
    filled, sharp = alone.stages(x)
    assert torch.equal(filled, sharp)
    with pytest.raises(UnknownNameError, match="Did you mean 'InpaintingGenerator'"):
        Cascade("InpaintingGenerater")  # type: ignore[arg-type]


def test_critic_rates_each_image_with_one_number() -> None:
    critic = Critic(size=32, widths=(4, 4, 6, 6, 8), hidden=8)
    assert critic(torch.rand(3, 3, 32, 32)).shape == (3,)
    convs = layers(Critic(size=32), nn.Conv2d)
    assert len(convs) == 13
    assert sum(c.stride == (2, 2) for c in convs) == 5
    assert len(layers(Critic(size=32), nn.Linear)) == 2
    assert not layers(Critic(size=32, normalised=False), nn.BatchNorm2d)


def test_discriminators_judge_the_pair_at_three_scales() -> None:
    network = MultiScaleDiscriminator(inputs=4, width=4)
    s, x = torch.rand(2, 4, 64, 64), torch.rand(2, 3, 64, 64)
    judged = network(s, x)
    assert len(judged) == 3
    assert [len(maps) for maps in judged] == [5, 5, 5]
    sides = [maps[-1].shape[-1] for maps in judged]
    assert sides == sorted(sides, reverse=True)
    assert {maps[-1].shape[1] for maps in judged} == {1}
    assert sum(p.numel() for p in network.parameters()) == 3 * sum(
        p.numel() for p in PatchDiscriminator(4, width=4).parameters()
    )
    other = network.eval()(torch.rand(2, 4, 64, 64), x)
    assert not torch.equal(other[0][-1], network(s, x)[0][-1])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Critic(size=48), "a multiple of 32"),
        (lambda: Critic(size=64, widths=(4, 4)), "5 widths"),
        (lambda: InpaintingGenerator(widths=()), "positive widths"),
        (lambda: RestorationUNet(widths=(4, 8), blocks=(1,)), "RestorationUNet.*positive widths"),
        (lambda: BiSkipGenerator(depth=0), "depth >= 1"),
        (lambda: MultiScaleDiscriminator(scales=0), "scales >= 1"),
    ],
)
def test_impossible_sizes_are_refused(make: object, expected: str) -> None:
    with pytest.raises(RangeError, match=expected):
        make()  # type: ignore[operator]


def test_every_restorer_can_be_named_in_a_card() -> None:
    named = {key for key, kind in ARCHITECTURES.items() if issubclass(kind, RestorerNetwork)}
    assert named == {kind.__name__ for kind in vars(networks).values() if _is_restorer(kind)}


def _is_restorer(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, RestorerNetwork) and kind is not RestorerNetwork
