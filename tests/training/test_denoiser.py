import math

import numpy as np
import pytest
import torch

from invrestore.data import PatchPool
from invrestore.networks import UNet
from invrestore.training import DenoiserRecipe, DenoiserTask, Optimizer, Stage, score_denoiser
from invrestore.training._degradations import Noisy, Reduced


def tiny_recipe(**changes: object) -> DenoiserRecipe:
    settings = {
        "name": "tiny",
        "arguments": {"channels": 3, "widths": [8, 16], "blocks": 1},
        "stages": (Stage(patch=16, batch=4),),
        "optimizer": Optimizer(kind="adamw", lr=1e-2, warmup=0),
        "steps": 40,
        "precision": "32",
    }
    return DenoiserRecipe.model_validate(settings | changes)


@pytest.fixture
def pool() -> PatchPool:
    ramp = np.linspace(0, 255, 24, dtype=np.uint8)
    return PatchPool([np.stack([*np.meshgrid(ramp, ramp), np.full((24, 24), 90, np.uint8)], axis=2)])


class Recorder(torch.nn.Module):
    """Remembers what it was asked to denoise."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []
        self.levels: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x)
        self.levels.append(sigma)
        return x


def test_crops_are_noised_at_the_level_the_network_is_told(pool: PatchPool, rng: torch.Generator) -> None:
    recorder = Recorder()
    task = DenoiserTask(recorder, tiny_recipe(sigma=(0.1, 0.1), loss="mse"), pool)
    ((player, loss),) = task.losses({"denoiser": recorder}, Stage(patch=20, batch=64), rng)
    assert player == "denoiser"
    assert float(loss) == pytest.approx(0.01, rel=0.02)
    assert recorder.levels[0].tolist() == pytest.approx([0.1] * 64)
    assert recorder.inputs[0].shape == (64, 3, 20, 20)
    assert recorder.inputs[0].min() < 0


def test_l1_loss_of_gaussian_noise_is_its_mean_deviation(pool: PatchPool, rng: torch.Generator) -> None:
    recorder = Recorder()
    task = DenoiserTask(recorder, tiny_recipe(sigma=(0.1, 0.1), loss="l1"), pool)
    ((_, loss),) = task.losses({"denoiser": recorder}, Stage(patch=20, batch=64), rng)
    assert float(loss) == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.02)


def test_log_mse_counts_ratios_of_errors_at_every_level(pool: PatchPool, rng: torch.Generator) -> None:
    recorder = Recorder()
    found = []
    for sigma in (0.05, 0.2):
        task = DenoiserTask(recorder, tiny_recipe(sigma=(sigma, sigma), loss="log-mse"), pool)
        ((_, loss),) = task.losses({"denoiser": recorder}, Stage(patch=20, batch=64), rng)
        assert float(loss) == pytest.approx(math.log(sigma**2), abs=0.02)
        found.append(float(loss))
    assert found[1] - found[0] == pytest.approx(math.log(16), abs=0.03)


class Half(torch.nn.Module):
    """Halves its input and adds a ramp, which flips and turns of the input do not move."""

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / 2 + self.slope * torch.linspace(-1, 1, x.shape[-1])


def test_a_taught_network_is_compared_with_the_clean_image_and_its_own_former_answer(
    pool: PatchPool,
) -> None:
    network, stage = Half(), Stage(patch=20, batch=8)
    losses = []
    for taught in (0.0, 0.7):
        task = DenoiserTask(network, tiny_recipe(loss="mse", taught=taught, start="denoiser"), pool)
        ((_, loss),) = task.losses({"denoiser": network}, stage, torch.Generator().manual_seed(0))
        losses.append(float(loss))
    # An answer that turns with the image is its own mean: 0.3 of the distance to the clean image is left.
    assert losses[1] == pytest.approx(0.3**2 * losses[0], rel=1e-4)


def test_the_teacher_averages_its_answers_over_flips_and_turns(pool: PatchPool) -> None:
    network = Half(slope=0.1)
    task = DenoiserTask(network, tiny_recipe(loss="mse", taught=0.9, start="denoiser"), pool)
    x = torch.rand(8, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    lessons = [task._lesson(x, torch.zeros(8), torch.Generator().manual_seed(k)) for k in range(200)]
    ramps = [lesson - x / 2 for lesson in lessons]
    assert max(float(ramp.abs().max()) for ramp in ramps) <= 0.1 + 1e-6
    assert float(torch.stack(ramps).mean(dim=0).abs().max()) < 0.015
    network.slope = 5.0
    assert torch.equal(task._lesson(x, torch.zeros(8), torch.Generator().manual_seed(0)), lessons[0])


def test_nobody_is_taught_without_weights_to_start_from() -> None:
    with pytest.raises(ValueError, match="weights to start from"):
        tiny_recipe(taught=0.5)


def heard(pool: PatchPool, steps: int = 60, **changes: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops and levels that a network was shown over many steps."""
    recorder = Recorder()
    settings = {"sigma": (0.1, 0.1), "loss": "mse"} | changes
    task = DenoiserTask(recorder, tiny_recipe(**settings), pool)
    for seed in range(steps):
        rng = torch.Generator().manual_seed(seed)
        list(task.losses({"denoiser": recorder}, Stage(patch=20, batch=8), rng))
    size = (8, 1, 20, 20)
    levels = [
        level.reshape(8, 1, *level.shape[2:]) if level.ndim == 4 else level.view(8, 1, 1, 1)
        for level in recorder.levels
    ]
    return torch.cat(recorder.inputs), torch.cat([level.expand(size) for level in levels])


def flat(height: int = 24) -> PatchPool:
    """Images of one gray only."""
    return PatchPool([np.full((height, height, 3), 128, np.uint8)])


def test_the_asked_share_of_crops_has_noise_that_differs_from_pixel_to_pixel() -> None:
    noisy, levels = heard(flat(), maps=0.5)
    varied = levels.flatten(1).amax(1) > levels.flatten(1).amin(1)
    assert 0.4 < float(varied.float().mean()) < 0.55
    assert levels.min() >= 0
    assert levels.max() <= 0.1 + 1e-6
    # Most of those crops have pixels without any noise, and those are shown exactly.
    without = levels == 0
    assert float(without[varied].flatten(1).any(1).float().mean()) > 0.4
    noise = noisy - 128 / 255
    assert float(noise[without.expand_as(noise)].abs().max()) < 1e-6
    told = levels.expand_as(noise)
    for low, high in ((0.01, 0.05), (0.05, 0.09), (0.095, 0.11)):
        these = (told > low) & (told < high)
        assert float((noise[these] / told[these]).std()) == pytest.approx(1.0, abs=0.03)


def test_without_maps_every_crop_has_one_level(pool: PatchPool) -> None:
    _, levels = heard(pool, steps=3, sigma=(0.0, 0.3))
    assert float((levels - levels[..., :1, :1]).abs().max()) == 0


def test_gray_crops_are_shown_as_the_prior_shows_gray_images(pool: PatchPool) -> None:
    noisy, levels = heard(pool, gray=0.5)
    gray = (noisy - noisy[:, :1]).abs().flatten(1).amax(1) == 0
    assert 0.4 < float(gray.float().mean()) < 0.6
    assert float(levels.std()) < 1e-6
    noisy, _ = heard(flat(), gray=1.0)
    assert float((noisy - 128 / 255).std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_only_crops_of_one_level_are_taught(pool: PatchPool) -> None:
    network, stage = Half(), Stage(patch=20, batch=8)
    losses = []
    for taught in (0.0, 0.7):
        recipe = tiny_recipe(loss="mse", taught=taught, start="denoiser", maps=1.0)
        task = DenoiserTask(network, recipe, pool)
        ((_, loss),) = task.losses({"denoiser": network}, stage, torch.Generator().manual_seed(0))
        losses.append(float(loss))
    assert losses[0] == losses[1]


def test_the_asked_share_of_crops_is_seen_as_plug_and_play_shows_them() -> None:
    reduced = {"plugged": 0.5, "problems": (Reduced(factor=(2,), sigma=(0, 0)),), "plugged_steps": 1}
    noisy, levels = heard(flat(), gray=0.25, **reduced)
    # They are told the first strength of the schedule, and have the mean that was measured; the others have noise.
    plugged = levels[:, 0, 0, 0] > 0.2
    assert 0.4 < float(plugged.float().mean()) < 0.6
    assert levels[plugged].unique().tolist() == pytest.approx([70 / 255])
    assert noisy[plugged].mean((1, 2, 3)).tolist() == pytest.approx(
        [128 / 255] * int(plugged.sum()), abs=0.02
    )
    assert levels[~plugged].unique().tolist() == pytest.approx([0.1])
    assert float((noisy[~plugged] - 128 / 255).flatten(1).std(1).min()) > 0.04


def test_crops_that_plug_and_play_shows_are_compared_with_the_clean_ones(pool: PatchPool) -> None:
    recipe = tiny_recipe(
        loss="mse", plugged=1.0, problems=(Noisy(sigma=(0.1, 0.1)),), taught=0.7, start="denoiser"
    )
    network, stage = Half(), Stage(patch=20, batch=64)
    task = DenoiserTask(network, recipe, pool)
    ((_, loss),) = task.losses({"denoiser": network}, stage, torch.Generator().manual_seed(0))
    clean = pool.crops(64, 20, torch.Generator().manual_seed(0)).float() / 255
    # Half of a noisy image differs from the clean one by half of the image and half of the noise.
    assert float(loss) == pytest.approx(float((clean / 2).square().mean()) + 0.05**2, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": 0.7, "gray": 0.4}, "add up to 1"),
        ({"gray": 0.7, "plugged": 0.4, "problems": (Reduced(),)}, "add up to 1"),
        ({"plugged": 0.4}, "go together"),
        ({"problems": (Reduced(),)}, "go together"),
        ({"plugged": 0.4, "problems": (Reduced(),), "plugged_steps": 0}, "plugged_steps"),
        ({"gray": 0.1, "arguments": {"channels": 1}}, "one channel"),
        ({"maps": -0.1}, "maps"),
        ({"taught_views": 9}, "taught_views"),
    ],
)
def test_shares_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_recipe(**changes)


def test_maps_and_gray_images_are_scored(pool: PatchPool) -> None:
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    recorder = Recorder()
    task = DenoiserTask(recorder, tiny_recipe(maps=0.3, gray=0.1, test_sigmas=(0.1,)), pool, [image])
    scores = task.evaluate({"denoiser": recorder})
    assert set(scores) == {"psnr_26", "psnr_half", "psnr_gray"}
    assert "half of the pixels" in task.protocol
    assert "luma" in task.protocol
    clean = recorder.levels[-2]
    assert sorted(clean.unique().tolist()) == pytest.approx([0, 50 / 255])
    assert float((clean == 0).float().mean()) == pytest.approx(0.5, abs=0.1)


def test_levels_cover_their_range_and_favour_low_ones_on_request(
    pool: PatchPool, rng: torch.Generator
) -> None:
    recorder = Recorder()
    for power in (1.0, 2.0):
        task = DenoiserTask(recorder, tiny_recipe(sigma=(0.1, 0.3), sigma_power=power), pool)
        list(task.losses({"denoiser": recorder}, Stage(patch=4, batch=2000), rng))
    for levels, mean in zip(recorder.levels, (0.2, 0.1 + 0.2 / 3), strict=True):
        assert levels.min() >= 0.1
        assert levels.max() <= 0.3
        assert float(levels.mean()) == pytest.approx(mean, abs=0.005)


def test_gray_networks_see_luma(pool: PatchPool, rng: torch.Generator) -> None:
    recorder = Recorder()
    recipe = tiny_recipe(sigma=(0.0, 0.0), arguments={"channels": 1})
    list(DenoiserTask(recorder, recipe, pool).losses({"denoiser": recorder}, Stage(patch=24, batch=1), rng))
    expected = (pool.pixels.float() / 255) @ torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(recorder.inputs[0].flatten().sort().values, expected.sort().values)


def test_one_image_can_be_overfitted(pool: PatchPool) -> None:
    torch.manual_seed(0)
    network = UNet(channels=3, widths=(8, 16), blocks=1)
    task = DenoiserTask(network, tiny_recipe(sigma=(0.2, 0.2)), pool)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for step in range(60):
        rng = torch.Generator().manual_seed(step)
        ((_, loss),) = task.losses(task.players, Stage(patch=16, batch=4), rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.35 * losses[0]


def test_score_of_doing_nothing_is_the_noise_level() -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    score = score_denoiser(lambda x, sigma: x, [image, image], 25 / 255)
    assert score == pytest.approx(20 * math.log10(255 / 25), abs=0.05)


def test_score_rounds_to_eight_bits() -> None:
    image = torch.full((1, 1, 8, 8), 100 / 255)
    assert score_denoiser(lambda x, sigma: torch.full_like(x, 100.3 / 255), [image], 0.1) > 100


def test_evaluation_and_samples_use_the_test_images(pool: PatchPool) -> None:
    images = [torch.rand(1, 3, 40, 250), torch.rand(1, 3, 200, 30)]
    network = UNet(channels=3, widths=(4,), blocks=1)
    task = DenoiserTask(network, tiny_recipe(test_sigmas=(0.1, 0.2)), pool, images)
    scores = task.evaluate(task.players)
    assert list(scores) == ["psnr_26", "psnr_51"]
    sheet = task.samples(task.players)
    assert sheet is not None
    assert sheet.shape == (3, 2 * 192, 2 * 3 * 192)
    assert 0 <= float(sheet.min()) <= float(sheet.max()) <= 1


def test_without_test_images_there_is_nothing_to_score(pool: PatchPool) -> None:
    task = DenoiserTask(UNet(channels=3, widths=(4,), blocks=1), tiny_recipe(), pool)
    assert task.evaluate(task.players) == {}
    assert task.samples(task.players) is None
