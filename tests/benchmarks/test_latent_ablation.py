"""The ablation of the latent search: rows change one thing, batches are recorded once, tables say what was found."""

import dataclasses
import json
import sys
import types

import pytest
import torch

from benchmarks.quality import latent_ablation as ablation
from invrestore import io, solve
from invrestore.networks import DCGAN, FaceGAN
from invrestore.priors import Latent

SIDE = 16
PLAIN = {"restarts": 2, "candidates": 4, "adapt": 2, "steps": 9}


def faces_prior():
    torch.manual_seed(0)
    model = FaceGAN(SIDE, 3, 8, (4, 8), (4, 8), (4, 8), mapping_layers=2).eval().requires_grad_(False)
    return Latent(model.generator, model.discriminator, model.encoder, **PLAIN)


def dcgan_prior():
    torch.manual_seed(0)
    model = DCGAN(SIDE, width=4).eval().requires_grad_(False)
    return Latent(model.generator, **PLAIN)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("invrestore.solvers._latent_adapt._ADAPTATION", 2)
    monkeypatch.setattr("invrestore.solvers._latent_spaces._STYLE_SAMPLES", 256)


def test_every_row_is_a_setting_that_the_search_takes():
    prior = faces_prior()
    clean = torch.rand(1, 3, SIDE, SIDE)
    for variant in ablation.variants_of(prior):
        chosen = dataclasses.replace(prior, **variant.settings)
        if variant.settings.get("layer"):
            # The small generator has two scales, and one layer to displace.
            chosen = dataclasses.replace(chosen, layer=1)
        task = ablation.SUITE.task("x4" if variant.tasks is None else variant.tasks[0])
        degrade = dataclasses.replace(task.degrade, size=6) if task.name == "hole" else task.degrade
        made = degrade(clean, [0])
        assert torch.isfinite(solve(made.y, made.operator, chosen, sigma=0.0).x).all()


def test_rows_are_those_the_prior_offers():
    names = {(v.part, v.name) for v in ablation.variants_of(dcgan_prior())}
    assert ("space", "z") in names
    assert not names & {("space", "w"), ("start", "encoder"), ("discriminator", "without")}
    some = ablation.variants_of(faces_prior(), ["restarts"])
    assert [v.name for v in some] == ["as shipped", "2", "4", "8", "16"]
    with pytest.raises(SystemExit, match="no part 'spaces'"):
        ablation.variants_of(faces_prior(), ["spaces"])


def test_scores_hold_every_stage_of_one_search():
    clean = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = ablation.scores_of(faces_prior(), ablation.SUITE.task("x4"), clean, (0, 1))
    assert {"answer", "raw", "adapted", "consistent", "blended", "seconds"} <= set(found)
    assert len(found["answer"]["psnr"]) == 2
    assert found["answer"] == found["blended"]
    assert sum(found["consistent"]["psnr"]) > sum(found["raw"]["psnr"])


def write(folder, variant, task, values, count, about="about"):
    """Scores as a run leaves them."""
    for unit in ablation._units(variant, [task], count, about):
        part = values[unit.first : unit.last]
        scores = {"psnr": part, "ssim": [0.5] * len(part)}
        unit.path(folder).parent.mkdir(parents=True, exist_ok=True)
        unit.path(folder).write_text(json.dumps({"answer": scores, "seconds": 2.0}))


def test_table_has_means_and_paired_differences(tmp_path):
    task = ablation.SUITE.task("x4")
    default, changed = ablation.DEFAULT, ablation.Variant("restarts", "2", {"restarts": 2})
    values = [20.0 + k for k in range(30)]
    write(tmp_path, default, task, values, 30)
    write(tmp_path, changed, task, [v - 1 - 0.01 * (k % 2) for k, v in enumerate(values)], 30)
    found = ablation.records([default, changed], [task], 30, "about", tmp_path)
    assert [r["n"] for r in found] == [30, 30]
    assert found[0]["psnr_mean"] == pytest.approx(34.5)
    assert found[1]["psnr_difference"] == pytest.approx(-1.005)
    text = ablation.markdown(found, [task])
    assert "34.50 / 0.500 |" in text
    assert "33.49 / 0.500, -1.00 |" in text or "33.50 / 0.500, -1.00 |" in text
    assert ablation.records([default], [task], 30, "other weights", tmp_path) == []


def test_unfinished_cell_says_how_many_faces_it_has(tmp_path):
    task = ablation.SUITE.task("noise")
    write(tmp_path, ablation.DEFAULT, task, [20.0] * 40, 40)
    changed = ablation.Variant("space", "z", {"space": "z"})
    last = ablation._units(changed, [task], 40, "about")[-1]
    write(tmp_path, changed, task, [21.0] * 40, 40)
    last.path(tmp_path).unlink()
    found = ablation.records([ablation.DEFAULT, changed], [task], 40, "about", tmp_path)
    assert "[20 faces]" in ablation.markdown(found, [task])


def test_stages_of_one_search_share_its_record():
    task = ablation.SUITE.task("hole")
    rows = {(v.part, v.name): v for v in ablation.VARIANTS}
    keys = [
        ablation._units(rows[name], [task], 20, "about")[0].key
        for name in (("default", "as shipped"), ("blending", "without"), ("restarts", "2"))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_command_goes_on_where_it_stopped(monkeypatch, tmp_path, capsys):
    prior, calls = faces_prior(), []

    def scores(chosen, task, clean, seeds):
        assert clean.shape == (2, 3, 64, 64)
        calls.append((chosen.restarts, task.name, list(seeds)))
        found = {"psnr": [20.0 + len(calls), 22.0], "ssim": [0.5, 0.6]}
        return {"answer": found, "raw": found, "seconds": 1.0}

    monkeypatch.setattr(ablation, "scores_of", scores)
    card = types.SimpleNamespace(sha256="0")
    monkeypatch.setattr(ablation.priors, "load", lambda name: prior)
    monkeypatch.setattr(ablation.networks, "card", lambda name: card)
    (tmp_path / "faces64").mkdir()
    for k in range(4):
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(k))
        io.save_image(x, tmp_path / "faces64" / f"{k}.png")
    arguments = ["ablation", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--faces", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--parts", "start", "--tasks", "x4"])
    ablation.main()
    first = capsys.readouterr().out
    assert calls == [(n, "x4", [0, 1]) for n in (2, 1, 1, 1, 1)]
    assert first.count("| start |") == 4
    assert "| default | as shipped | 21.50 / 0.550 |" in first
    ablation.main()
    assert len(calls) == 5
    assert capsys.readouterr().out == first[first.index("| part |") :]
