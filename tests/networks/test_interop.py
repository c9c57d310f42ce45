"""Our networks inside deepinv, without an adapter."""

import pytest
import torch

from invrestore.networks import UNet

deepinv = pytest.importorskip("deepinv")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:deepinv.*", "ignore::FutureWarning")


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    network = UNet(channels=3, widths=(4, 8), blocks=1).eval()
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    return network.requires_grad_(False)


def test_network_is_a_plug_and_play_prior_of_deepinv(network: UNet) -> None:
    x = torch.rand(2, 3, 9, 12)
    prior = deepinv.optim.PnP(denoiser=network)
    assert torch.equal(prior.prox(x, sigma_denoiser=0.1), network(x, 0.1))
    assert torch.equal(
        prior.prox(x, sigma_denoiser=torch.tensor([0.1, 0.2])), network(x, torch.tensor([0.1, 0.2]))
    )


def test_network_runs_in_an_algorithm_of_deepinv(network: UNet) -> None:
    physics = deepinv.physics.Inpainting((3, 16, 16), mask=0.5, rng=torch.Generator().manual_seed(0))
    y = physics(torch.rand(1, 3, 16, 16))
    algorithm = deepinv.optim.optim_builder(
        iteration="HQS",
        prior=deepinv.optim.PnP(denoiser=network),
        data_fidelity=deepinv.optim.L2(),
        max_iter=3,
        params_algo={"stepsize": 1.0, "g_param": 0.1},
    )
    x = algorithm(y, physics)
    assert x.shape == (1, 3, 16, 16)
    assert x.isfinite().all()
