"""``invrestore demo`` and ``invrestore priors``: what a newcomer runs first."""

from __future__ import annotations

import re

import pytest

from invrestore import networks, priors
from invrestore.assets import PHOTOS, photo
from invrestore.cli.demo import _new_folder
from invrestore.errors import ImageFileError, UnknownNameError
from invrestore.io import load_image


def test_priors_lists_every_name_that_restore_accepts(run):
    result = run("priors")
    assert result.code == 0
    for name in priors.available():
        assert name in result.out


def test_priors_shows_the_card_of_trained_weights(run, monkeypatch):
    card = networks.Card(
        name="planted",
        architecture="UNet",
        arguments={},
        sha256="",
        channels=3,
        sigma_range=(0.0, 0.2),
        parameters=1234567,
        data="photos [set A]",
        licence="CC0",
        metrics={"psnr": 31.5, "protocol": "colour"},
        training="",
        recipe="",
        commit="",
        reference="",
    )
    monkeypatch.setattr(networks, "available", lambda: ["planted"])
    monkeypatch.setattr(networks, "card", lambda name: card)
    monkeypatch.setenv("COLUMNS", "200")
    result = run("priors")
    for word in (
        "planted",
        "UNet",
        "1,234,567",
        "0 to 0.2",
        "photos [set A]",
        "CC0",
        "psnr 31.5",
        "protocol: colour",
    ):
        assert word in result.out


def test_demo_restores_six_kinds_of_damage_and_every_best_answer_gains(run, tmp_path, monkeypatch):
    # The middle of each photo is enough here.
    monkeypatch.setattr("invrestore.io.load_image", lambda path: load_image(path)[..., 84:180, 84:180])
    folder = tmp_path / "results"
    result = run("demo", "-o", folder)
    assert result.code == 0, result
    tasks = ("blur", "missing", "downsample", "jpeg", "levels", "noise")
    names = {path.name for path in folder.iterdir()}
    for task in tasks:
        assert len([n for n in names if n.startswith(f"{task}-") and n.endswith(".png")]) == 5
    assert {"contact-sheet.png", "index.html", "details.txt"} <= names
    assert load_image(folder / "contact-sheet.png").shape[1] == 3
    document = (folder / "index.html").read_text()
    assert document.count("<article>") == 6
    assert not re.search(r"(src|href)=\"(?!data:)", document)
    truth = {task: load_image(folder / f"{task}-original.png") for task in tasks}
    for task in tasks:
        before = load_image(folder / f"{task}-degraded.png")
        if before.shape != truth[task].shape:
            continue
        error = ((before - truth[task]) ** 2).mean()
        after = [((load_image(p) - truth[task]) ** 2).mean() for p in folder.glob(f"{task}-[!od]*.png")]
        assert min(after) < error


def test_demo_refuses_a_folder_that_exists(refuse, tmp_path):
    (tmp_path / "mine").mkdir()
    assert "does not exist yet" in refuse("demo", "-o", tmp_path / "mine")


def test_default_folder_is_numbered_until_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [str(_new_folder(None)) for _ in range(3)]
    assert made == ["invrestore-demo", "invrestore-demo-2", "invrestore-demo-3"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageFileError, match="can be created"):
        _new_folder(tmp_path / "file" / "inside")


def test_photos_are_small_colour_pictures_and_their_licences_are_named():
    licences = photo("coffee").with_name("LICENSES.md").read_text()
    for name in PHOTOS:
        assert load_image(photo(name)).shape == (1, 3, 264, 264)
        assert f"{name}.png" in licences
    assert sum(photo(name).stat().st_size for name in PHOTOS) < 500_000
    with pytest.raises(UnknownNameError, match="'coffee'"):
        photo("cofee")
