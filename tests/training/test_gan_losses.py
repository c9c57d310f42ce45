"""The losses of a generator's training, added up by hand: images and networks of constant values.

Real images are 0.2 everywhere and generated ones 0.5. The discriminator says D(x) = 5 x^2 of the first sample, which
is 0.2 for real and 1.25 for generated images, with gradients of length 2 and 5.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invrestore.data import ImagePool
from invrestore.training import GanStage, GanTask
from tests.training.test_gan import make, recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")

QUIET: dict[str, Any] = {
    "augment": (),
    "mirror": False,
    "r1": 0.0,
    "r2": 0.0,
    "reconstruction": 0.0,
    "features": 0.0,
    "kl": 0.0,
    "codes": 0.0,
    "adversarial": 0.0,
    "penalised": 8,
    "stages": (GanStage(patch=16, batch=8),),
}


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


class Constant(nn.Module):
    """A generator of images of one value; it keeps the codes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.5))
        self.codes: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        self.codes.append(z.detach())
        return self.value.expand(len(z), 3, 16, 16)


class Written(Constant):
    """A generator that writes the code into the first 8 pixels of a picture of 0.5."""

    def forward(self, z: Tensor) -> Tensor:
        x = super().forward(z).clone()
        x[:, 0, 0, :8] = z
        return x


class Square(nn.Module):
    """A discriminator D(x) = 5 x^2 of the first sample, with the maps x and 2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        logits = self.scale * x[:, 0, 0, 0].square()
        return (logits, [x, 2 * x]) if features else logits


class Reader(nn.Module):
    """An encoder that reads codes `sign` times the first 8 pixels, all of variance 1.

    Random codes are placed around 7.
    """

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))
        self.followed: list[Tensor] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.sign * x[:, 0, 0, :8]
        return mean, torch.zeros_like(mean)

    def follow(self, codes: Tensor) -> None:
        self.followed.append(codes.detach())

    def place(self, z: Tensor) -> Tensor:
        return 7 + 1e-3 * z


def losses_of(players: Mapping[str, nn.Module], **changes: Any) -> dict[str | tuple[str, ...], float]:
    """Who is trained by what loss on images of 0.2 = 51 / 255."""
    settings = recipe(**QUIET | changes)
    task: GanTask = make(settings)
    task.pool = ImagePool(torch.full((9, 3, 16, 16), 51, dtype=torch.uint8), mirror=False)
    every = task.losses(players, settings.stages[0], torch.Generator().manual_seed(0))
    return {name: float(loss.detach()) for name, loss in every}


REAL, MADE = 0.2, 1.25
ALONE = {"encoder": "inverse"}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("non-saturating", softplus(-REAL) + softplus(MADE)),
        ("relativistic", softplus(MADE - REAL)),
    ],
    ids=["non-saturating", "relativistic"],
)
def test_discriminator_tells_real_from_generated(loss: str, expected: float) -> None:
    players = {"generator": Constant(), "discriminator": Square(), "encoder": Reader(1.0)}
    assert losses_of(players, **ALONE, loss=loss)["discriminator"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("non-saturating", softplus(-MADE)), ("relativistic", softplus(REAL - MADE))],
    ids=["non-saturating", "relativistic"],
)
def test_generator_is_trained_to_be_taken_for_real(loss: str, expected: float) -> None:
    players = {"generator": Constant(), "discriminator": Square(), "encoder": Reader(1.0)}
    assert losses_of(players, **ALONE, loss=loss, adversarial=0.7)["generator"] == pytest.approx(
        0.7 * expected, rel=1e-5
    )


@pytest.mark.parametrize(
    ("weights", "expected"),
    # Half the squared length of the gradient: 2 for real, 12.5 for generated images.
    [({"r1": 0.3}, 0.6), ({"r2": 0.1}, 1.25), ({"r1": 0.3, "r2": 0.1}, 1.85)],
    ids=["r1", "r2", "both"],
)
def test_penalties_raise_the_loss_of_the_discriminator(weights: dict[str, float], expected: float) -> None:
    players = {"generator": Constant(), "discriminator": Square(), "encoder": Reader(1.0)}
    without = softplus(-REAL) + softplus(MADE)
    loss = losses_of(players, **ALONE, **weights)["discriminator"]
    assert loss == pytest.approx(without + expected, rel=1e-5)


def test_joint_generator_adds_reconstruction_features_and_divergence() -> None:
    players = {"generator": Constant(), "discriminator": Square(), "encoder": Reader(1.0)}
    trained = ("encoder", "generator")
    assert losses_of(players, reconstruction=0.5)[trained] == pytest.approx(0.5 * 0.3, rel=1e-5)
    # Both maps differ by 1.5 times what the target has.
    assert losses_of(players, features=0.4)[trained] == pytest.approx(0.4 * 1.5, rel=1e-5)
    # Eight means of 0.2 give 8 / 2 * 0.04 nats, for 768 samples in an image.
    assert losses_of(players, kl=768.0)[trained] == pytest.approx(0.16, rel=1e-5)
    weights = {"reconstruction": 0.5, "features": 0.4, "kl": 768.0, "adversarial": 0.7}
    expected = 0.15 + 0.6 + 0.16 + 0.7 * softplus(-MADE)
    assert losses_of(players, **weights)[trained] == pytest.approx(expected, rel=1e-5)


def test_autoencoder_adds_reconstruction_and_divergence_and_asks_no_discriminator() -> None:
    players = {"generator": Constant(), "encoder": Reader(1.0)}
    stages = (GanStage(patch=16, batch=8, adversarial=False),)
    found = losses_of(players, stages=stages, reconstruction=0.5, kl=768.0, features=1.0, adversarial=1.0)
    assert found == {("encoder", "generator"): pytest.approx(0.15 + 0.16, rel=1e-5)}


def test_joint_generator_makes_images_of_codes_of_real_ones_and_of_random_codes_placed_among_them() -> None:
    generator, encoder = Constant(), Reader(-1.0)
    losses_of({"generator": generator, "discriminator": Square(), "encoder": encoder}, encoded=0.25)
    (codes,) = generator.codes
    assert codes.shape == (8, 8)
    (followed,) = encoder.followed
    assert torch.equal(codes[:2], followed), "a quarter are reconstructions"
    assert (codes[2:] - 7).abs().max() < 0.01
    # Drawn around the means of -0.2 with variance 1.
    assert 0.5 < float(followed.std()) < 1.5


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 0.0), (-1.0, 2.0)], ids=["same", "opposite"])
def test_codes_found_in_generated_images_are_compared_with_those_they_were_made_of(
    sign: float, expected: float
) -> None:
    generator = Written()
    players = {"generator": generator, "discriminator": Square(), "encoder": Reader(sign)}
    found = losses_of(players, **ALONE, codes=0.2)
    # 1 - cosine is 0 for the code itself and 2 for its opposite.
    assert found["encoder"] == pytest.approx(0.2 * expected, abs=1e-6)


def test_encoder_that_follows_is_trained_on_pixels_of_real_images() -> None:
    generator = Constant()
    players = {"generator": generator, "discriminator": Square(), "encoder": Reader(1.0)}
    assert losses_of(players, **ALONE, reconstruction=0.5)["encoder"] == pytest.approx(0.15, rel=1e-5)
    rebuilt = generator.codes[-1]
    torch.testing.assert_close(rebuilt, torch.full((8, 8), 0.2), msg="means of the real images' codes")
