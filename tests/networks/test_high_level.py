import pytest
import torch

from invrestore import networks, priors
from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.networks import Classifier, HighLevelNetwork, Segmenter
from invrestore.training.losses import PerceptualLoss

NETWORKS = {
    "classifier": lambda: Classifier(("a", "b", "c"), widths=(8, 12), depths=(1, 2)),
    "segmenter": lambda: Segmenter(("a", "b", "c"), widths=(8, 12), width=8),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> HighLevelNetwork:
    torch.manual_seed(0)
    return NETWORKS[request.param]()


def wanted(network: HighLevelNetwork, x: torch.Tensor) -> tuple[int, ...]:
    return (len(x), 3, *x.shape[2:]) if isinstance(network, Segmenter) else (len(x), 3)


@pytest.mark.parametrize("size", [(16, 16), (13, 18), (5, 7)])
def test_logits_have_one_score_for_each_class_at_any_size(
    network: HighLevelNetwork, size: tuple[int, int]
) -> None:
    x = torch.rand(2, 3, *size)
    assert network.eval()(x).shape == wanted(network, x)


def test_images_of_a_batch_do_not_mix(network: HighLevelNetwork) -> None:
    x = torch.rand(3, 3, 12, 12)
    network.eval()
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), atol=1e-5, rtol=1e-4)


def test_every_parameter_receives_a_gradient(network: HighLevelNetwork) -> None:
    network(torch.rand(2, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_gradient_reaches_the_image(network: HighLevelNetwork) -> None:
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    network.eval().requires_grad_(False)(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(1) > 0).float().mean() > 0.9


def test_wrong_images_are_refused(network: HighLevelNetwork) -> None:
    with pytest.raises(ShapeError, match=r"x of shape \(B, 3, H, W\)"):
        network(torch.rand(1, 1, 8, 8))
    with pytest.raises(DTypeError, match="floating-point"):
        network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_senseless_arguments_are_refused() -> None:
    for kind in (Classifier, Segmenter):
        with pytest.raises(RangeError, match="at least two classes"):
            kind(("only",))
        with pytest.raises(RangeError, match="names of their own"):
            kind(("same", "same"))
    with pytest.raises(RangeError, match="one for each width"):
        Classifier(("a", "b"), widths=(8, 8), depths=(1,))
    with pytest.raises(RangeError, match="positive widths and depth"):
        Segmenter(("a", "b"), widths=(8, 0))


def test_layers_of_a_classifier_serve_a_perceptual_loss() -> None:
    network = Classifier(("a", "b"), widths=(8, 12), depths=(1, 2))
    loss = PerceptualLoss(network, {"relu1_1": 1.0, "relu2_2": 0.5})
    x, target = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(2, 3, 8, 8)
    assert [tuple(f.shape[1:]) for f in loss.features(target)] == [(8, 8, 8), (12, 4, 4)]
    assert float(loss(target, target)) == 0
    loss(x, target).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


SHIPPED = [
    name
    for name in networks.available()
    if issubclass(networks.ARCHITECTURES[networks.card(name).architecture], HighLevelNetwork)
]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_high_level_networks_are_small_and_are_no_priors(name: str) -> None:
    card = networks.card(name)
    assert card.parameters < 1_500_000
    assert {"top1", "miou"} & set(card.metrics)
    assert len(networks.load(name).classes) == len(card.arguments["classes"])
    assert name not in priors.available()
