"""Tables of the restorers: files of samples, JPEG of equal size, the restorer as a prior, orderings of ablations."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.quality import compress_table, restoration_prior, restorer_orderings
from invrestore import assets, io, priors
from invrestore.bench._degradations import Noisy, Sparse
from invrestore.networks import RestorationUNet
from invrestore.training import RECIPES, adjust
from tests.training.test_restorers import small

# A few pixels as a file ---------------------------------------------------------------------------------------


@pytest.fixture
def photo():
    return io.load_image(assets.photo(assets.PHOTOS[0]))[..., 100:164, 100:164]


@pytest.fixture
def restorer():
    torch.manual_seed(0)
    network = RestorationUNet(widths=(4, 8), blocks=1, informed=True).eval().requires_grad_(False)
    return priors.FeedForward(network)


def test_sampled_picture_keeps_its_pixels_and_the_size_is_that_of_the_file(photo, restorer):
    size, found = compress_table.sampled(photo, 0.1, True, restorer)
    assert found.shape == photo.shape
    same = ((found - photo).abs() < 1e-6).all(1).sum()
    assert int(same) >= round(0.1 * 64 * 64)
    assert 0.1 * 64 * 64 < size < 64 * 64


def test_jpeg_is_the_best_that_fits(photo):
    size, found = compress_table.jpeg_within(photo, 1500)
    assert size <= 1500
    larger, better = compress_table.jpeg_within(photo, 4000)
    assert size < larger <= 4000
    assert (better - photo).square().mean() < (found - photo).square().mean()
    assert compress_table.jpeg_within(photo, 100) is None


def test_summary_counts_pictures_whose_jpeg_is_larger(photo, restorer):
    found = {r["way"]: r for r in compress_table.summary([photo, photo], 0.01, restorer)}
    assert found["guided"]["n"] == found["uniform"]["n"] == 2
    assert found["jpeg"]["n"] == 0
    assert math.isnan(found["jpeg"]["psnr"])
    records = [{"images": "Photos", **record} for record in found.values()]
    table = compress_table.markdown(records)
    assert "| 1 % |" in table
    assert "none so small |" in table


# As a prior -----------------------------------------------------------------------------------------------------


def test_settings_change_one_part_of_the_first_at_a_time():
    for trials in restoration_prior.TRIALS.values():
        first = trials[0]
        assert len(set(trials)) == len(trials)
        for setting in trials[1:]:
            changed = [
                f for f in dataclasses.fields(setting) if getattr(setting, f.name) != getattr(first, f.name)
            ]
            assert len(changed) == 1 or setting.method != first.method


def test_qualities_go_from_first_to_last(restorer):
    prior = restoration_prior.Setting((5, 95)).prior(restorer)
    qualities = [operator.quality for operator in prior.operators]
    assert (qualities[0], qualities[-1]) == (5, 95)
    assert qualities == sorted(qualities)


@pytest.mark.parametrize("method", ["hqs", "red", "gradient"])
def test_restorer_is_measured_as_a_prior_with_every_solver(photo, restorer, method):
    degradation = Noisy(0.05) if method == "gradient" else Sparse(0.5)
    setting = restoration_prior.Setting((20, 40), 0.05, transforms=1, method=method, steps=2)
    found = restoration_prior.mean_psnr([photo], [degradation], restorer, setting)
    assert 15 < found < 50


def test_mean_is_over_images_and_degradations(photo):
    prior = priors.Wavelet()
    each = [restoration_prior.mean_psnr([photo], [Sparse(keep)], prior) for keep in (0.3, 0.6)]
    both = restoration_prior.mean_psnr([photo], [Sparse(0.3), Sparse(0.6)], prior)
    assert both == pytest.approx(sum(each) / 2, abs=1e-3)


# Orderings ------------------------------------------------------------------------------------------------------


def write_card(out, recipe, seed, **metrics):
    folder = restorer_orderings.folder_of(out, recipe, seed)
    folder.mkdir(parents=True)
    name = recipe.checkpoint or recipe.name
    content = {"metrics": {"protocol": "words", "psnr_hole_input": 5.0, **metrics}}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("ordering", restorer_orderings.VARIANTS)
def test_variants_are_different_recipes(ordering):
    recipe = adjust(RECIPES[restorer_orderings.RECIPE[ordering]], minutes=1.0)
    chosen = restorer_orderings.variants(recipe, ordering)
    assert len({one.name for one in chosen.values()}) == 3
    assert all(one.minutes == 1.0 for one in chosen.values())


def test_table_says_which_seeds_agree(tmp_path):
    recipe = adjust(RECIPES["cascade-cpu"], steps=5)
    chosen = restorer_orderings.variants(recipe, "cascade")
    for seed, values in enumerate(((20.0, 19.0, 18.0), (21.0, 19.5, 19.6))):
        for one, value in zip(chosen.values(), values, strict=True):
            write_card(tmp_path, one, seed, psnr_hole=value)
    found = restorer_orderings.records(tmp_path, chosen, (0, 1, 2))
    assert {r["metric"] for r in found} == {"psnr_hole"}
    text = restorer_orderings.markdown(found, list(chosen))
    assert "| whole cascade | 20.50 ± 0.71 |" in text
    assert "whole cascade > GAN only: psnr_hole +1.250 (2 of 2 seeds)" in text
    assert "GAN only > without pre-training: psnr_hole +0.450 (1 of 2 seeds)" in text
    alone = restorer_orderings.markdown(restorer_orderings.records(tmp_path, chosen, (0,)), list(chosen))
    assert "| whole cascade | 20.00 |" in alone


def test_runs_of_another_length_are_other_runs(tmp_path):
    recipe = RECIPES["cascade-cpu"]
    write_card(tmp_path, adjust(recipe, steps=5), 0, psnr_hole=20.0)
    assert restorer_orderings.metrics_of(tmp_path, adjust(recipe, steps=5), 0) == {"psnr_hole": 20.0}
    assert restorer_orderings.metrics_of(tmp_path, adjust(recipe, steps=6), 0) is None


def test_orderings_of_another_recipe_leave_the_file_of_the_usual_one_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(restorer_orderings, "RESULTS", tmp_path / "results")
    for name in ("cascade-cpu", "cascade-paper-cpu"):
        write_card(tmp_path / "runs", adjust(RECIPES[name], steps=5), 0, psnr_hole=20.0)
    options = ["cascade", "--table", "--steps", "5", "--out", str(tmp_path / "runs")]
    for more in ([], ["--recipe", "cascade-paper-cpu"]):
        monkeypatch.setattr("sys.argv", ["restorer_orderings", *options, *more])
        restorer_orderings.main()
    found = {path.name for path in (tmp_path / "results" / "quality").glob("*.csv")}
    assert found == {"orderings-cascade.csv", "orderings-cascade-cascade-paper-cpu.csv"}


@pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")
def test_trained_variant_leaves_weights_and_scores(tmp_path):
    rng = np.random.default_rng(0)
    for folder in (tmp_path / "data", tmp_path / "data" / "held-out"):
        folder.mkdir()
        for k in range(3):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
            coarse.resize((56, 48), Image.Resampling.BICUBIC).save(folder / f"{folder.name}{k}.png")
    recipe = adjust(small(RECIPES["xgan-sparse-cpu"]), steps=3)
    chosen = restorer_orderings.variants(recipe, "points")["point loss none"]
    restorer_orderings.run(tmp_path / "runs", chosen, 1, tmp_path / "data")
    folder = restorer_orderings.folder_of(tmp_path / "runs", chosen, 1)
    assert json.loads((folder / "recipe.json").read_text())["seed"] == 1
    assert {path.name for path in folder.glob("*.safetensors")} == {f"{chosen.checkpoint}.safetensors"}
    found = restorer_orderings.metrics_of(tmp_path / "runs", chosen, 1)
    assert found is not None
    assert {f"psnr_{name}" for name in recipe.tests} <= set(found)
