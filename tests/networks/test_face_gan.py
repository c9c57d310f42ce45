"""The generators with their discriminators and encoders."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invrestore import networks
from invrestore.errors import RangeError, ShapeError
from invrestore.networks import (
    DCGAN,
    Card,
    Encoder,
    FaceGAN,
    LatentModel,
    ResidualDiscriminator,
    StyleGenerator,
)
from invrestore.networks._face_gan import StyledConv, _without_checkerboard

FACE = {
    "size": 16,
    "latent_dim": 8,
    "generator_widths": [8, 12],
    "encoder_widths": [8, 8],
    "discriminator_widths": [8, 8],
    "mapping_layers": 2,
}
PLAIN = {"size": 16, "latent_dim": 8, "width": 4}


def make(name: str) -> LatentModel:
    torch.manual_seed(0)
    model = networks.ARCHITECTURES[name](**(FACE if name == "FaceGAN" else PLAIN))
    assert isinstance(model, LatentModel)
    return model


@pytest.fixture
def generator() -> StyleGenerator:
    torch.manual_seed(0)
    return StyleGenerator(16, 3, 8, (8, 12), mapping_layers=2).eval()


@pytest.mark.parametrize("name", ["FaceGAN", "DCGAN"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_images_are_in_range_and_of_the_type_of_the_codes(name: str, dtype: torch.dtype) -> None:
    model = make(name).eval().to(dtype)
    images = model(10 * torch.randn(3, 8).to(dtype)).detach()
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == dtype
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert model.discriminator(images).shape == (3,)
    if model.encoder is not None:
        mean, log_variance = model.encoder(images)
        assert mean.shape == log_variance.shape == (3, 8)


@pytest.mark.parametrize("name", ["FaceGAN", "DCGAN"])
def test_every_parameter_receives_a_gradient(name: str) -> None:
    model = make(name)
    images = model(torch.randn(4, 8))
    loss = model.discriminator(images).square().sum()
    if model.encoder is not None:
        mean, log_variance = model.encoder(images)
        loss = loss + mean.square().sum() + log_variance.square().sum()
    loss.backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("size", [8, 32, 64, 128])
def test_every_power_of_two_is_a_size(size: int) -> None:
    widths = [4] * (size.bit_length() - 3)
    model = FaceGAN(size, 1, 6, widths, widths, widths, mapping_layers=1)
    images = model(torch.randn(1, 6))
    assert images.shape == (1, 1, size, size)
    assert model.discriminator(images).shape == (1,)
    assert model.encoder(images)[0].shape == (1, 6)
    assert DCGAN(size, 1, 6, width=2).eval()(torch.randn(1, 6)).shape == (1, 1, size, size)


def test_batch_equals_its_images_alone(generator: StyleGenerator) -> None:
    z = torch.randn(3, 8)
    discriminator = ResidualDiscriminator(16, 3, (8, 8))
    together = generator(z)
    alone = torch.cat([generator(part) for part in z.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        discriminator(together),
        torch.cat([discriminator(x) for x in together.split(1)]),
        atol=1e-5,
        rtol=1e-4,
    )


def test_generator_is_deterministic(generator: StyleGenerator) -> None:
    z = torch.randn(2, 8)
    assert torch.equal(generator(z), generator(z))


def test_length_of_a_code_does_not_matter(generator: StyleGenerator) -> None:
    z = torch.randn(2, 8)
    torch.testing.assert_close(generator(5 * z), generator(z))


def test_generator_is_mapping_and_synthesis(generator: StyleGenerator) -> None:
    z = torch.randn(2, 8)
    w = generator.mapping(z)
    assert w.shape == (2, 8)
    assert generator.num_layers == 3
    each = w[:, None].expand(-1, generator.num_layers, -1)
    for chosen in (w, each):
        torch.testing.assert_close(generator.synthesis(chosen), generator(z))


@pytest.mark.slow
def test_compiled_filter_of_images_has_the_same_gradient() -> None:
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    compiled = torch.compile(_without_checkerboard)
    (expected,) = torch.autograd.grad(_without_checkerboard(x).square().sum(), x)
    (found,) = torch.autograd.grad(compiled(x).square().sum(), x)
    assert torch.allclose(found, expected, atol=1e-6)


def test_every_layer_has_a_w_of_its_own(generator: StyleGenerator) -> None:
    ws = generator.mapping(torch.randn(1, 8))[:, None].repeat(1, generator.num_layers, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(generator.synthesis(ws).square().sum(), ws)
    assert (gradient.abs().sum(dim=2) > 0).all()


@pytest.mark.parametrize("scale", [0, 1])
def test_synthesis_goes_on_from_the_features_of_a_scale(generator: StyleGenerator, scale: int) -> None:
    w = generator.mapping(torch.randn(2, 8))
    x, image = generator.synthesis.features(w, scale)
    assert x.shape[-2:] == (4 * 2**scale,) * 2
    assert image.shape[-2:] == (8 * 2**scale,) * 2
    torch.testing.assert_close(generator.synthesis(w, (x, image), scale), generator.synthesis(w))
    assert not torch.allclose(generator.synthesis(w, (x, image + 1), scale), generator.synthesis(w))
    changed = generator.synthesis(w, (x + 1, image), scale)
    assert torch.allclose(changed, generator.synthesis(w)) == (scale == 1), (
        "the last scale has painted already"
    )


def test_shared_convolution_equals_one_with_weights_for_each_image() -> None:
    torch.manual_seed(0)
    layer = StyledConv(5, 7, 6).double()
    with torch.no_grad():
        layer.bias.normal_()
    w, x, following = torch.randn(2, 6).double(), torch.randn(2, 5, 4, 4).double(), torch.rand(2, 7).double()
    scales = layer.scales(w)
    out = layer(x * scales[..., None, None], scales, following)
    for n in range(2):
        weight = layer.weight * scales[n][None, :, None, None]
        norm = weight.square().sum(dim=(1, 2, 3)).sqrt()
        y = F.conv2d(x[n : n + 1], weight / norm[:, None, None, None], layer.bias / norm, padding=1)
        expected = 2**0.5 * F.leaky_relu(y, 0.2) * following[n, :, None, None]
        torch.testing.assert_close(out[n : n + 1], expected)


def test_mean_of_w_is_followed_in_training_only() -> None:
    torch.manual_seed(0)
    generator = StyleGenerator(16, 3, 8, (4, 4), mapping_layers=2)
    z = torch.randn(64, 8)
    generator(z)
    mean = generator.mapping(z).mean(dim=0)
    torch.testing.assert_close(generator.w_mean, 0.005 * mean)
    generator.eval()(z)
    torch.testing.assert_close(generator.w_mean, 0.005 * mean)
    generator.measure_w_mean(codes=20_000)
    exact = generator.mapping(torch.randn(20_000, 8)).mean(dim=0)
    torch.testing.assert_close(generator.w_mean, exact, atol=0.03, rtol=0)


def test_standardised_codes_have_unit_covariance_and_give_the_same_images(generator: StyleGenerator) -> None:
    torch.manual_seed(0)
    encoder = Encoder(16, 3, generator.latent_dim, (4, 8)).double()
    generator = generator.double()
    x = torch.rand(64, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        codes = encoder(x)[0]
        before = generator(codes)
        encoder.follow(codes, share=1.0)
        placed = encoder.place(torch.randn(50_000, generator.latent_dim, dtype=torch.float64))
        torch.testing.assert_close(placed.mean(0), codes.mean(0), atol=0.05, rtol=0.05)
        torch.testing.assert_close(placed.T.cov(), codes.T.cov(correction=0), atol=0.05, rtol=0.05)
        encoder.standardise(generator.mapping)
        codes = encoder(x)[0]
        torch.testing.assert_close(generator(codes), before)
        torch.testing.assert_close(codes.mean(0), torch.zeros_like(codes[0]))
        torch.testing.assert_close(
            codes.T.cov(correction=0), torch.eye(codes.shape[1]).to(codes), atol=0.02, rtol=0
        )
        # A second time changes nothing: the codes are standard now.
        encoder.standardise(generator.mapping)
        torch.testing.assert_close(encoder(x)[0], codes, atol=1e-3, rtol=1e-3)


def test_minibatch_deviation_lets_the_batch_count() -> None:
    torch.manual_seed(0)
    network = ResidualDiscriminator(16, 3, (8, 8), minibatch_std=True)
    x = torch.rand(2, 3, 16, 16)
    assert not torch.allclose(network(x)[0], network(x[:1])[0], atol=1e-6)


@pytest.mark.parametrize("name", ["FaceGAN", "DCGAN"])
def test_discriminators_return_their_features_on_request(name: str) -> None:
    discriminator = make(name).eval().discriminator
    x = torch.rand(2, 3, 16, 16)
    logits, maps = discriminator(x, features=True)
    torch.testing.assert_close(logits, discriminator(x))
    assert [m.shape[-1] for m in maps] == [8, 4]


@pytest.mark.parametrize("name", ["FaceGAN", "DCGAN"])
def test_checkpoint_holds_all_networks(name: str, tmp_path: Path) -> None:
    model = make(name).eval()
    details = Card(
        name="x",
        architecture=name,
        arguments=FACE if name == "FaceGAN" else PLAIN,
        sha256="",
        channels=3,
        sigma_range=None,
        parameters=0,
        data="",
        licence="",
        metrics={},
        training="",
        recipe="",
        commit="",
        reference="",
    )
    card = networks.save(model, tmp_path / "x.safetensors", details)
    loaded = networks.load_file(tmp_path / "x.safetensors")
    assert card.parameters == sum(p.numel() for p in model.parameters())
    z = torch.randn(2, 8)
    torch.testing.assert_close(loaded(z), model(z), atol=5e-3, rtol=0)
    assert isinstance(loaded, LatentModel)
    assert (loaded.encoder is None) == (name == "DCGAN")


def test_shipped_sizes_stay_within_nine_mebibytes() -> None:
    count = sum(p.numel() for p in FaceGAN().parameters())
    assert 2 * count < 9 * 2**20
    assert 1.5e6 < sum(p.numel() for p in FaceGAN().generator.parameters()) < 3e6


@pytest.mark.parametrize("build", [lambda: FaceGAN(48), lambda: DCGAN(48)])
def test_size_that_is_no_power_of_two_is_refused(build: type[nn.Module]) -> None:
    with pytest.raises(RangeError, match="size as a power of 2, got 48"):
        build()


def test_widths_that_do_not_fit_the_size_are_refused() -> None:
    with pytest.raises(RangeError, match="5 positive widths, one for each scale from 64 to 4 pixels"):
        StyleGenerator(128, 3, 8, (4, 4, 4, 4))
    with pytest.raises(RangeError, match=r"Encoder: expected 2 positive widths"):
        Encoder(16, 3, 8, (4, 4, 4))


def test_codes_of_another_length_are_refused(generator: StyleGenerator) -> None:
    with pytest.raises(ShapeError, match=r"z of shape \(N, 8\), got \(2, 9\)"):
        generator(torch.randn(2, 9))
    with pytest.raises(ShapeError, match=r"\(N, 3, 8\), got \(2, 4, 8\)"):
        generator.synthesis(torch.randn(2, 4, 8))
    with pytest.raises(ShapeError, match=r"DCGANGenerator: expected z of shape \(N, 8\)"):
        make("DCGAN")(torch.randn(2, 3))


@pytest.mark.parametrize("name", ["FaceGAN", "DCGAN"])
def test_images_of_another_size_are_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=r"x of shape \(N, 3, 16, 16\), got .*resize"):
        make(name).discriminator(torch.rand(1, 3, 32, 32))
