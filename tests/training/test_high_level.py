"""Training of classifiers, segmenters, and of denoisers in front of a frozen one."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from invrestore import networks
from invrestore.cli import main
from invrestore.data import LabelledPool, PatchPool
from invrestore.errors import (
    CapabilityError,
    ShapeError,
    TrainingError,
    UnknownNameError,
    WeightsError,
)
from invrestore.networks import Classifier, Segmenter, UNet
from invrestore.training import (
    RECIPES,
    HighLevelRecipe,
    HighLevelTask,
    JointRecipe,
    JointTask,
    Optimizer,
    Source,
    Stage,
    colour_map,
    confusion,
    fit,
    label_loss,
    load_high_level,
    make_fabric,
    mean_iou,
    score_labels,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")

COMMON = {
    "name": "tiny",
    "stages": (Stage(patch=16, batch=4),),
    "optimizer": Optimizer(kind="adamw", lr=1e-2, warmup=0),
    "ema": 0.5,
    "precision": "32",
}
LEARN = HighLevelRecipe.model_validate(
    COMMON
    | {
        "architecture": "Classifier",
        "arguments": {"classes": ["dark", "light"], "widths": [8, 8], "depths": 1},
        "task": "classification",
        "steps": 20,
        "sources": (Source(folder="pets.zip"),),
        "test_folder": "pets.zip",
    }
)
JOINT = JointRecipe.model_validate(
    COMMON
    | {
        "arguments": {"channels": 3, "widths": [8, 16], "blocks": 1},
        "task": "classification",
        "high_level": "none",
        "lam": 0.5,
        "steps": 5,
        "sources": (Source(folder="pets.zip"), Source(folder="roads")),
        "test_folder": "pets.zip",
        "sigmas": (0.1, 0.2),
    }
)


def quiet(line: str) -> None:
    pass


def stripes(value: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-20, 20, (20, 24, 3))
    return np.clip(value + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A zip of dark and light images, and a folder of images with masks of their light part."""
    root = tmp_path / "data"
    root.mkdir()
    with zipfile.ZipFile(root / "pets.zip", "w") as archive:
        for split, count in (("train", 4), ("test", 2)):
            for number in range(count):
                for name, value in (("dark", 70), ("light", 180)):
                    buffer = io.BytesIO()
                    Image.fromarray(stripes(value, number + (99 if split == "test" else 0))).save(
                        buffer, "PNG"
                    )
                    archive.writestr(f"{split}/{name}/{number}.png", buffer.getvalue())
    for split in ("train", "test"):
        for kind in (split, f"{split}annot"):
            (root / "roads" / kind).mkdir(parents=True)
        for number in range(3):
            image, mask = stripes(70, number), np.zeros((20, 24), np.uint8)
            image[:, 12:], mask[:, 12:], mask[0] = stripes(180, number)[:, 12:], 1, 2
            Image.fromarray(image).save(root / "roads" / split / f"{number}.png")
            Image.fromarray(mask).save(root / "roads" / f"{split}annot" / f"{number}.png")
    return root


def test_a_classifier_learns_and_its_card_says_how_well(folder: Path, tmp_path: Path) -> None:
    result = train(LEARN, folder, tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.card is not None
    assert result.card.metrics["top1"] == 100.0
    assert "pets.zip" in result.card.data
    assert result.card.sigma_range is None
    assert result.sheet is not None
    network = networks.load_file(tmp_path / "run" / "tiny.safetensors")
    assert isinstance(network, Classifier)
    assert network.classes == ("dark", "light")


def test_a_segmenter_learns_and_leaves_out_what_has_no_class(folder: Path, tmp_path: Path) -> None:
    recipe = LEARN.model_copy(
        update={
            "architecture": "Segmenter",
            "arguments": {"classes": ["dark", "light"], "widths": [8], "width": 8},
            "task": "segmentation",
            "ignore": 2,
            "balance": 0.5,
            "augment": ("color",),
            "sources": (Source(folder="roads"),),
            "test_folder": "roads",
            "steps": 30,
        }
    )
    result = train(recipe, folder, tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.card is not None
    assert float(result.card.metrics["miou"]) > 70
    assert result.sheet is not None
    with Image.open(result.sheet) as sheet:
        assert sheet.size == (3 * 24, 3 * 20)
    with pytest.raises(TrainingError, match="out of 2 classes"):
        train(
            recipe.model_copy(update={"ignore": None}), folder, tmp_path / "x", accelerator="cpu", say=quiet
        )


def test_weights_of_classes_balance_them(rng: torch.Generator) -> None:
    images = [stripes(70, 0)] * 4
    pool = LabelledPool(images, [0, 0, 0, 1])
    network = Classifier(("a", "b"), widths=(4,), depths=1)
    weight = HighLevelTask(network, LEARN.model_copy(update={"balance": 1.0}), pool).weight
    assert weight is not None
    torch.testing.assert_close(weight * torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0]))
    assert HighLevelTask(network, LEARN, pool).weight is None


def test_masks_forbid_alterations_that_move_the_image() -> None:
    with pytest.raises(ValidationError, match="part images from their masks"):
        HighLevelRecipe.model_validate(
            LEARN.model_dump() | {"task": "segmentation", "augment": ["translation"]}
        )
    with pytest.raises(ValidationError, match="increasing range"):
        HighLevelRecipe.model_validate(LEARN.model_dump() | {"zoom": (2.0, 1.0)})


def test_levels_in_8_bit_units_are_refused() -> None:
    with pytest.raises(ValidationError, match="8-bit level 25 is 25/255"):
        JointRecipe.model_validate(JOINT.model_dump() | {"sigmas": (25,)})


class Mean(nn.Module):
    """Logits that grow with the mean of the image, of every image or pixel; normalised, and once in training mode."""

    def __init__(self, maps: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.gain = nn.Parameter(torch.tensor(4.0))
        self.maps = maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        light = self.gain * (self.norm(x).mean(1) - 0.5)
        logits = torch.stack((-light, light), dim=1)
        return logits if self.maps else logits.mean((2, 3))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_frozen_means_frozen(folder: Path, tmp_path: Path, task: str) -> None:
    torch.manual_seed(0)
    high_level = Mean(maps=task == "segmentation").train()
    before = state(high_level)
    recipe = JOINT.model_copy(
        update={"task": task, "ignore": 2, "test_folder": "roads" if task == "segmentation" else "pets.zip"}
    )
    result = train(recipe, folder, tmp_path / "run", accelerator="cpu", high_level=high_level, say=quiet)
    assert_same(before, state(high_level))
    assert high_level.training
    assert result.card is not None
    assert result.card.sigma_range == (0.1, 0.2)
    assert result.card.training.endswith("lam 0.5 with Mean")
    name = "miou" if task == "segmentation" else "top1"
    assert {"protocol", "psnr_26", "psnr_51", f"{name}_26", f"{name}_51"} == set(result.card.metrics)
    assert result.sheet is not None


def joint_task(recipe: JointRecipe, high_level: nn.Module) -> JointTask:
    torch.manual_seed(0)
    images, labels = [stripes(70, 0), stripes(180, 1)], [0, 1]
    denoiser = UNet(**recipe.arguments)
    return JointTask(denoiser, recipe, high_level, LabelledPool(images, labels), PatchPool(images))


def test_the_copy_inside_a_training_stays_bit_identical_while_the_denoiser_moves(tmp_path: Path) -> None:
    task = joint_task(JOINT, Mean().train())
    before, start = state(task.high_level), state(task.players["denoiser"])
    outcome = fit(task, JOINT, tmp_path, fabric=make_fabric(JOINT, "cpu"), say=quiet)
    assert_same(before, state(task.high_level))
    assert not any(p.requires_grad for p in task.high_level.parameters())
    moved = outcome.players["denoiser"].state_dict()
    assert any(not torch.equal(start[key], value) for key, value in moved.items())


def test_joint_loss_is_the_squared_error_and_the_weighted_cross_entropy(rng: torch.Generator) -> None:
    losses = {}
    for lam in (0.0, 0.5, 1.0):
        task = joint_task(JOINT.model_copy(update={"lam": lam}), Mean())
        ((player, loss),) = task.losses(task.players, Stage(patch=16, batch=8), rng.manual_seed(3))
        assert player == "denoiser"
        losses[lam] = float(loss.detach())
    # An untrained network returns the noisy image, whose squared error is the variance of the noise.
    assert losses[0.0] == pytest.approx((0.1**2 + 0.2**2) / 2, rel=0.4)
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * (losses[1.0] - losses[0.0]), rel=1e-4)
    assert losses[1.0] > losses[0.0] + 0.01
    task = joint_task(JOINT.model_copy(update={"lam": 0.0, "unit": 0.5}), Mean())
    ((_, loss),) = task.losses(task.players, Stage(patch=16, batch=8), rng.manual_seed(3))
    assert float(loss.detach()) == pytest.approx(4 * losses[0.0], rel=1e-5)


def test_without_weight_the_high_level_network_is_not_asked(rng: torch.Generator) -> None:
    class Refuses(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("called")

    task = joint_task(JOINT.model_copy(update={"lam": 0.0}), Refuses())
    assert len(list(task.losses(task.players, Stage(patch=16, batch=2), rng))) == 1


def test_every_crop_gets_one_of_the_levels_and_others_join_in(rng: torch.Generator) -> None:
    seen: list[tuple[tuple[int, ...], torch.Tensor]] = []

    class Recorder(nn.Module):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            seen.append((tuple(x.shape), sigma))
            return x

    task = joint_task(JOINT.model_copy(update={"other_patch": 8, "other_batch": 30}), Mean())
    list(task.losses({"denoiser": Recorder()}, Stage(patch=16, batch=50), rng))
    assert [shape for shape, _ in seen] == [(50, 3, 16, 16), (30, 3, 8, 8)]
    for _, sigma in seen:
        assert sorted(set(sigma.tolist())) == pytest.approx([0.1, 0.2])


def test_the_joint_gradient_makes_images_easier_to_classify(tmp_path: Path) -> None:
    recipe = JOINT.model_copy(update={"steps": 40, "lam": 5.0})
    errors = []
    for lam in (0.0, 5.0):
        task = joint_task(recipe.model_copy(update={"lam": lam}), Mean().eval())
        players = fit(
            task, task.recipe, tmp_path / str(lam), fabric=make_fabric(recipe, "cpu"), say=quiet
        ).players
        x, labels = task.labelled.draw(16, 16, torch.Generator().manual_seed(0))
        noisy = x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        errors.append(float(label_loss(task.high_level(players["denoiser"](noisy, 0.2)), labels)))
    assert errors[1] < errors[0]


def test_logits_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"logits of shape \(2, K, 4, 4\), got \(2, 3\)"):
        label_loss(torch.zeros(2, 3), torch.zeros(2, 4, 4, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"logits of shape \(2, K\)"):
        label_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.long))


def test_only_joint_recipes_take_a_high_level_network(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="a JointRecipe for a high-level network"):
        train(LEARN, folder, tmp_path / "run", accelerator="cpu", high_level=Mean(), say=quiet)


def test_networks_of_other_kinds_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a high-level architecture, got UNet"):
        train(
            LEARN.model_copy(update={"architecture": "UNet", "arguments": {"widths": [8]}}),
            folder,
            tmp_path / "run",
            accelerator="cpu",
            say=quiet,
        )
    with pytest.raises(TrainingError, match="a classifier or segmenter, got denoiser, a UNet"):
        load_high_level("denoiser")


def test_torchvision_networks_need_their_weights_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for name in ("vgg16", "deeplabv3_resnet50"):
        with pytest.raises(WeightsError, match=f"the weights of {name}"):
            load_high_level(name)
    with pytest.raises(UnknownNameError, match="vgg17"):
        load_high_level("vgg17")


def test_torchvision_networks_are_read_from_disk_and_normalise_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    def small(weights: None, **options: object) -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(3, 2, 1)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(models, "vgg16", small)
    (tmp_path / "checkpoints").mkdir()
    stored = nn.Conv2d(3, 2, 1)
    torch.save(stored.state_dict(), tmp_path / "checkpoints" / "vgg16-397923af.pth")
    x = torch.rand(1, 3, 4, 4)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = stored((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    torch.testing.assert_close(load_high_level("vgg16")(x), expected)


def test_confusion_counts_pairs_and_leaves_out_what_is_ignored() -> None:
    labels, found = torch.tensor([0, 0, 1, 2, 11]), torch.tensor([0, 1, 1, 0, 2])
    counts = confusion(found, labels, 3, ignore=11)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_mean_iou_agrees_with_sets_and_leaves_out_absent_classes(rng: torch.Generator) -> None:
    labels, found = (torch.randint(0, 4, (200,), generator=rng) for _ in range(2))
    ious = []
    for k in range(4):
        a = {i for i, v in enumerate(labels.tolist()) if v == k}
        b = {i for i, v in enumerate(found.tolist()) if v == k}
        ious.append(len(a & b) / len(a | b))
    counts = confusion(found, labels, 6)
    assert float(mean_iou(counts)) == pytest.approx(sum(ious) / 4, rel=1e-6)
    assert mean_iou(torch.stack((counts, counts))).shape == (2,)


def test_scores_of_labels_by_hand() -> None:
    images = [torch.full((1, 3, 4, 4), value) for value in (0.2, 0.9, 0.8, 0.1)]
    assert score_labels(Mean().eval(), images, [0, 1, 0, 0]) == 75.0
    half = torch.cat((torch.full((1, 3, 4, 2), 0.1), torch.full((1, 3, 4, 2), 0.9)), dim=3)
    truth = torch.tensor([[0, 0, 1, 1]] * 3 + [[1, 1, 1, 1]])
    # Class 0: 6 of 8 found pixels are right and 6 exist; class 1: 8 of 10.
    assert score_labels(Mean(maps=True).eval(), [half], [truth]) == pytest.approx(100 * (6 / 8 + 8 / 10) / 2)


def test_maps_are_coloured_by_class() -> None:
    shown = colour_map(torch.tensor([[0, 1], [10, 11]]))
    assert shown.shape == (3, 2, 2)
    assert shown[:, 1, 1].sum() == 0
    assert len({tuple(shown[:, i, j].tolist()) for i in (0, 1) for j in (0, 1)}) == 4


def test_shipped_recipes_name_the_classes_of_their_data() -> None:
    for name in ("classifier", "segmenter"):
        recipe = RECIPES[name]
        network = networks.ARCHITECTURES[recipe.architecture](**recipe.arguments)
        assert isinstance(network, Classifier | Segmenter)
        assert sum(p.numel() for p in network.parameters()) < 1_500_000
    denoiser = UNet(**RECIPES["joint-classification"].arguments)
    assert 2 * sum(p.numel() for p in denoiser.parameters()) < 3 * 2**20
    assert (RECIPES["joint-classification"].lam, RECIPES["joint-segmentation"].lam) == (0.25, 0.5)


def test_the_command_line_trains_a_joint_denoiser(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = train(LEARN, folder, tmp_path / "run", accelerator="cpu", say=quiet)
    recipe = JOINT.model_copy(update={"high_level": str(learned.weights), "lam": 0.25})
    monkeypatch.setitem(RECIPES, "joint-classification", recipe)
    words = f"train joint --task classification --sigma 15 30 45 60 --lam 0.125 --data {folder}"
    assert main([*words.split(), "--out", str(tmp_path / "joint"), "--accelerator", "cpu", "--quiet"]) == 0
    card = networks.load_file(tmp_path / "joint" / "tiny.safetensors").sigma_range
    assert card == pytest.approx((15 / 255, 60 / 255))
    text = (tmp_path / "joint" / "recipe.json").read_text()
    assert '"lam": 0.125' in text
    assert len(JointRecipe.model_validate_json(text).sigmas) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train joint --task detection", "a task out of 'classification', 'segmentation'"),
        ("train denoiser --task classification", "joint or xgan with --task"),
        ("train denoiser --lam 1", "a joint recipe for --sigma and --lam"),
        ("train denoiser 15 30", "numbers [15.0, 30.0] without --sigma"),
        ("train joint", "joint-classification"),
    ],
)
def test_wrong_joint_calls_are_refused(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*words.split(), "--data", str(tmp_path)]) in (1, 2)
    assert message in capsys.readouterr().err
