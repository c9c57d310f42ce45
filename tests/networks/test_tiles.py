import pytest
import torch
from torch.nn import functional as F

from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.networks import tiled


def smooth(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """Stand-in for a network: zero padding and a reach of 10 pixels; adds the noise level."""
    kernel = torch.ones(x.shape[1], 1, 21, 21, dtype=x.dtype) / 441
    return F.conv2d(x, kernel, padding=10, groups=x.shape[1]) + sigma


def test_network_that_reaches_no_further_than_a_quarter_of_the_overlap_is_reproduced_exactly() -> None:
    x = torch.rand(1, 2, 150, 203, dtype=torch.float64)
    torch.testing.assert_close(tiled(smooth, x, 0.1, tile=96, overlap=64), smooth(x, 0.1))


def test_pointwise_network_is_reproduced_exactly() -> None:
    x = torch.rand(2, 1, 100, 70, dtype=torch.float64)
    level = torch.tensor([0.1, 0.2], dtype=torch.float64).view(2, 1, 1, 1)
    out = tiled(lambda image, sigma: 2 * image - sigma, x, level, tile=64, overlap=32)
    torch.testing.assert_close(out, 2 * x - level)


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (96, 129), (1, 200), (200, 33)])
@pytest.mark.parametrize("overlap", [0, 32])
def test_every_pixel_is_covered(size: tuple[int, int], overlap: int) -> None:
    x = torch.rand(1, 3, *size)
    torch.testing.assert_close(tiled(lambda image, sigma: image, x, 0.1, tile=64, overlap=overlap), x)


def test_sigma_map_is_cut_along() -> None:
    x, sigma = torch.zeros(1, 1, 130, 70), torch.rand(1, 1, 130, 70)
    torch.testing.assert_close(
        tiled(lambda image, level: image + level, x, sigma, tile=64, overlap=32), sigma
    )


def test_small_images_are_passed_on_whole() -> None:
    seen = []

    def network(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return x

    tiled(network, torch.rand(1, 1, 40, 40), 0.1, tile=64, overlap=32)
    assert seen == [(1, 1, 40, 40)]


def test_no_tile_exceeds_its_size() -> None:
    sizes = []

    def network(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        sizes.append(max(x.shape[-2:]))
        return x

    tiled(network, torch.rand(1, 1, 300, 500), 0.1, tile=64, overlap=32)
    assert max(sizes) == 64


@pytest.mark.parametrize(("tile", "overlap"), [(64, 64), (60, 32), (64, 10)])
def test_senseless_tiles_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(RangeError, match="multiples of 32"):
        tiled(smooth, torch.rand(1, 1, 8, 8), 0.1, tile=tile, overlap=overlap)


@pytest.mark.parametrize("overlap", [0, 32, 96])
def test_weights_of_every_pixel_add_up_to_one(overlap: int) -> None:
    flat = torch.full((1, 1, 333, 500), 0.7, dtype=torch.float64)
    out = tiled(lambda image, sigma: image, flat, 0.1, tile=128, overlap=overlap)
    torch.testing.assert_close(out, flat, rtol=1e-14, atol=0)


def test_gradients_flow_through_tiles() -> None:
    x = torch.rand(1, 1, 150, 70, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(tiled(smooth, x, 0.1, tile=96, overlap=64).square().sum(), x)
    (whole,) = torch.autograd.grad(smooth(x, 0.1).square().sum(), x)
    torch.testing.assert_close(found, whole)


def test_bad_images_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"networks\.tiled: expected x"):
        tiled(smooth, torch.rand(8, 8), 0.1)
    with pytest.raises(DTypeError, match="floating-point"):
        tiled(smooth, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 0.1)
