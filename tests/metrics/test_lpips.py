"""LPIPS: nothing is fetched; with weights on disk, one distance for each image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from invrestore.errors import RangeError, ShapeError, UnknownNameError, WeightsError
from invrestore.metrics import lpips

# torchvision and torchmetrics carry their own notices.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder in the place of the user's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_missing_weights_are_named_and_not_fetched(folder: Path) -> None:
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(
        WeightsError, match=r"lpips: expected the weights of 'alex' at .*alexnet.*no file\. Download"
    ):
        lpips(x, x)
    assert not folder.exists()


def test_each_image_has_its_own_distance(folder: Path, rng: torch.Generator) -> None:
    import torchvision

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_1(weights=None)
    name = Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name
    torch.save(net.state_dict(), folder / name)

    truth = torch.rand(2, 3, 32, 40, generator=rng)
    x = truth.clone()
    x[1] = (x[1] + 0.2 * torch.rand(x[1].shape, generator=rng)).clamp(0, 1)
    x.requires_grad_(True)
    both = lpips(x, truth, "squeeze")
    assert both.shape == (2,)
    assert float(both[0].detach()) == 0
    assert float(both[1].detach()) > 0
    torch.testing.assert_close(lpips(x[1:], truth[1:], "squeeze"), both[1:])
    (gradient,) = torch.autograd.grad(both[1], x)
    assert float(gradient[1].abs().max()) > 0


def test_values_outside_the_unit_range_are_refused() -> None:
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(RangeError, match=r"expected x in \[0, 1\].*clamp"):
        lpips(x + 1, x)
    with pytest.raises(RangeError, match=r"expected x_true in \[0, 1\]"):
        lpips(x, x * torch.nan)


def test_gray_and_small_images_are_refused() -> None:
    gray, small = torch.rand(1, 1, 64, 64), torch.rand(1, 3, 64, 31)
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\) with H and W >= 32.*expand"):
        lpips(gray, gray)
    with pytest.raises(ShapeError, match=r"got \(1, 3, 64, 31\)"):
        lpips(small, small)


def test_unknown_networks_are_refused() -> None:
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(UnknownNameError, match=r"'alexnet'.*Did you mean 'alex'"):
        lpips(x, x, "alexnet")
