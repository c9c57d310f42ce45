"""The losses of a restorer's training, added up by hand: images, networks and discriminators of constant values.

Clean images are 0.2 everywhere and restored ones 0.5, whatever the damage: they differ by 0.3.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from invrestore import networks
from invrestore.data import PatchPool
from invrestore.training import (
    RECIPES,
    Degrader,
    RestorerRecipe,
    RestorerStage,
    RestorerTask,
    fit,
    load_checkpoint,
    losses,
    make_fabric,
)
from tests.training.test_restorers import log, quiet, recipe_of, small

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*"),
    pytest.mark.filterwarnings("ignore:training without the perceptual loss"),
]

STAGE = {"patch": 32, "batch": 4}


class Constant(nn.Module):
    """A restorer whose every image has one value; it keeps what it was shown."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x)
        return self.value.expand(len(x), 3, *x.shape[2:])


class Moved(Constant):
    """A second network that adds its value."""

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x)
        return x + self.value


class Corner(nn.Module):
    """A critic D(x) = 3 x at the first sample, whose gradient has length 3 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(3.0))
        self.judged: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.judged.append(x)
        return self.slope * x[:, 0, 0, 0]


class Scales(nn.Module):
    """Three judges of pairs: maps of x, 2 x and 3 x, and as logits 2 x, -x and 4 x for the first sample of x."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(1.0))
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def forward(self, s: Tensor, x: Tensor) -> list[list[Tensor]]:
        self.pairs.append((s, x))
        value = self.unit * x[:, :1, :1, :1]
        return [[size * self.unit * x, slope * value] for size, slope in ((1, 2), (2, -1), (3, 4))]


class Doubled(nn.Module):
    """Features 2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        self.layer.weight.data = 2 * torch.eye(3)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def task_of(name: str, **changes: Any) -> RestorerTask:
    """The task of a recipe on images of 0.2 = 51 / 255."""
    recipe = small(recipe_of(name), **changes)
    network = networks.ARCHITECTURES[recipe.architecture](**recipe.arguments)
    task = RestorerTask(network, recipe, PatchPool([np.full((40, 40, 3), 51, dtype=np.uint8)]))
    task.perceptual = losses.PerceptualLoss(Doubled(), {"layer": 1.0})
    return task


def found(
    task: RestorerTask, players: Mapping[str, nn.Module], stage: RestorerStage, seed: int = 0
) -> list[tuple[str | tuple[str, ...], float]]:
    """Who is trained, and by what loss."""
    every = task.losses(players, stage, torch.Generator().manual_seed(seed))
    return [(name, float(loss.detach())) for name, loss in every]


def approx(pairs: Sequence[tuple[object, float]]) -> list[tuple[object, object]]:
    return [(name, pytest.approx(value, rel=1e-5)) for name, value in pairs]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"l1": 0.5}, 0.5 * 0.3),
        ({"mse": 0.25}, 0.25 * 0.09),
        ({"perceptual": 2.0}, 2 * 2 * 0.3),
        ({"points": 3.0}, 3 * 0.09),
        ({"l1": 0.5, "mse": 0.25, "perceptual": 2.0, "points": 3.0}, 0.15 + 0.0225 + 1.2 + 0.27),
    ],
    ids=["l1", "mse", "perceptual", "points", "sum"],
)
def test_distances_to_the_clean_image_add_up(weights: dict[str, float], expected: float) -> None:
    task = task_of("xgan-sparse-paper-cpu")
    stage = RestorerStage(**STAGE, **weights)
    assert found(task, {"generator": Constant(0.5)}, stage) == approx([("generator", expected)])


@pytest.mark.parametrize(
    ("distance", "expected"), [("l2", 0.09), ("l1", 0.3), ("none", 0.0)], ids=["l2", "l1", "none"]
)
def test_distance_at_the_given_samples_is_the_one_asked_for(distance: str, expected: float) -> None:
    task = task_of("xgan-sparse-paper-cpu", point_loss=distance)
    stage = RestorerStage(**STAGE, points=1.0)
    assert found(task, {"generator": Constant(0.5)}, stage) == approx([("generator", expected)])


def test_discriminators_of_pairs_and_their_strongest_by_hand() -> None:
    task = task_of("xgan-sparse-paper-cpu")
    players = {"generator": Constant(0.5), "discriminator": Scales()}
    stage = RestorerStage(**STAGE, l1=0.5, adversarial=0.7, matching=0.3)
    # Logits are 0.4, -0.2, 0.8 for clean and 1, -0.5, 2 for restored images.
    discriminators = 0.5 * (0.6**2 + 1.2**2 + 0.2**2) + 0.5 * (1 + 0.25 + 4)
    # The second is deceived least, (-0.5 - 1)^2; maps differ by 0.3, 0.6 and 0.9.
    generator = 0.5 * 0.3 + 0.7 * 2.25 + 0.3 * 1.8
    assert found(task, players, stage) == approx(
        [("discriminator", discriminators), ("generator", generator)]
    )


def test_discriminators_of_pairs_see_what_the_generator_was_shown() -> None:
    task = task_of("xgan-sparse-paper-cpu")
    generator, discriminator = Constant(0.5), Scales()
    stage = RestorerStage(**STAGE, adversarial=1.0, matching=1.0)
    found(task, {"generator": generator, "discriminator": discriminator}, stage)
    shown, again = generator.shown
    assert torch.equal(shown, again)
    assert (shown == 1).any(), "lost samples are white"
    assert all(torch.equal(s, shown) for s, _ in discriminator.pairs)
    values = [round(float(x.unique().detach()), 3) for _, x in discriminator.pairs]
    assert values == [0.2, 0.5, 0.5, 0.2], "clean and restored for the judges, then for the generator"


@pytest.mark.parametrize(
    ("adversary", "expected"),
    [
        # D is 0.6 for clean and 1.5 for restored images; ten times (3 - 1)^2 is the penalty.
        ("wasserstein-penalty", 1.5 - 0.6 + 10 * 4),
        ("wasserstein-clip", 1.5 - 0.6),
        ("least-squares", 0.5 * 0.4**2 + 0.5 * 1.5**2),
    ],
    ids=["penalty", "clip", "least-squares"],
)
def test_critic_by_hand(adversary: str, expected: float) -> None:
    task = task_of("unified", adversary=adversary)
    players = {"generator": Constant(0.5), "discriminator": Corner()}
    (name, loss), *_ = found(task, players, RestorerStage(**STAGE, adversarial=1.0))
    assert (name, loss) == ("discriminator", pytest.approx(expected, rel=1e-5))


def test_restorer_is_trained_to_be_rated_highly_by_the_critic() -> None:
    task = task_of("unified")
    players = {"generator": Constant(0.5), "discriminator": Corner()}
    stage = RestorerStage(**STAGE, l1=1.0, adversarial=0.5)
    _, (name, loss) = found(task, players, stage)
    assert (name, loss) == ("generator", pytest.approx(0.3 - 0.5 * 1.5, rel=1e-5))


def test_critic_of_a_cascade_judges_its_final_image() -> None:
    task = task_of("cascade", clip=3.0)
    players = {"generator": Constant(0.5), "refiner": Moved(-0.1), "discriminator": Corner()}
    stage = RestorerStage(**STAGE, mse=1.0, adversarial=0.5, trains="both")
    # The final image is 0.4, which the critic rates 1.2.
    expected = [("discriminator", 1.2 - 0.6), (("generator", "refiner"), 0.2**2 - 0.5 * 3 * 0.4)]
    assert found(task, players, stage) == approx(expected)


def test_critic_is_clipped_after_each_update_and_before_the_restorer_s() -> None:
    task = task_of("cascade", critic_steps=3)
    critic = Corner()
    players = {"generator": Constant(0.5), "discriminator": critic}
    stage = RestorerStage(**STAGE, mse=1.0, adversarial=1.0)
    slopes = []
    for name, _ in task.losses(players, stage, torch.Generator().manual_seed(0)):
        slopes.append((name, round(float(critic.slope.detach()), 4)))
        critic.slope.data.fill_(-2.0)
    assert slopes == [("discriminator", 3.0), *2 * [("discriminator", -0.01)], ("generator", -0.01)]


def test_updates_of_one_player_leave_the_other_alone() -> None:
    task = task_of("unified")
    generator, critic = Constant(0.5), Corner()
    players = {"generator": generator, "discriminator": critic}
    for name, loss in task.losses(players, RestorerStage(**STAGE, adversarial=1.0), torch.Generator()):
        generator.value.grad = critic.slope.grad = None
        loss.backward()
        assert (generator.value.grad is None) == (name == "discriminator")
        assert (critic.slope.grad is None) == (name == "generator")


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_critic_is_updated_several_times_on_batches_of_its_own(steps: int) -> None:
    task = task_of("unified", critic_steps=steps)
    generator = Constant(0.5)
    players = {"generator": generator, "discriminator": Corner()}
    order = [name for name, _ in found(task, players, RestorerStage(**STAGE, adversarial=1.0))]
    assert order == steps * ["discriminator"] + ["generator"]
    batches = {tuple(x.flatten()[:50].tolist()) for x in generator.shown}
    # A single update of the critic and that of the restorer share their batch.
    assert len(batches) == (1 if steps == 1 else steps + 1)


def test_training_with_several_updates_of_the_critic(tmp_path: Path) -> None:
    task = task_of("unified", critic_steps=2, steps=3, stages=({**STAGE, "l1": 1.0, "adversarial": 1.0},))
    fit(task, task.recipe, tmp_path, fabric=make_fabric(task.recipe, "cpu"), say=quiet)
    tensors = load_checkpoint(tmp_path / "checkpoint.safetensors").tensors
    assert float(tensors["optimizer/discriminator/0/step"]) == 6
    assert float(tensors["optimizer/generator/0/step"]) == 3
    assert all(np.isfinite(line["loss_discriminator"]) for line in log(tmp_path))


def test_second_network_is_trained_beforehand_on_blur_and_noise_alone() -> None:
    task = task_of("cascade")
    refiner = Moved(0.0)
    (stage,) = (s for s in task.recipe.stages if s.trains == "refiner")
    for seed in range(8):
        ((name, _),) = found(task, {"refiner": refiner}, stage, seed)
        assert name == "refiner"
    assert {d.kind for d in task.recipe.refined} == {"blur", "noise"}
    shown = torch.cat(refiner.shown)
    assert shown.shape == (8 * stage.batch, 3, 32, 32)
    # A white square would lie 0.8 above the clean 0.2; noise of 0.1 and blur, which keeps a constant, do not.
    assert shown.max() < 0.2 + 0.6
    assert shown.std() > 0.02
    torch.testing.assert_close(shown.mean((1, 2, 3)), torch.full((len(shown),), 0.2), atol=0.02, rtol=0)


def test_loss_of_the_second_network_alone_is_its_distance_to_the_clean_image() -> None:
    task = task_of("cascade")
    stage = RestorerStage(**STAGE, l1=0.5, mse=0.25, points=7.0, trains="refiner")
    expected = [("refiner", 0.5 * 0.3 + 0.25 * 0.09)]
    assert found(task, {"refiner": Constant(0.5)}, stage) == approx(expected)


POINTED = [
    name
    for name, recipe in RECIPES.items()
    if isinstance(recipe, RestorerRecipe) and any(stage.points for stage in recipe.stages)
]


@pytest.mark.parametrize("name", POINTED)
def test_points_reach_something(name: str) -> None:
    recipe = recipe_of(name)
    side = next(stage.patch for stage in recipe.stages if stage.points)
    rng = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, side, side, generator=rng)
    for damage in recipe.degradations:
        if damage.kind in ("sparse", "block"):
            known = Degrader([damage], informed=False)(clean, rng).known
            assert known.flatten(1).any(1).all(), "the loss of given samples would have none to look at"
