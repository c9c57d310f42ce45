"""The denoiser prior: in which precision the network runs."""

import pytest
import torch

import invrestore as ir
from invrestore.networks import UNet
from invrestore.priors import Denoiser
from invrestore.priors import _denoiser as module


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


@pytest.mark.parametrize("units", [True, False])
def test_auto_multiplies_in_bfloat16_where_the_machine_is_made_for_it(network, seen, monkeypatch, units):
    monkeypatch.setattr(module, "_has_matrix_units", lambda device: units)
    x = torch.rand(1, 1, 8, 8)
    out = Denoiser(network).denoise(x, 0.1)
    assert seen == [torch.bfloat16 if units else torch.float32]
    assert out.dtype == torch.float32
    exact = Denoiser(network, precision="full").denoise(x, 0.1)
    assert seen[-1] == torch.float32
    assert torch.allclose(out, exact, atol=0.02 * float((exact - x).abs().max()))


def test_auto_is_exact_for_double_precision_gradients_and_foreign_networks(network, seen, monkeypatch):
    monkeypatch.setattr(module, "_has_matrix_units", lambda device: True)
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


def test_an_unknown_precision_is_refused(network):
    with pytest.raises(ir.UnknownNameError, match="precision"):
        Denoiser(network, precision="half")
