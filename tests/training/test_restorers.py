"""Recipes of restorers: damage on the fly, every recipe from end to end, ablations, exact resumption."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import invrestore as ir
from invrestore import networks, operators
from invrestore.cli.train import train as command
from invrestore.data import PatchPool
from invrestore.errors import TrainingError, UnknownNameError
from invrestore.networks import Cascade
from invrestore.priors import FeedForward
from invrestore.training import (
    RECIPES,
    Degrader,
    Optimizer,
    RestorerRecipe,
    RestorerStage,
    RestorerTask,
    ablate,
    adjust,
    load_checkpoint,
    train,
)
from invrestore.training._degradations import (
    Block,
    Blurred,
    Clutter,
    ColoredPixels,
    Compressed,
    Degradation,
    Noisy,
    Reduced,
    Sparse,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*"),
    pytest.mark.filterwarnings("ignore:training without the perceptual loss"),
]

NAMES = [name for name, recipe in RECIPES.items() if isinstance(recipe, RestorerRecipe)]

SMALL: dict[str, dict[str, Any]] = {
    "BiSkipGenerator": {"width": 8, "depth": 2},
    "ResidualGenerator": {"width": 4, "blocks": 1},
    "RestorationUNet": {"widths": [8, 16], "blocks": 1},
}


def quiet(line: str) -> None:
    pass


def small(recipe: RestorerRecipe, **changes: Any) -> RestorerRecipe:
    """The same recipe with tiny networks, crops and squares, for a few steps."""
    content = recipe.model_dump()
    arguments = content["arguments"]
    if recipe.architecture == "Cascade":
        inner = arguments.get("arguments", {})
        generator = arguments.get("generator", "InpaintingGenerator")
        tiny = {"widths": [8, 16, 16]} if generator != "RestorationUNet" else SMALL[generator]
        content["arguments"] = arguments | {"arguments": inner | tiny | _blocks(inner), "width": 8}
    else:
        content["arguments"] = arguments | SMALL[recipe.architecture]
    for k, stage in enumerate(content["stages"], 1):
        stage.update(patch=32, batch=4, until=k / len(content["stages"]))
    for d in (*content["degradations"], *content["tests"].values()):
        if "size" in d:
            d["size"] = (4, 16)
    if recipe.discriminator == "Critic":
        content["discriminator_arguments"] = {"widths": [4, 4, 4, 4, 4], "hidden": 8}
    else:
        content["discriminator_arguments"] = {"width": 4, "layers": 1}
    settings = {
        "start": "",
        "sources": [{"folder": "."}],
        "test_folder": "held-out",
        "test_split": None,
        "test_side": 32,
        "test_images": 2,
        "scales": (1.0, 1.0),
        "copies": 1,
        "precision": "32",
        "steps": 8,
        "minutes": None,
        "log_every": 1,
        "critic_steps": 1,
    }
    return RestorerRecipe.model_validate(content | settings | changes)


def _blocks(inner: dict[str, Any]) -> dict[str, Any]:
    return {"blocks": 1} if "blocks" in inner else {}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on and two to test on, with something to learn."""
    root = tmp_path_factory.mktemp("photos")
    (root / "held-out").mkdir()
    photo = ir.load_image(ir.assets.photo("astronaut")) if hasattr(ir, "assets") else None
    random = np.random.default_rng(0)
    for k in range(10):
        if photo is not None:
            pixels = photo[0, :, 40 * (k % 4) : 40 * (k % 4) + 48, 40 * (k // 4) : 40 * (k // 4) + 56]
            values = (pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        else:
            coarse = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            values = np.asarray(Image.fromarray(coarse).resize((56, 48), Image.Resampling.BICUBIC))
        folder = root / "held-out" if k >= 8 else root
        Image.fromarray(values).save(folder / f"{k}.png")
    return root


def recipe_of(name: str) -> RestorerRecipe:
    recipe = RECIPES[name]
    assert isinstance(recipe, RestorerRecipe)
    return recipe


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# Recipes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_from_end_to_end_and_its_network_restores(
    name: str, photos: Path, tmp_path: Path
) -> None:
    recipe = small(recipe_of(name))
    result = train(recipe, photos, tmp_path / "run", accelerator="cpu", say=quiet)
    assert result.card is not None
    assert result.weights is not None
    assert result.sheet is not None
    assert [d["kind"] for d in result.card.degradations] == [d.kind for d in recipe.degradations]
    assert {f"psnr_{test}" for test in recipe.tests} <= result.card.metrics.keys()
    network = networks.load_file(result.weights)
    prior = FeedForward(network, degradations=result.card.degradations)
    restored = prior.restore(torch.rand(1, 3, 20, 24), ir.operators.Identity())
    assert restored.shape == (1, 3, 20, 24)
    assert restored.isfinite().all()
    with Image.open(result.sheet) as sheet:
        assert sheet.size == (2 * 3 * 32, 32 * len(recipe.tests))
    seen = {key for line in log(tmp_path / "run") for key in line if key.startswith("loss_")}
    assert ("loss_discriminator" in seen) == recipe.adversarial
    trained = {stage.trains for stage in recipe.stages}
    assert {"loss_generator_refiner" if t == "both" else f"loss_{t}" for t in trained} <= seen


LEARNT: dict[str, tuple[Degradation, ...]] = {
    "unified-cpu": (Noisy(sigma=(0.2, 0.2)),),
    "xgan-colornoise-cpu": (ColoredPixels(),),
    "cascade-cpu": (Block(size=(8, 16)),),
}


@pytest.mark.parametrize("name", LEARNT)
def test_losses_fall(name: str, photos: Path, tmp_path: Path) -> None:
    fast = Optimizer(kind="adamw", lr=5e-3, warmup=0)
    recipe = small(recipe_of(name), steps=80, optimizer=fast, degradations=LEARNT[name])
    stage = recipe.stages[0].model_copy(update={"until": 1.0})
    recipe = recipe.model_copy(update={"stages": (stage,)})
    if recipe.architecture == "Cascade":
        recipe = recipe.model_copy(update={"arguments": recipe.arguments | {"refined": False}})
    train(recipe, photos, tmp_path / "run", accelerator="cpu", say=quiet)
    losses = [line["loss_generator"] for line in log(tmp_path / "run")]
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:5])


def test_recipes_for_a_gpu_hold_the_papers_networks() -> None:
    def built(name: str) -> torch.nn.Module:
        recipe = recipe_of(name)
        return networks.ARCHITECTURES[recipe.architecture](**recipe.arguments)

    assert isinstance(built("unified"), networks.BiSkipGenerator)
    assert len(built("unified").convs) == 15
    for name in ("xgan-sparse", "xgan-colornoise", "xgan-block"):
        assert isinstance(built(name), networks.ResidualGenerator)
        assert recipe_of(name).discriminator == "MultiScaleDiscriminator"
    cascade = built("cascade")
    assert isinstance(cascade, Cascade)
    assert isinstance(cascade.generator, networks.InpaintingGenerator)
    assert [stage.trains for stage in recipe_of("cascade").stages] == [
        "generator",
        "generator",
        "refiner",
        "both",
    ]
    assert recipe_of("xgan-sparse").stages[0].points > 0
    assert recipe_of("xgan-colornoise").stages[0].points == 0


@pytest.mark.parametrize("name", ["cascade-cpu", "xgan-sparse-cpu"])
def test_training_that_was_cut_repeats_an_uninterrupted_one(name: str, photos: Path, tmp_path: Path) -> None:
    recipe = small(recipe_of(name))
    train(recipe, photos, tmp_path / "whole", accelerator="cpu", say=quiet)
    from invrestore.training import fit, make_fabric, prepare

    prepare(recipe, photos, tmp_path / "parts")
    for pause in (2, 5, None):
        torch.manual_seed(recipe.seed)
        network = networks.ARCHITECTURES[recipe.architecture](**recipe.arguments)
        pack = tmp_path / "parts" / "train-images.safetensors"
        task = RestorerTask.create(network, recipe, pack, None, torch.device("cpu"))
        fabric = make_fabric(recipe, "cpu")
        fit(task, recipe, tmp_path / "parts", fabric=fabric, resume=True, pause_step=pause, say=quiet)
    whole, parts = (
        load_checkpoint(tmp_path / part / "checkpoint.safetensors").tensors for part in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_stages_move_only_the_networks_they_train(photos: Path, tmp_path: Path) -> None:
    recipe = small(recipe_of("cascade-cpu"))
    network = networks.ARCHITECTURES["Cascade"](**recipe.arguments)
    pool = PatchPool([np.full((40, 40, 3), 99, dtype=np.uint8)])
    task = RestorerTask(network, recipe, pool)
    seen = []
    for stage in recipe.stages:
        rng = torch.Generator().manual_seed(0)
        named = []
        for players, loss in task.losses(task.players, stage, rng):
            named.append(players)
            for player in task.players.values():
                player.zero_grad()
            loss.backward()
            for name in (players,) if isinstance(players, str) else players:
                assert any(p.grad is not None for p in task.players[name].parameters())
        seen.append(named)
    assert seen == [
        ["generator"],
        ["discriminator", "generator"],
        ["refiner"],
        [("generator", "refiner")],
    ]
    assert all(p.requires_grad for p in task.players["discriminator"].parameters())


# Ablations --------------------------------------------------------------------------------------------------


def test_ablations_are_the_papers() -> None:
    recipe = recipe_of("cascade-cpu")
    direct = ablate(recipe, without="pretraining")
    assert [(s.trains, s.until) for s in direct.stages] == [("both", 1.0)]
    assert direct.stages[0].adversarial > 0
    assert direct.name == "cascade-cpu-no-pretraining"
    whole = recipe_of("cascade")
    assert ablate(whole, without="pretraining").stages[0].perceptual == whole.stages[1].perceptual > 0
    alone = ablate(recipe, gan_only=True)
    assert {s.trains for s in alone.stages} == {"generator"}
    assert alone.stages[-1].until == 1.0
    assert alone.arguments["refined"] is False
    assert ablate(recipe_of("xgan-sparse"), point_loss="none").point_loss == "none"
    assert ablate(recipe) is recipe


@pytest.mark.parametrize("options", [{"without": "pretraining"}, {"gan_only": True}])
def test_ablations_train(options: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    recipe = ablate(small(recipe_of("cascade-cpu"), steps=2), **options)
    assert train(recipe, photos, tmp_path, accelerator="cpu", say=quiet).weights is not None


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("unified", {"gan_only": True}, "expected a cascade, got unified"),
        ("cascade", {"gan_only": True, "without": "pretraining"}, "one ablation at a time"),
        ("unified", {"point_loss": "l1"}, "a corresponding-point loss, got unified"),
        ("denoiser", {"gan_only": True}, "the recipe of a restorer"),
    ],
)
def test_ablations_of_what_is_not_there_are_refused(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        ablate(RECIPES[name], **options)


def test_command_trains_ablations(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.json").write_text(small(recipe_of("cascade-cpu")).model_dump_json())
    options = {"data": photos, "out": tmp_path / "run", "accelerator": "cpu", "steps": 2}
    command(str(tmp_path / "mine.json"), gan_only=True, **options)
    assert "cascade-gan-only.safetensors after 2 steps" in capsys.readouterr().out
    with pytest.raises(UnknownNameError, match="part out of 'pretraining'"):
        command("cascade-cpu", without="pre-training", **options)
    with pytest.raises(UnknownNameError, match="distance out of 'l1', 'l2', 'none'"):
        command("xgan-sparse-cpu", point_loss="l3", **options)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stages": [{"patch": 32, "batch": 1}]}, "a loss with a weight above 0"),
        (
            {"stages": [{"patch": 32, "batch": 1, "l1": 1, "matching": 1}]},
            "needs the MultiScaleDiscriminator",
        ),
        ({"stages": [{"patch": 32, "batch": 1, "l1": 1, "trains": "both"}]}, "only a Cascade"),
        ({"degradations": ()}, "at least 1 item"),
        (
            {
                "stages": [
                    {"until": 0.5, "patch": 32, "batch": 1, "adversarial": 1},
                    {"patch": 64, "batch": 1, "adversarial": 1},
                ]
            },
            "a Critic has one size",
        ),
        ({"discriminator": "MultiScaleDiscriminator"}, "Wasserstein losses need a Critic"),
    ],
)
def test_recipes_that_do_not_fit_together_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        adjust(recipe_of("unified"), **changes)


def test_clipped_critics_stay_clipped_and_use_their_own_optimiser(photos: Path, tmp_path: Path) -> None:
    recipe = small(recipe_of("cascade"), steps=5)
    train(recipe, photos, tmp_path, accelerator="cpu", say=quiet)
    tensors = load_checkpoint(tmp_path / "checkpoint.safetensors").tensors
    assert recipe.optimizer_of("discriminator").kind == "rmsprop"
    assert any(key.endswith("square_avg") for key in tensors if "discriminator" in key)
    weights = [v for k, v in tensors.items() if k.startswith("network/discriminator") and "weight" in k]
    # Clipped after each update but the last, which moves a weight by little.
    assert max(float(w.abs().max()) for w in weights) < 0.02


# Damage -----------------------------------------------------------------------------------------------------

KINDS: tuple[Degradation, ...] = (
    Noisy(sigma=(0.1, 0.1)),
    Blurred(side=(5, 8)),
    Compressed(quality=(10, 40)),
    Reduced(sigma=(0.0, 0.02)),
    Sparse(),
    Block(size=(6, 12), centred=0.0, told=0.5),
    Clutter(size=(4, 8), told=0.5),
    ColoredPixels(),
)


@pytest.fixture
def clean(rng: torch.Generator) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(torch.rand(8, 3, 34, 34, generator=rng), 3, 1)


@pytest.fixture(params=KINDS, ids=lambda d: d.kind)
def kind(request: pytest.FixtureRequest) -> Degradation:
    return request.param


@pytest.mark.parametrize("informed", [False, True])
def test_damage_belongs_to_the_image_it_is_compared_with(
    kind: Degradation, informed: bool, clean: torch.Tensor
) -> None:
    d = Degrader([kind], informed=informed)(clean, torch.Generator().manual_seed(3))
    assert d.input.shape == (8, 8 if informed else 3, 32, 32)
    assert d.known.shape == (8, 1, 32, 32)
    own = (d.view - clean).abs().mean((1, 2, 3))
    other = (d.view - clean.roll(1, 0)).abs().mean((1, 2, 3))
    if kind.kind not in ("sparse", "colornoise"):
        assert bool((own < other).all())
    # What is measured is true.
    torch.testing.assert_close(d.measured, clean * d.known)


def test_damage_repeats_with_the_seed_and_differs_without(kind: Degradation, clean: torch.Tensor) -> None:
    degrade = Degrader([kind], informed=True)
    first, second, third = (degrade(clean, torch.Generator().manual_seed(s)).input for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_kinds_are_mixed_by_weight(clean: torch.Tensor) -> None:
    kinds = (Block(size=(8, 8), told=1.0, weight=3.0), ColoredPixels(weight=1.0))
    d = Degrader(kinds, informed=False)(clean.repeat(50, 1, 1, 1), torch.Generator().manual_seed(0))
    told = d.known.flatten(1).any(1).double().mean()
    assert 0.68 < float(told) < 0.82


def test_numbers_lie_in_their_ranges(clean: torch.Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    few = Degrader([Sparse(keep=(0.02, 0.1))], informed=True)(clean, rng).known.mean((1, 2, 3))
    assert 0.018 <= few.min() < few.max() <= 0.102
    hit = Degrader([ColoredPixels(amount=(0.5, 0.5))], informed=True)(clean, rng)
    assert 0.45 < float((hit.view != clean).any(1).double().mean()) < 0.55
    noisy = Degrader([Noisy(sigma=(0.2, 0.2))], informed=True)(clean, rng)
    assert abs(float((noisy.view - clean).std()) - 0.2) < 0.01
    assert 0.1 < float(noisy.input[:, 7].min()) <= float(noisy.input[:, 7].max()) < 0.3


def test_reduced_images_have_one_colour_for_each_measured_pixel(clean: torch.Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    view = Degrader([Reduced(factor=(4,), sigma=(0.05, 0.05))], informed=True)(clean, rng).view
    blocks = view.unfold(2, 4, 4).unfold(3, 4, 4)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    exact = operators.Downsample(4)(clean)
    assert abs(float((blocks[..., 0, 0] - exact).std()) - 0.05) < 0.005
    # A factor that does not divide the crop keeps the size of the crop.
    assert Degrader([Reduced(factor=(3,))], informed=True)(clean, rng).view.shape == clean.shape


def test_blur_kernels_are_centred_and_keep_the_brightness() -> None:
    bank = Degrader([Blurred(side=(5, 12), width=(0.5, 2.0))], informed=True).kernels[0]
    assert bank.shape == (128, 1, 13, 13)
    torch.testing.assert_close(bank.sum((1, 2, 3)), torch.ones(128))
    place = torch.arange(13.0)
    centre = (bank.sum(2) * place).sum((1, 2))
    assert float((centre - 6).abs().max()) < 0.51


def test_upright_pools_never_turn_images_upside_down_and_share_images_evenly() -> None:
    ramp = np.tile(np.arange(32, dtype=np.uint8)[:, None, None], (1, 32, 3))
    large = np.full((200, 200, 3), 255, dtype=np.uint8)
    pool = PatchPool([ramp, large], by_image=True, upright=True)
    crops = pool.crops(200, 16, torch.Generator().manual_seed(0))
    ramps = crops[crops[:, 0, 0, 0] < 100].long()
    assert 70 < len(ramps) < 130
    assert bool((ramps[:, :, 1:] - ramps[:, :, :-1] == 1).all())


def test_architecture_that_does_not_restore_is_refused(photos: Path, tmp_path: Path) -> None:
    recipe = small(recipe_of("unified-cpu")).model_copy(
        update={"architecture": "UNet", "arguments": {"channels": 3, "widths": [8, 16]}}
    )
    with pytest.raises(TrainingError, match="a restorer architecture, got UNet"):
        train(recipe, photos, tmp_path, accelerator="cpu", say=quiet)


def test_cascade_without_refiner_cannot_train_it() -> None:
    recipe = small(recipe_of("cascade-cpu"))
    network = networks.ARCHITECTURES["Cascade"](**(recipe.arguments | {"refined": False}))
    pool = PatchPool([np.zeros((40, 40, 3), dtype=np.uint8)])
    with pytest.raises(TrainingError, match=r"its second network.*gan_only=True"):
        RestorerTask(network, recipe, pool)


def test_perceptual_loss_is_left_out_with_a_warning_where_vgg_is_not_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    recipe = small(recipe_of("unified"))
    pool = PatchPool([np.zeros((40, 40, 3), dtype=np.uint8)])
    network = networks.ARCHITECTURES[recipe.architecture](**recipe.arguments)
    with pytest.warns(UserWarning, match="without the perceptual loss"):
        task = RestorerTask(network, recipe, pool, torch.rand(1, 3, 32, 32))
    assert task.perceptual is None
    assert "trained without the perceptual loss" in task.protocol


def test_stage_is_typed() -> None:
    assert isinstance(recipe_of("unified").stages[0], RestorerStage)


def test_gradient_penalty_trains_in_bfloat16(photos: Path, tmp_path: Path) -> None:
    recipe = small(recipe_of("unified-cpu"), precision="bf16", steps=3, tests={})
    recipe = recipe.model_copy(update={"stages": (recipe.stages[-1],)})
    assert recipe.adversary == "wasserstein-penalty"
    train(recipe, photos, tmp_path, accelerator="cpu", say=quiet)
    assert all(np.isfinite(line["loss_discriminator"]) for line in log(tmp_path))


def test_training_that_was_killed_repeats_an_uninterrupted_one(photos: Path, tmp_path: Path) -> None:
    recipe = small(recipe_of("xgan-colornoise-cpu"), steps=40, save_minutes=1e-6)
    train(recipe, photos, tmp_path / "whole", accelerator="cpu", say=quiet)
    (tmp_path / "mine.json").write_text(recipe.model_dump_json())
    folder = tmp_path / "killed"
    # Sums are rounded by how many threads share them.
    code = (
        f"import sys, torch; torch.set_num_threads({torch.get_num_threads()})\n"
        "from invrestore.training import load_recipe, train\n"
        "train(load_recipe(sys.argv[1]), sys.argv[2], sys.argv[3], accelerator='cpu')"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "mine.json"), str(photos), str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wanted = int(np.random.default_rng().integers(5, 25))
    while process.poll() is None and len(_lines(folder)) < wanted:
        time.sleep(0.002)
    process.kill()
    process.wait()
    done = len(_lines(folder))
    assert wanted <= done < 40
    train(recipe, photos, folder, accelerator="cpu", resume=True, say=quiet)
    curves = [
        {line["step"]: line["loss_generator"] for line in log(tmp_path / part)}
        for part in ("whole", "killed")
    ]
    assert curves[0] == curves[1]
    whole, killed = (
        load_checkpoint(tmp_path / part / "checkpoint.safetensors").tensors for part in ("whole", "killed")
    )
    assert [key for key in whole if not torch.equal(whole[key], killed[key])] == []


def _lines(folder: Path) -> list[str]:
    path = folder / "log.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_card_names_the_features_of_the_perceptual_loss(photos: Path, tmp_path: Path) -> None:
    result = train(
        small(recipe_of("xgan-sparse-paper-cpu"), steps=2), photos, tmp_path, accelerator="cpu", say=quiet
    )
    assert result.card is not None
    assert result.card.training.endswith(
        "; perceptual features of classifier at relu1_1 0.0625, relu2_1 0.125, relu3_1 0.25, relu4_1 1"
    )
