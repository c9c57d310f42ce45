"""The denoiser prior: precision and tiles of the network, and what the shipped one makes of unusual images."""

from importlib import resources

import pytest
import torch

import invrestore as ir
from invrestore.networks import UNet
from invrestore.priors import Denoiser
from invrestore.priors import _denoiser as module

ASSETS = resources.files("invrestore") / "assets"


@pytest.fixture
def network():
    """A small network that counts as trained and whose noise estimate is not 0."""
    torch.manual_seed(0)
    net = UNet(channels=1, widths=(8, 16), blocks=1).eval().requires_grad_(False)
    torch.nn.init.normal_(net.tail.weight, std=0.05)
    net.sigma_range = (0.0, 1.0)
    return net


@pytest.fixture
def seen(network):
    """Types of the noise estimates the network made."""
    types = []
    network.tail.register_forward_hook(lambda _module, _inputs, out: types.append(out.dtype))
    return types


@pytest.fixture
def level():
    """A noise map without symmetries, for two images of 10 x 12 pixels."""
    return 0.3 * torch.rand(2, 1, 10, 12, generator=torch.Generator().manual_seed(1))


def pixelwise(x, sigma):
    """Removes from each pixel the level it is told."""
    return x - sigma


@pytest.mark.parametrize("settings", [{}, {"flip": (-1,)}, {"flip": (-2, -1)}, {"ensemble": 8}])
def test_a_noise_map_turns_with_the_image(level, settings):
    x = torch.rand(2, 3, 10, 12)
    found = Denoiser(pixelwise, **settings).denoise(x, level)
    assert torch.allclose(found, x - level, atol=1e-6)
    one_for_all = Denoiser(pixelwise, **settings).denoise(x, level[:1])
    assert torch.allclose(one_for_all, x - level[:1], atol=1e-6)


def test_a_noise_map_is_cut_into_tiles_with_the_image():
    x, level = torch.rand(1, 1, 200, 150), 0.2 * torch.rand(1, 1, 200, 150)
    assert torch.allclose(Denoiser(pixelwise, tile=128).denoise(x, level), x - level, atol=1e-6)


def test_a_noise_map_reaches_a_gray_network_with_every_channel(level):
    def gray(x, sigma):
        assert x.shape == (6, 1, 10, 12)
        return x - sigma

    x = torch.rand(2, 3, 10, 12)
    assert torch.allclose(Denoiser(gray, channels=1).denoise(x, level), x - level, atol=1e-6)


def test_a_noise_map_of_gray_images_stays_within_the_levels_of_a_colour_network(level):
    def colour(x, sigma):
        assert x.shape[1] == 3
        assert float(sigma.max()) <= 0.3 + 1e-6
        return x - sigma / 3**0.5

    colour.sigma_range = (0.0, 0.3)
    x = torch.rand(2, 1, 10, 12)
    level[0] /= 10
    assert torch.allclose(Denoiser(colour, channels=3).denoise(x, level), x - level, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 10, 12), (2, 1, 12, 10), (3, 1, 10, 12), (1, 1, 1, 1)])
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(ir.InvrestoreError, match=r"noise map of shape \(2, 1, 10, 12\)"):
        Denoiser(pixelwise).denoise(torch.rand(2, 3, 10, 12), torch.zeros(shape))


def test_levels_of_a_map_that_are_none_are_refused(level):
    level[0, 0, 3, 3] = 1.5
    with pytest.raises(ir.InvrestoreError, match="sigma in"):
        Denoiser(pixelwise).denoise(torch.rand(2, 3, 10, 12), level)


def test_a_prior_takes_maps_where_its_network_was_trained_on_them(network):
    assert not Denoiser(network).takes_maps
    assert not Denoiser(pixelwise).takes_maps
    network.maps = True
    assert Denoiser(network).takes_maps


@pytest.mark.parametrize("units", [True, False])
def test_auto_multiplies_in_bfloat16_where_the_machine_is_made_for_it(network, seen, monkeypatch, units):
    monkeypatch.setattr(module, "has_matrix_units", lambda device: units)
    x = torch.rand(1, 1, 8, 8)
    out = Denoiser(network).denoise(x, 0.1)
    assert seen == [torch.bfloat16 if units else torch.float32]
    assert out.dtype == torch.float32
    exact = Denoiser(network, precision="full").denoise(x, 0.1)
    assert seen[-1] == torch.float32
    assert torch.allclose(out, exact, atol=0.02 * float((exact - x).abs().max()))


def test_auto_is_exact_for_double_precision_gradients_and_foreign_networks(network, seen, monkeypatch):
    monkeypatch.setattr(module, "has_matrix_units", lambda device: True)
    x = torch.rand(1, 1, 8, 8)
    Denoiser(network).denoise(x.clone().requires_grad_(), 0.1)
    network.sigma_range = None
    Denoiser(network).denoise(x, 0.1)
    network.double()
    network.sigma_range = (0.0, 1.0)
    Denoiser(network).denoise(x.double(), 0.1)
    assert seen == [torch.float32, torch.float32, torch.float64]


def test_bfloat16_on_request_reaches_any_network(network, seen):
    network.sigma_range = None
    out = Denoiser(network, precision="bfloat16").denoise(torch.rand(1, 1, 8, 8), 0.1)
    assert seen == [torch.bfloat16]
    assert out.dtype == torch.float32


RAMP = torch.arange(5.0) + 10 * torch.arange(3.0)[:, None]


def sloped(x, sigma):
    """A network that errs differently in every direction."""
    return x + RAMP


@pytest.mark.parametrize(
    ("step", "axes"), [(0, ()), (1, (-1,)), (2, (-2,)), (3, (-2, -1)), (4, ()), (7, (-2, -1))]
)
def test_each_step_of_a_schedule_shows_the_network_another_flip(step, axes):
    x = torch.rand(1, 1, 3, 5)
    found = Denoiser(sloped).at(step, 8).denoise(x, 0.1)
    assert torch.equal(found, x + RAMP.flip(axes))


def test_errors_that_depend_on_direction_average_out_over_the_steps_of_splitting():
    def drifting(x, sigma):
        return x + 1e-2 * torch.linspace(-1, 1, 16)

    operator, truth = ir.operators.Blur(ir.kernels.gaussian(1.0)), torch.full((1, 1, 16, 16), 0.5)
    flipped, straight = (
        ir.solve(operator(truth), operator, Denoiser(drifting, flip=flip), sigma=0.05).x - truth
        for flip in (None, ())
    )
    assert float(flipped.abs().max()) < 0.6 * float(straight.abs().max())


@pytest.mark.parametrize("settings", [{"flip": ()}, {"flip": (-1, -2)}, {"ensemble": 8}])
def test_a_chosen_flip_or_ensemble_stays(settings):
    prior = Denoiser(sloped, **settings)
    assert prior.at(1, 8) is prior


def test_denoising_alone_flips_nothing():
    x = torch.rand(1, 1, 3, 5)
    assert torch.equal(ir.solve(x, ir.operators.Identity(), Denoiser(sloped), sigma=0.1).x, x + RAMP)


@pytest.mark.parametrize("flip", [(0,), (-3,), (-1, -1), -1, "h"])
def test_a_flip_along_another_axis_is_refused(flip):
    with pytest.raises(ir.errors.RangeError, match="flip as"):
        Denoiser(sloped, flip=flip)


def test_an_unknown_precision_is_refused(network):
    with pytest.raises(ir.UnknownNameError, match="precision"):
        Denoiser(network, precision="half")


# --- tiles --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sizes(network):
    """Largest side of every image that reached the network."""
    found = []
    network.register_forward_pre_hook(lambda _module, inputs: found.append(max(inputs[0].shape[-2:])))
    return found


def test_large_images_go_through_networks_of_this_package_in_tiles(network, sizes, monkeypatch):
    monkeypatch.setattr(module, "_WHOLE_PIXELS", 150 * 150)
    monkeypatch.setattr(module, "_TILE", 128)
    y = torch.rand(2, 1, 160, 150)
    whole = Denoiser(network, tile=0).denoise(y, 0.1)
    assert sizes == [160]
    tiles = Denoiser(network).denoise(y, torch.tensor([0.1, 0.1]))
    assert max(sizes[1:]) == 128
    assert float((tiles - whole).abs().max()) < 1e-5
    sizes.clear()
    Denoiser(network).denoise(y[..., :140], 0.1)
    Denoiser(network, tile=0).denoise(y, 0.1)
    assert sizes == [160, 160]


def test_other_networks_see_large_images_whole_unless_tiles_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "_WHOLE_PIXELS", 100)
    sizes = []

    def network(x, sigma):
        sizes.append(tuple(x.shape[-2:]))
        return x

    x = torch.rand(1, 3, 160, 40)
    Denoiser(network).denoise(x, 0.1)
    assert sizes == [(160, 40)]
    assert torch.allclose(Denoiser(network, tile=128).denoise(x, 0.1), x)
    assert max(max(s) for s in sizes[1:]) == 128


# --- the shipped network ------------------------------------------------------------------------------------------

SIGMA = 0.1
TASKS = {"denoise": ir.operators.Identity(), "deblur": ir.operators.Blur(ir.kernels.gaussian(1.0))}


@pytest.fixture(scope="module")
def shipped():
    return ir.priors.load("denoiser")


@pytest.fixture(scope="module")
def truth():
    """Seven crops of odd size out of a photo, (7, 3, 37, 45)."""
    photo = ir.load_image(ASSETS / "astronaut.png")
    return torch.cat([photo[..., 12 * i : 12 * i + 37, 9 * i + 60 : 9 * i + 105] for i in range(7)])


def noisy(x, sigma=SIGMA):
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x.dtype)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("precision", ["full", "auto"])
def test_seven_images_give_what_each_gives_alone(shipped, truth, task, precision):
    operator, prior = TASKS[task], Denoiser(shipped.network, precision=precision)
    y = noisy(operator(truth))
    sigma = SIGMA * torch.linspace(0.5, 1.5, 7)
    together = ir.solve(y, operator, prior, sigma=sigma).x
    alone = [ir.solve(y[i : i + 1], operator, prior, sigma=float(sigma[i])).x for i in range(7)]
    # bfloat16 kernels may sum in another order for another batch.
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=2e-6 if precision == "full" else 2e-3)


def test_double_precision_images_are_restored_in_double_precision(shipped, truth):
    for operator in TASKS.values():
        y = noisy(operator(truth[:1]))
        single = ir.solve(y, operator, Denoiser(shipped.network, precision="full"), sigma=SIGMA).x
        double = ir.solve(y.double(), operator.to(torch.float64), shipped, sigma=SIGMA).x
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, rtol=0, atol=2e-6)


def test_gray_images_are_denoised_by_the_colour_network(shipped, truth):
    gray = truth.mean(1, keepdim=True)
    y = noisy(gray)
    out = ir.solve(y, ir.operators.Identity(), shipped, sigma=SIGMA).x
    assert out.shape == gray.shape
    assert float((ir.psnr(out, gray) - ir.psnr(y, gray)).mean()) > 8
    alone = shipped.denoise(y[:1], SIGMA)
    torch.testing.assert_close(shipped.denoise(y, torch.full((7,), SIGMA))[:1], alone, rtol=0, atol=2e-3)


@pytest.mark.filterwarnings("error")
def test_gray_levels_inside_the_trained_range_are_no_extrapolation(shipped, truth):
    gray, sigma = truth.mean(1, keepdim=True), shipped.network.sigma_range[1]
    y = noisy(gray, sigma)
    assert float((ir.psnr(shipped.denoise(y, sigma), gray) - ir.psnr(y, gray)).mean()) > 11
    with pytest.warns(UserWarning, match=r"sigma 0\.5 is outside"):
        shipped.denoise(y, 0.5)


def test_gray_images_reach_a_colour_network_at_the_level_their_mean_would_have():
    seen = []

    def network(x, sigma):
        seen.append((x, sigma))
        return x

    x = torch.rand(2, 1, 4, 4)
    Denoiser(network, channels=3).denoise(x, torch.tensor([0.1, 0.0]))
    assert seen[0][0].shape == (2, 3, 4, 4)
    assert torch.allclose(seen[0][1], torch.tensor([0.1 * 3**0.5, 0.0]))
    seen.clear()
    out = Denoiser(lambda x, sigma: seen.append((x, sigma)) or x / 2, channels=3).denoise(x, 0.9)
    assert seen[0][1] == pytest.approx(1.0)
    assert torch.allclose(seen[0][0], (x / (0.9 * 3**0.5)).expand(-1, 3, -1, -1))
    assert torch.allclose(out, x / 2)
    assert torch.allclose(Denoiser(lambda x, sigma: x, channels=3).denoise(x, 0.0), x)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_are_refused(shipped, channels):
    y = torch.rand(1, channels, 9, 9)
    for operator in TASKS.values():
        with pytest.raises(ir.ShapeError, match=rf"1 or 3 channels, got {channels} channels"):
            ir.solve(y, operator, shipped, sigma=SIGMA)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (31, 2), (7, 13), (16, 16)])
def test_every_size_is_restored(shipped, size):
    y = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = ir.operators.Mask(torch.ones(*size))
    for operator in (ir.operators.Identity(), mask):
        out = ir.solve(y, operator, shipped, sigma=SIGMA).x
        assert out.shape == y.shape
        assert out.isfinite().all()


@pytest.mark.parametrize("sigma", [0.35, 0.6, 1.0])
def test_noise_above_the_trained_range_is_denoised_with_a_warning(shipped, truth, sigma):
    y = noisy(truth, sigma)
    with pytest.warns(UserWarning, match=rf"sigma {sigma:g} is outside the trained range \[0, 0.294"):
        out = ir.solve(y, ir.operators.Identity(), shipped, sigma=sigma).x
    assert float((ir.psnr(out, truth) - ir.psnr(y, truth)).mean()) > 6


@pytest.mark.parametrize("sigma", [25.0, -0.1, float("nan"), torch.tensor([0.1, 25.0])])
def test_levels_that_are_none_are_refused(shipped, sigma):
    with pytest.raises(ir.RangeError, match="sigma"):
        shipped.denoise(torch.rand(2, 3, 9, 9), sigma)
