"""Training of generators, on pictures small enough to run whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from invrestore import networks
from invrestore.data import ImagePool
from invrestore.errors import ImageFileError, InvrestoreError, TrainingError
from invrestore.networks import DCGAN, FaceGAN
from invrestore.training import (
    RECIPES,
    GanRecipe,
    GanStage,
    GanTask,
    Optimizer,
    RandomFeatures,
    fit,
    kernel_distance,
    load_checkpoint,
    make_fabric,
    nearest_distances,
    resize,
    train,
)
from invrestore.training._gan import _plain
from invrestore.training._views import damaged_views

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")

FACE: dict[str, Any] = {
    "latent_dim": 8,
    "generator_widths": [8, 8],
    "encoder_widths": [8, 8],
    "discriminator_widths": [8, 8],
    "mapping_layers": 1,
}


def recipe(**changes: Any) -> GanRecipe:
    settings: dict[str, Any] = {
        "name": "tiny",
        "arguments": FACE,
        "stages": (GanStage(until=0.5, patch=16, batch=8, adversarial=False), GanStage(patch=16, batch=8)),
        "optimizer": Optimizer(kind="adamw", lr=5e-3, betas=(0.5, 0.99), warmup=0),
        "features": 0.2,
        "r1": 0.1,
        "r2": 0.1,
        "steps": 8,
        "precision": "32",
        "log_every": 2,
        "test_folder": "held-out",
        "test_split": None,
    }
    return GanRecipe.model_validate(settings | changes)


INVERSE = {"encoder": "inverse", "stages": (GanStage(patch=16, batch=8),)}
RELATIVISTIC = {"loss": "relativistic"}
PLAIN = {
    "architecture": "DCGAN",
    "arguments": {"latent_dim": 8, "width": 4},
    "encoder": "none",
    "stages": (GanStage(patch=16, batch=8),),
}
COMPLETING = {"stages": (GanStage(patch=16, batch=32, adversarial=False, damaged=0.75),)}
KINDS = {"joint": {}, "inverse": INVERSE, "relativistic": RELATIVISTIC, "plain": PLAIN}


def pictures(count: int = 40, size: int = 16) -> Tensor:
    """Discs of random place and colour, uint8 (count, 3, size, size)."""
    rng = torch.Generator().manual_seed(0)
    line = torch.arange(size)
    x, y, red, blue = torch.rand(4, count, 1, 1, generator=rng)
    disc = (line[:, None] - size * x) ** 2 + (line - size * y) ** 2 < (size / 3) ** 2
    return torch.stack([255 * disc * red, 128.0 * disc, 255 * disc * blue], dim=1).to(torch.uint8)


def make(settings: GanRecipe, test: Tensor | None = None) -> GanTask:
    torch.manual_seed(0)
    model = networks.ARCHITECTURES[settings.architecture](size=16, **settings.arguments)
    assert isinstance(model, FaceGAN | DCGAN)
    return GanTask(model, settings, ImagePool(pictures(), settings.mirror), test)


def run(folder: Path, settings: GanRecipe, **options: Any) -> list[dict[str, float]]:
    fit(make(settings), settings, folder, fabric=make_fabric(settings, "cpu"), say=quiet, **options)
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def quiet(line: str) -> None:
    pass


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "held-out").mkdir(parents=True)
    for number, image in enumerate(pictures()):
        folder = root if number < 28 else root / "held-out"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return root


def test_autoencoder_learns_its_pictures(tmp_path: Path) -> None:
    stages = (GanStage(patch=16, batch=8, adversarial=False),)
    lines = run(tmp_path, recipe(stages=stages, steps=150, log_every=10))
    assert lines[-1]["loss_encoder_generator"] < 0.7 * lines[0]["loss_encoder_generator"]


def test_discriminator_learns_to_tell_an_idle_generator(tmp_path: Path) -> None:
    changes = {
        "adversarial": 0.0,
        "reconstruction": 0.0,
        "features": 0.0,
        "augment": (),
        "r1": 0.0,
        "r2": 0.0,
    }
    stages = (GanStage(patch=16, batch=8),)
    lines = run(tmp_path, recipe(**changes, stages=stages, steps=40, log_every=5))
    assert lines[-1]["loss_discriminator"] < 0.3 * lines[0]["loss_discriminator"]


@pytest.mark.parametrize("kind", [*KINDS, "completing"])
def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, kind: str) -> None:
    settings = recipe(**(KINDS | {"completing": COMPLETING})[kind])
    run(tmp_path / "whole", settings)
    run(tmp_path / "parts", settings, pause_step=3)
    run(tmp_path / "parts", settings, pause_step=6, resume=True)
    run(tmp_path / "parts", settings, resume=True)
    first, second = (
        load_checkpoint(tmp_path / name / "checkpoint.safetensors").tensors for name in ("whole", "parts")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_trained(kind: str) -> None:
    settings = recipe(**KINDS[kind])
    task = make(settings)
    order, idle = [], []
    for players, loss in task.losses(task.players, settings.stages[-1], torch.Generator().manual_seed(0)):
        names = (players,) if isinstance(players, str) else players
        for name in names:
            task.players[name].zero_grad()
        loss.backward()
        for name in names:
            parameters = task.players[name].named_parameters()
            idle += [key for key, p in parameters if p.grad is None or not p.grad.abs().sum() > 0]
        order.append(players)
    joint = ("encoder", "generator")
    expected = {"inverse": ["generator", "encoder"], "plain": ["generator"]}.get(kind, [joint])
    assert order == ["discriminator", *expected]
    # A common offset of all logits does not matter to a loss of their differences.
    assert idle == (["out.bias"] if kind == "relativistic" else [])
    assert all(p.requires_grad for m in task.players.values() for p in m.parameters())


def test_following_encoder_leaves_the_generator_alone() -> None:
    settings = recipe(**INVERSE)
    task = make(settings)
    *_, (name, loss) = task.losses(task.players, settings.stages[0], torch.Generator().manual_seed(0))
    for player in task.players.values():
        player.zero_grad()
    loss.backward()
    assert name == "encoder"
    assert all(p.grad is None for p in task.players["generator"].parameters())
    assert any(p.grad is not None for p in task.players["encoder"].parameters())


@pytest.mark.parametrize("encoder", ["joint", "inverse"])
def test_encoder_of_damaged_pictures_leaves_the_generator_alone(encoder: str) -> None:
    settings = recipe(**COMPLETING | {"encoder": encoder})
    task = make(settings)
    assert task.model.encoder is not None
    before = task.model.encoder.code_mean.clone()
    ((name, loss),) = task.losses(task.players, settings.stages[0], torch.Generator().manual_seed(0))
    loss.backward()
    assert name == "encoder"
    assert all(p.grad is None and p.requires_grad for p in task.players["generator"].parameters())
    assert all(p.grad is not None for p in task.players["encoder"].parameters())
    followed = not torch.equal(task.model.encoder.code_mean, before)
    assert followed == (encoder == "joint"), "random codes are placed where those of whole pictures lie"


def test_generator_is_the_same_after_its_encoder_was_trained_alone(tmp_path: Path) -> None:
    settings = recipe(**COMPLETING | {"steps": 3})
    task = make(settings)
    task.model.generator.mapping.shift += 0.5
    z = torch.randn(4, 8)
    before = task.model(z)
    players = fit(task, settings, tmp_path, fabric=make_fabric(settings, "cpu"), say=quiet).players
    assert torch.equal(task.join(players)(z), before)


def test_encoder_learns_to_see_through_damage(tmp_path: Path) -> None:
    settings = recipe(**COMPLETING | {"steps": 80, "ema": 0.9, "kl": 0.0, "mirror": False})
    task = make(settings)
    with torch.no_grad():
        task.pool.images = (255 * task.model(3 * torch.randn(40, 8))).to(torch.uint8)
    views = list(damaged_views(task.pool.images / 255, torch.Generator().manual_seed(1)))

    def errors(players: Mapping[str, torch.nn.Module]) -> list[float]:
        """Of the codes of each kind of damage."""
        with torch.no_grad():
            made = [players["generator"](players["encoder"](view.seen)[0]) for view in views]
        return [float((x - v.clean).square().mean()) for x, v in zip(made, views, strict=True)]

    before = errors(task.players)
    players = fit(task, settings, tmp_path, fabric=make_fabric(settings, "cpu"), say=quiet).players
    assert all(after < 0.8 * error for after, error in zip(errors(players), before, strict=True))


def test_discriminator_sees_real_and_generated_pictures_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe(augment=("cutout",), r1=0.0, r2=0.0, features=0.0)
    task = make(settings)
    seen: list[Tensor] = []
    task.model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    task.pool.images = torch.full_like(task.pool.images, 255)
    list(task.losses(task.players, settings.stages[-1], torch.Generator().manual_seed(0)))
    real, fake, again = seen
    assert real.shape == (8, 3, 16, 16), "batch normalisation must not see a mixture of real and generated"
    assert all((image == 0).any() for image in real)
    assert not real.all(dim=0).all(), "each picture has a hole of its own"
    torch.testing.assert_close(fake, again, msg="one draw serves both updates")


@pytest.mark.parametrize("kind", ["joint", "plain"])
def test_training_leaves_weights_card_and_sheet(photos: Path, tmp_path: Path, kind: str) -> None:
    result = train(recipe(**KINDS[kind]), photos, tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.weights == tmp_path / "run" / "tiny.safetensors"
    assert result.card is not None
    assert result.card.arguments["size"] == 16
    assert result.card.data == "28 images of photos, reserved test images left out"
    scores = {"kernel_distance", "kernel_distance_of_training_images", "protocol"}
    scores |= {"nearest_training_rms", "nearest_training_rms_of_test_images"}
    assert set(result.card.metrics) == scores | ({"reconstruction_psnr"} if kind == "joint" else set())
    assert result.sheet is not None
    with Image.open(result.sheet) as sheet:
        assert sheet.size == (160, 16 * (7 + (2 if kind == "joint" else 0)))
    model = networks.load_file(result.weights)
    assert model(torch.randn(2, 8)).shape == (2, 3, 16, 16)
    if isinstance(model, FaceGAN):
        w = model.generator.mapping(torch.randn(5000, 8)).mean(dim=0)
        torch.testing.assert_close(model.generator.w_mean, w, atol=0.1, rtol=0)


def test_penalty_reaches_below_the_wrappers_of_device_and_compiler() -> None:
    network = torch.nn.Linear(2, 1)
    fabric = make_fabric(recipe(), "cpu")
    wrapped = fabric.setup(torch.compile(network), torch.optim.SGD(network.parameters(), lr=0.1))[0]
    for module in (network, torch.compile(network), wrapped):
        assert _plain(module) is network


def test_training_starts_from_given_weights(photos: Path, tmp_path: Path) -> None:
    first = train(recipe(steps=2), photos, tmp_path / "first", accelerator="cpu", say=quiet)
    settings = recipe(steps=1, start=str(first.weights), optimizer=Optimizer(kind="adamw", lr=1e-12))
    second = train(settings, photos, tmp_path / "second", accelerator="cpu", say=quiet)
    assert first.weights is not None
    assert second.weights is not None
    assert second.card is not None
    assert "begun from the weights of tiny.safetensors" in second.card.training
    # The encoder's last layer is made anew, for codes of covariance 1.
    first_model, second_model = (networks.load_file(path) for path in (first.weights, second.weights))
    for part in ("generator.synthesis", "generator.mapping.layers", "encoder.trunk", "discriminator"):
        for a, b in zip(
            *(model.get_submodule(part).parameters() for model in (first_model, second_model)), strict=True
        ):
            assert torch.equal(a, b)


def test_test_pictures_of_a_plain_folder_are_found_and_not_trained_on(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "mine" / split).mkdir(parents=True)
    for number, path in enumerate(sorted(photos.glob("*.png"))):
        path.rename(tmp_path / "mine" / ("test" if number < 12 else "train") / path.name)
    settings = recipe(steps=1)
    result = train(settings, tmp_path / "mine", tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.card is not None
    assert result.card.data.startswith("16 images of mine")
    assert "reconstruction_psnr" in result.card.metrics


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="an existing folder"):
        train(recipe(), tmp_path / "nowhere", tmp_path / "run", accelerator="cpu", say=quiet)


def test_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="at least one image to train on"):
        train(recipe(), tmp_path / "empty", tmp_path / "run", accelerator="cpu", say=quiet)


def test_pictures_that_are_too_small_are_refused(photos: Path, tmp_path: Path) -> None:
    settings = recipe(
        architecture="DCGAN",
        encoder="none",
        arguments={"latent_dim": 4, "width": 2},
        stages=(GanStage(patch=32, batch=2),),
    )
    with pytest.raises(TrainingError, match="an image of at least 32x32 pixels"):
        train(settings, photos, tmp_path / "run", accelerator="cpu", say=quiet)


def test_architecture_that_generates_nothing_is_refused(photos: Path, tmp_path: Path) -> None:
    settings = recipe(architecture="UNet", arguments={"widths": [4], "blocks": 1})
    with pytest.raises((TrainingError, ValueError), match="UNet"):
        train(settings, photos, tmp_path / "run", accelerator="cpu", say=quiet)


def test_encoder_that_is_not_there_cannot_be_trained() -> None:
    with pytest.raises(TrainingError, match="DCGAN and encoder='joint'"):
        make(recipe(architecture="DCGAN", arguments={"latent_dim": 8, "width": 4}))
    with pytest.raises(TrainingError, match="FaceGAN and encoder='none'"):
        make(recipe(encoder="none", stages=(GanStage(patch=16, batch=8),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": (GanStage(until=0.5, patch=16, batch=8), GanStage(patch=32, batch=8))}, "the same patch"),
        ({"arguments": {"size": 16}}, "patch of the stages, not an argument"),
        ({"encoder": "none"}, "need the joint encoder"),
        ({"stages": ({"patch": 16, "batch": 8, "damaged": 0.5},)}, "set adversarial=False"),
        (COMPLETING | {"encoder": "none"}, "need an encoder that sees them"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)


@pytest.mark.parametrize("name", ["faces64", "faces64-cpu", "dcgan64-cpu"])
@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_recipes_of_faces_take_other_sizes(name: str, size: int) -> None:
    resized = resize(RECIPES[name], size)
    assert resized.name == name.replace("64", str(size))
    assert {stage.patch for stage in resized.stages} == {size}
    model = networks.ARCHITECTURES[resized.architecture](size=size, **resized.arguments)
    with torch.no_grad():
        assert model.generator(torch.zeros(1, model.latent_dim)).shape == (1, 3, size, size)


def test_resized_recipe_trains(photos: Path, tmp_path: Path) -> None:
    settings = resize(recipe(), 8)
    assert settings.arguments["generator_widths"] == [8]
    result = train(settings, photos, tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.card is not None
    assert result.card.arguments["size"] == 8


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("unified", 128, "the recipe of a generator, got 'unified'"),
        ("faces64-last-cpu", 128, "begins from faces64"),
        ("faces64", 96, "size as a power of 2, got 96"),
    ],
)
def test_senseless_sizes_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(InvrestoreError, match=message):
        resize(RECIPES[name], size)


def test_recipes_of_faces_share_one_checkpoint() -> None:
    assert RECIPES["faces64"].checkpoint == RECIPES["faces64-cpu"].checkpoint == "faces64"
    for name in ("faces64", "faces64-cpu", "faces64-encoder", "faces64-encoder-cpu", "dcgan64"):
        settings = RECIPES[name]
        assert isinstance(settings, GanRecipe)
        model = networks.ARCHITECTURES[settings.architecture](size=settings.size, **settings.arguments)
        assert 2 * sum(p.numel() for p in model.parameters()) < 16 * 2**20


def test_kernel_distance_by_hand() -> None:
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[-1.0], [1.0]])
    scale = 2**0.5  # Standard deviation of y, whose mean is 0.

    def kernel(a: float, b: float) -> float:
        return (a * b / scale**2 + 1) ** 3

    cross = sum(kernel(a, b) for a in (1, 3) for b in (-1, 1)) / 4
    expected = kernel(1, 3) + kernel(-1, 1) - 2 * cross
    assert kernel_distance([x], [y], lambda batch: batch) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_tells_noise_from_pictures() -> None:
    features = RandomFeatures(width=16)
    images = pictures(80) / 255
    same = kernel_distance([images[:40]], [images[40:]], features)
    noise = torch.rand(images[:40].shape, generator=torch.Generator().manual_seed(0))
    assert abs(same) < 0.1 * kernel_distance([noise], [images[40:]], features)
    assert RandomFeatures(width=16)(images).equal(features(images))


def test_nearest_training_picture_is_found() -> None:
    known = pictures(30)
    changed = (known[[7, 21]] / 255 + 0.01).float()
    distances, index = nearest_distances(changed, known, chunk=8)
    assert index.tolist() == [7, 21]
    torch.testing.assert_close(distances, torch.tensor([0.01, 0.01]), atol=1e-4, rtol=0)
