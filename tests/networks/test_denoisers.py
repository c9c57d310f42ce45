"""What every denoiser network promises, whatever its architecture."""

import warnings

import pytest
import torch

from invrestore.errors import DeviceError, DTypeError, RangeError, ShapeError
from invrestore.networks import DenoiserNetwork, DnCNN, MultiScaleDenoiser, UNet
from invrestore.networks._blocks import noise_map, pad_to_multiple

CATALOGUE = {
    "unet-gray": lambda: UNet(channels=1, widths=(8, 16, 24), blocks=1),
    "unet-colour": lambda: UNet(channels=3, widths=(8, 16), blocks=(1, 2)),
    "multiscale": lambda: MultiScaleDenoiser(channels=3),
    "multiscale-conditioned": lambda: MultiScaleDenoiser(channels=1, conditioned=True),
    "dncnn": lambda: DnCNN(channels=3, depth=4, width=8),
    "dncnn-merged": lambda: DnCNN(channels=1, depth=3, width=8, normalised=False),
}


@pytest.fixture(params=CATALOGUE)
def network(request: pytest.FixtureRequest) -> DenoiserNetwork:
    torch.manual_seed(0)
    return stirred(CATALOGUE[request.param]()).eval()


def stirred(network: DenoiserNetwork) -> DenoiserNetwork:
    """Give layers that start at zero a value, so that tests see every path of the network."""
    for parameter in network.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def images(network: DenoiserNetwork, *size: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, network.channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (7, 2), (16, 16), (17, 30)])
def test_every_size_is_denoised_to_the_same_size(network: DenoiserNetwork, size: tuple[int, int]) -> None:
    x = images(network, *size)
    out = network(x, 0.1)
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_images_of_a_batch_do_not_influence_each_other(network: DenoiserNetwork) -> None:
    x = images(network, 9, 12, batch=3)
    sigma = torch.tensor([0.05, 0.1, 0.2])
    together = network(x, sigma)
    alone = torch.cat([network(x[i : i + 1], float(sigma[i])) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=1e-5)


def test_sigma_is_accepted_as_number_scalar_vector_and_map(network: DenoiserNetwork) -> None:
    x = images(network, 8, 8)
    expected = network(x, 0.125)
    for sigma in (
        torch.tensor(0.125),
        torch.full((2,), 0.125),
        torch.full((2, 1, 1, 1), 0.125),
        torch.full((2, 1, 8, 8), 0.125),
    ):
        torch.testing.assert_close(network(x, sigma), expected)


def test_type_and_memory_of_the_input_are_kept(network: DenoiserNetwork) -> None:
    x = images(network, 6, 6)
    before = x.clone()
    assert network(x, 0.1).dtype == torch.float32
    assert network(x.double(), 0.1).dtype == torch.float64
    assert torch.equal(x, before)


def test_double_precision_network_agrees_with_single_precision(network: DenoiserNetwork) -> None:
    x = images(network, 8, 8)
    single = network(x, 0.1)
    double = network.double()(x.double(), 0.1)
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=1e-4)


def test_bfloat16_network_rounds_only_the_noise_estimate(network: DenoiserNetwork) -> None:
    x = images(network, 8, 8)
    single = network(x, 0.1)
    half = network.to(torch.bfloat16)(x, 0.1)
    assert half.dtype == torch.float32
    scale = (single - x).abs().max() + 0.05
    assert (half - single).abs().max() < 0.05 * scale


def test_every_parameter_receives_a_gradient(network: DenoiserNetwork) -> None:
    network.train()
    network(images(network, 8, 8), 0.1).square().mean().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    # Only the bias of a convolution whose units all happen to be off may see no gradient.
    assert [name for name in missing if not name.endswith("bias")] == []


def test_gradient_with_respect_to_the_image_matches_finite_differences() -> None:
    torch.manual_seed(0)
    network = stirred(UNet(channels=1, widths=(4, 8), blocks=1)).double()
    x = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: network(image, 0.1), (x,), atol=1e-6)


def test_unet_is_positively_homogeneous() -> None:
    torch.manual_seed(0)
    network = stirred(UNet(channels=3, widths=(8, 16), blocks=1)).double()
    x = torch.rand(1, 3, 10, 12, dtype=torch.float64)
    torch.testing.assert_close(network(0.3 * x, 0.03), 0.3 * network(x, 0.1))


def test_unet_without_training_returns_its_input() -> None:
    x = torch.rand(1, 3, 9, 9)
    assert torch.equal(UNet(widths=(8, 16), blocks=1)(x, 0.1), x)


def test_unet_of_the_gpu_recipe_fits_its_file_budget() -> None:
    network = UNet(channels=3, widths=(32, 64, 128, 256), blocks=4)
    assert 2 * sum(p.numel() for p in network.parameters()) <= 15.7 * 2**20


def test_unet_follows_a_sigma_map_locally() -> None:
    torch.manual_seed(0)
    network = stirred(UNet(channels=1, widths=(4,), blocks=1)).eval()
    x = torch.rand(1, 1, 8, 32)
    sigma = torch.full((1, 1, 8, 32), 0.1)
    sigma[..., 24:] = 0.3
    out = network(x, sigma)
    torch.testing.assert_close(out[..., :18], network(x, 0.1)[..., :18])
    assert not torch.allclose(out[..., 26:], network(x, 0.1)[..., 26:])


def test_multiscale_network_has_the_layers_of_the_paper() -> None:
    network = MultiScaleDenoiser(channels=3)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    modules = [(m.kernel_size[0], m.out_channels) for m in convolutions if m.stride == (1, 1)]
    encoding = [(3, 128), (1, 32), (3, 32), (1, 128)]
    decoding = [(3, 256), (1, 64), (3, 64), (1, 256)]
    assert modules == 3 * encoding + 2 * decoding + [(3, 3)]
    assert sum(m.stride == (2, 2) for m in convolutions) == 2
    assert [m.kernel_size for m in network.modules() if isinstance(m, torch.nn.ConvTranspose2d)] == 2 * [
        (4, 4)
    ]


def test_unconditioned_multiscale_network_ignores_sigma() -> None:
    network = MultiScaleDenoiser(channels=1).eval()
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(network(x, 0.1), network(x, 0.2))


@pytest.mark.parametrize(("depth", "layers"), [(17, 17), (20, 20)])
def test_dncnn_has_the_published_depths(depth: int, layers: int) -> None:
    network = DnCNN(channels=3, depth=depth, normalised=False)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == layers
    assert all(m.bias is not None for m in convolutions)


def test_compiled_network_gives_the_same_answer() -> None:
    torch.manual_seed(0)
    network = stirred(UNet(channels=1, widths=(4, 8), blocks=1)).eval()
    x = torch.rand(1, 1, 9, 11)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, 0.1), network(x, 0.1))
    torch.testing.assert_close(compiled(x, torch.tensor([0.1])), network(x, 0.1))


def test_wrong_channels_are_refused(network: DenoiserNetwork) -> None:
    x = torch.rand(1, network.channels + 1, 8, 8)
    with pytest.raises(ShapeError, match=rf"{type(network).__name__}: .*\(B, {network.channels}, H, W\)"):
        network(x, 0.1)


def test_missing_batch_axis_is_refused(network: DenoiserNetwork) -> None:
    with pytest.raises(ShapeError, match="expected x of shape"):
        network(images(network, 8, 8)[0], 0.1)


def test_whole_numbers_are_refused(network: DenoiserNetwork) -> None:
    with pytest.raises(DTypeError, match="floating-point"):
        network(torch.zeros(1, network.channels, 8, 8, dtype=torch.uint8), 0.1)


def test_another_device_is_refused(network: DenoiserNetwork) -> None:
    x = images(network, 8, 8)
    with pytest.raises(DeviceError, match="one device"):
        network.to("meta")(x, 0.1)


@pytest.mark.parametrize("sigma", [-0.1, 25.0, float("nan"), torch.tensor([0.1, 25.0])])
def test_sigma_outside_the_image_range_is_refused(network: DenoiserNetwork, sigma: float) -> None:
    with pytest.raises(RangeError, match=r"sigma in \[0, 1\], got .*25/255"):
        network(images(network, 8, 8), sigma)


def test_sigma_of_another_shape_is_refused(network: DenoiserNetwork) -> None:
    with pytest.raises(ShapeError, match=r"sigma of shape \(\), \(2,\)"):
        network(images(network, 8, 8), torch.rand(3))


def test_sigma_outside_the_trained_range_warns(network: DenoiserNetwork) -> None:
    network.sigma_range = (0.0, 0.3)
    x = images(network, 8, 8)
    with pytest.warns(UserWarning, match=r"outside the trained range \[0, 0.3\]"):
        network(x, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(x, 0.3)


def test_senseless_constructor_arguments_are_refused() -> None:
    with pytest.raises(RangeError, match="channels >= 1"):
        UNet(channels=0)
    with pytest.raises(RangeError, match="one for each width"):
        UNet(widths=(8, 16), blocks=(1,))
    with pytest.raises(RangeError, match="depth >= 2"):
        DnCNN(depth=1)
    with pytest.raises(RangeError, match="scales >= 1"):
        MultiScaleDenoiser(scales=0)


def test_padding_reflects_without_repeating_the_edge() -> None:
    x = torch.arange(1.0, 4.0).view(1, 1, 1, 3)
    assert pad_to_multiple(x, 8)[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert pad_to_multiple(x, 8).shape == (1, 1, 8, 8)
    assert pad_to_multiple(x, 1) is x


def test_padding_of_large_and_small_images_agrees() -> None:
    x = torch.rand(1, 2, 9, 9)
    padded = pad_to_multiple(x, 16)
    assert torch.equal(padded[..., 9:, :9], x.flip(-2)[..., 1:8, :])


def test_noise_map_repeats_a_level_over_the_pixels() -> None:
    level = noise_map(torch.rand(2, 3, 4, 5), torch.tensor([0.1, 0.2]), where="test")
    assert level.shape == (2, 1, 4, 5)
    assert level[1].unique().tolist() == [pytest.approx(0.2)]
