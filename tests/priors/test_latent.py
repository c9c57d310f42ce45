"""A generator as a prior: what it accepts, what it refuses, and that it leaves networks as they were."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import invrestore as ir
from invrestore.priors import Capability, Latent


def generator(latent=4, size=6, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(latent, 3 * size * size), nn.Tanh(), nn.Unflatten(1, (3, size, size)))


class Styled(nn.Module):
    """A style-based generator in miniature."""

    num_layers = 3
    z_dim = 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(4, 5)
        self.paint = nn.ModuleList(nn.Linear(5, 3 * 36) for _ in range(3))

    def mapping(self, z):
        return nn.functional.leaky_relu(self.map(z), 0.2)

    def synthesis(self, ws):
        ws = ws[:, None].expand(-1, 3, -1) if ws.ndim == 2 else ws
        painted = sum(layer(ws[:, k]) for k, layer in enumerate(self.paint))
        return torch.sigmoid(painted).view(-1, 3, 6, 6)

    def forward(self, z):
        return self.synthesis(self.mapping(z))


def test_it_declares_that_it_generates_and_nothing_else():
    prior = Latent(generator(), latent_dim=4)
    assert prior.capabilities == {Capability.LATENT}
    with pytest.raises(ir.CapabilityError, match="a prior with prox"):
        prior.prox(torch.zeros(1, 3, 6, 6))


def test_images_are_brought_from_the_generators_range_to_that_of_images():
    G = generator()
    z = torch.randn(5, 4)
    x = Latent(G, latent_dim=4, output_range=(-1, 1)).generate(z)
    torch.testing.assert_close(x, 0.5 + 0.5 * G(z))
    prior = Latent(G, latent_dim=4, output_range=(-1, 1))
    torch.testing.assert_close(prior.from_image(prior.to_image(G(z))), G(z))


@pytest.mark.parametrize("name", ["latent_dim", "z_dim", "nz"])
def test_the_length_of_a_latent_is_read_off_the_generator(name):
    G = generator()
    setattr(G, name, 4)
    assert Latent(G).latent_size == 4


def test_latents_may_have_the_shape_a_convolutional_generator_takes():
    G = nn.ConvTranspose2d(7, 3, 4)
    prior = Latent(G, latent_dim=(7, 1, 1))
    assert prior.generate(torch.zeros(2, 7)).shape == (2, 3, 4, 4)


def test_samples_depend_on_the_seed_only_and_follow_the_distribution():
    prior = Latent(generator().double(), latent_dim=4)
    z = prior.sample(5000)
    assert z.dtype == torch.float64
    assert torch.equal(z, prior.sample(5000))
    assert not torch.equal(z, prior.sample(5000, torch.Generator().manual_seed(1)))
    assert float(z.std()) == pytest.approx(1, abs=0.03)
    uniform = Latent(generator(), latent_dim=4, distribution="uniform").sample(5000)
    assert float(uniform.abs().max()) <= 1
    assert float(uniform.std()) == pytest.approx(1 / math.sqrt(3), abs=0.02)


def test_doubt_is_the_log_ratio_of_fake_to_real_for_logits_maps_and_probabilities():
    raw = torch.rand(3, 3, 6, 6)
    logits = torch.tensor([-1.0, 0.5, 2.0])
    D = torch.sigmoid(logits)
    expected = torch.log(1 - D) - torch.log(D)
    G = generator()
    for discriminator, output in (
        (lambda x: logits, "logit"),
        (lambda x: logits[:, None], "logit"),
        (lambda x: logits.view(3, 1, 1, 1).expand(3, 1, 2, 2), "logit"),
        (lambda x: D, "probability"),
    ):
        prior = Latent(G, discriminator, latent_dim=4, discriminator_output=output)
        torch.testing.assert_close(prior.doubt(raw), expected)


def test_a_certain_discriminator_gives_finite_doubt():
    prior = Latent(generator(), lambda x: torch.ones(2), latent_dim=4, discriminator_output="probability")
    assert torch.isfinite(prior.doubt(torch.zeros(2, 3, 6, 6))).all()


def test_generating_leaves_mode_flags_and_statistics_alone():
    G = nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.Unflatten(1, (3, 2, 2))).train()
    G[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in G.state_dict().items()}
    x = Latent(G, latent_dim=4).generate(torch.randn(3, 4))
    assert not x.requires_grad
    assert [m.training for m in G.modules()] == [True] * 4
    assert [p.requires_grad for p in G.parameters()] == [False, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in G.state_dict().items())


def test_flags_are_put_back_after_an_interrupt():
    G = generator().train()

    def interrupted():
        with Latent(G, latent_dim=4).frozen():
            assert not G.training
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert G.training
    assert all(p.requires_grad for p in G.parameters())


def test_a_shipped_model_with_a_generator_becomes_a_latent_prior(monkeypatch):
    model = ir.networks.FaceGAN(16, 3, 8, (4, 8), (4, 8), (4, 8), mapping_layers=2)
    monkeypatch.setattr(ir.networks, "available", lambda: ["model"])
    monkeypatch.setattr(ir.networks, "card", lambda name: SimpleNamespace(architecture="FaceGAN"))
    monkeypatch.setattr(ir.networks, "load", lambda name: model)
    prior = ir.priors.load("model")
    assert isinstance(prior, Latent)
    assert (prior.generator, prior.encoder) == (model.generator, model.encoder)
    assert prior.discriminator is model.discriminator
    assert prior.generate(torch.zeros(1, 8)).shape == (1, 3, 16, 16)


def test_a_discriminator_that_compares_the_images_of_a_batch_is_left_out(monkeypatch):
    model = ir.networks.FaceGAN(16, 3, 8, (4, 8), (4, 8), (4, 8), mapping_layers=2, minibatch_std=True)
    monkeypatch.setattr(ir.networks, "available", lambda: ["model"])
    monkeypatch.setattr(ir.networks, "card", lambda name: SimpleNamespace(architecture="FaceGAN"))
    monkeypatch.setattr(ir.networks, "load", lambda name: model)
    assert ir.priors.load("model").discriminator is None


G = generator()
WRONG = {
    "generator that is no function": (lambda: Latent(3), ir.DTypeError, "generator as a module"),
    "discriminator that is no function": (
        lambda: Latent(G, 3, latent_dim=4),
        ir.DTypeError,
        "discriminator as",
    ),
    "encoder that is no function": (lambda: Latent(G, None, 3, latent_dim=4), ir.DTypeError, "encoder as"),
    "no latent dimension": (lambda: Latent(G), ir.CapabilityError, r"Latent\(generator, latent_dim"),
    "latent dimension 0": (lambda: Latent(G, latent_dim=0), ir.RangeError, "latent_dim >= 1"),
    "latent dimension as text": (lambda: Latent(G, latent_dim=("4",)), ir.DTypeError, "as an int"),
    "empty latent shape": (lambda: Latent(G, latent_dim=()), ir.ShapeError, "at least one axis"),
    "reversed range": (lambda: Latent(G, latent_dim=4, output_range=(1, 0)), ir.RangeError, "low < high"),
    "unknown space": (lambda: Latent(G, latent_dim=4, space="w++"), ir.UnknownNameError, "Did you mean 'w"),
    "styles without mapping": (
        lambda: Latent(G, latent_dim=4, space="w"),
        ir.CapabilityError,
        r"mapping\(z\) and synthesis",
    ),
    "layers of a function": (
        lambda: Latent(lambda z: z, latent_dim=4, layer=1),
        ir.CapabilityError,
        r"torch\.nn\.Sequential",
    ),
    "layers of a style generator from z": (
        lambda: Latent(ir.networks.StyleGenerator(16, 3, 4, (4, 4), 1), space="z", layer=1),
        ir.CapabilityError,
        "fed with",
    ),
    "layer beyond the last": (lambda: Latent(G, latent_dim=4, layer=3), ir.RangeError, "from 1 to 2"),
    "unknown optimiser": (lambda: Latent(G, latent_dim=4, optimiser="sgd"), ir.UnknownNameError, "'lbfgs'"),
    "unknown precision": (
        lambda: Latent(G, latent_dim=4, precision="half"),
        ir.UnknownNameError,
        "'bfloat16'",
    ),
    "unknown blend": (lambda: Latent(G, latent_dim=4, blend="poison"), ir.UnknownNameError, "'poisson'"),
    "no restarts": (lambda: Latent(G, latent_dim=4, restarts=0), ir.RangeError, "restarts >= 1"),
    "no steps": (lambda: Latent(G, latent_dim=4, steps=0), ir.RangeError, "steps >= 1"),
    "negative rate": (lambda: Latent(G, latent_dim=4, rate=-1.0), ir.RangeError, "rate > 0"),
    "importance above 1": (lambda: Latent(G, latent_dim=4, importance=2.0), ir.RangeError, r"\[0, 1\]"),
    "negative adaptation": (lambda: Latent(G, latent_dim=4, adapt=-1), ir.RangeError, "adapt >= 0"),
    "latents of another length": (
        lambda: Latent(G, latent_dim=4).generate(torch.zeros(1, 5)),
        ir.ShapeError,
        r"\(N, 4\)",
    ),
    "latents as a list": (
        lambda: Latent(G, latent_dim=4).generate([0.0]),
        ir.DTypeError,
        "z as a torch.Tensor",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_wrong_call_is_refused(case):
    wrong, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        wrong()


def test_the_last_space_needs_a_number_of_layers():
    styled = Styled()
    assert Latent(styled, space="w+").latent_size == 4
    styled.num_layers = None
    with pytest.raises(ir.CapabilityError, match="num_layers"):
        Latent(styled, space="w+")
