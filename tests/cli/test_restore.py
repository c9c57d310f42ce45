"""``invrestore restore``: a picture or a folder, back in kind, and every wrong call refused by name."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

import invrestore as ir
from invrestore.io import ImageInfo, load_image, read, save_image
from tests.cli.conftest import snapshot

BLUR = ("--operator", "blur:sigma=1.2")


@pytest.fixture
def blurred(run, picture, tmp_path):
    """The photo, blurred with a little noise."""
    path = tmp_path / "blurred.png"
    assert run("degrade", picture, "-o", path, *BLUR, "--sigma", 0.01).code == 0
    return path


@pytest.fixture
def folder(blurred, tmp_path):
    """Two pictures and what else lies in folders."""
    made = tmp_path / "in"
    (made / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (made / name).write_bytes(blurred.read_bytes())
    (made / "notes.txt").write_text("mine")
    (made / ".hidden.png").write_bytes(b"")
    return made


def gain(before, after, picture):
    truth = load_image(picture)
    return float(ir.psnr(load_image(after), truth) - ir.psnr(load_image(before), truth))


@pytest.mark.parametrize("prior", ["tv", "wavelet", "tgv", "tikhonov", "wavelet:wavelet=haar,levels=2"])
def test_deblurring_gains_and_says_what_was_chosen(run, picture, blurred, tmp_path, prior):
    result = run("restore", blurred, "-o", tmp_path / "x.png", *BLUR, "--prior", prior)
    assert result.code == 0, result
    assert result.err == ""
    assert "lam = " in result.out
    assert "sigma = " in result.out
    assert gain(blurred, tmp_path / "x.png", picture) > 0.5


def test_the_answer_is_that_of_solve(run, blurred, tmp_path):
    words = (*BLUR, "--prior", "tv", "--sigma", 0.01, "--lam", 0.002, "--max-steps", 30, "--bits", 16)
    assert run("restore", blurred, "-o", tmp_path / "x.png", *words).code == 0
    operator = ir.operators.Blur(ir.kernels.gaussian(1.2))
    x = ir.solve(load_image(blurred), operator, ir.priors.TV(lam=0.002), sigma=0.01, max_steps=30).x
    assert (load_image(tmp_path / "x.png") - x.clamp(0, 1)).abs().max() < 1e-4


def test_missing_pixels_are_filled_and_known_ones_kept(run, picture, mask, tmp_path):
    y, x = tmp_path / "y.png", tmp_path / "x.png"
    assert run("degrade", picture, "-o", y, "--mask", mask).code == 0
    assert run("restore", y, "-o", x, "--mask", mask, "--sigma", 0).code == 0
    known = load_image(mask).bool().expand(1, 3, 40, 48)
    assert torch.equal(load_image(x)[known], load_image(y)[known])
    assert gain(y, x, picture) > 5


@pytest.mark.parametrize(
    "spec",
    [
        "downsample:factor=2",
        "jpeg:quality=10",
        "quantize:levels=4",
        "motion:size=5",
        "sparse:keep=0.4,seed=2",
    ],
)
def test_each_kind_of_damage_is_undone_to_some_degree(run, picture, tmp_path, spec):
    y, x = tmp_path / "y.png", tmp_path / "x.png"
    assert run("degrade", picture, "-o", y, "--operator", spec).code == 0
    result = run("restore", y, "-o", x, "--operator", spec)
    assert result.code == 0, result
    assert load_image(x).shape == load_image(picture).shape
    if load_image(y).shape == load_image(x).shape:
        assert gain(y, x, picture) > 0


def test_a_gray_picture_is_accepted_as_measurement_of_grayscale_in_either_form(run, picture, tmp_path):
    save_image(load_image(picture, mode="gray"), tmp_path / "one.png")
    save_image(load_image(tmp_path / "one.png", mode="rgb"), tmp_path / "three.png")
    for name in ("one", "three"):
        result = run(
            "restore", tmp_path / f"{name}.png", "-o", tmp_path / f"{name}-x.png", "--operator", "grayscale"
        )
        assert result.code == 0, result
    assert torch.equal(load_image(tmp_path / "one-x.png"), load_image(tmp_path / "three-x.png"))
    assert load_image(tmp_path / "one-x.png").shape == (1, 3, 40, 48)


def test_opacity_bits_and_orientation_survive(run, tmp_path, rng):
    alpha = torch.rand(1, 1, 16, 24, generator=rng)
    save_image(torch.rand(1, 3, 16, 24, generator=rng), tmp_path / "a.png", like=ImageInfo("PNG", 16, alpha))
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / "b.png", "--sigma", 0.05).code == 0
    _, info = read(tmp_path / "b.png")
    assert info.bits == 16
    assert (info.alpha - alpha).abs().max() < 1e-4


def test_quiet_prints_nothing(run, blurred, tmp_path):
    result = run("restore", blurred, "-o", tmp_path / "x.png", *BLUR, "--quiet", "--lam", 0.002)
    assert (result.code, result.out, result.err) == (0, "", "")


def test_report_is_one_file_with_both_pictures(run, blurred, tmp_path):
    report = tmp_path / "r.html"
    assert (
        run("restore", blurred, "-o", tmp_path / "x.png", *BLUR, "--lam", 0.002, "--report", report).code == 0
    )
    document = report.read_text()
    assert document.count("data:image/png;base64,") == 2
    assert 'type="range"' in document
    assert "blurred.png" in document
    assert not re.search(r"(src|href)=\"(?!data:)", document)


def test_report_escapes_file_names(run, blurred, tmp_path):
    odd = tmp_path / "<b>&.png"
    odd.write_bytes(blurred.read_bytes())
    report = tmp_path / "r.html"
    assert run("restore", odd, "-o", tmp_path / "x.png", *BLUR, "--lam", 0.002, "--report", report).code == 0
    assert "<b>" not in report.read_text()
    assert "&lt;b&gt;&amp;.png" in report.read_text()


# --- folders -----------------------------------------------------------------------------------------


def test_a_folder_is_restored_and_other_files_are_skipped_with_a_note(run, folder, tmp_path):
    words = (*BLUR, "--lam", 0.002, "--report", tmp_path / "r.html")
    result = run("restore", folder, "-o", tmp_path / "out", *words)
    assert result.code == 0, result
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert result.err.splitlines() == ["note: skipped notes.txt: no picture", "note: skipped sub: a folder"]
    assert "2 pictures" in result.out
    assert (tmp_path / "r.html").read_text().count("<article>") == 2


def test_a_bad_file_does_not_stop_the_rest_and_the_code_is_1(run, folder, tmp_path):
    (folder / "a.png").write_bytes(b"not an image")
    result = run("restore", folder, "-o", tmp_path / "out", *BLUR, "--lam", 0.002)
    assert result.code == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.png"]
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: a.png: read: expected a PNG, JPEG, TIFF or WebP picture")
    assert errors[1] == f"error: 1 of 2 pictures failed; the others are in {tmp_path / 'out'}"
    assert "Traceback" not in result.err


def test_existing_results_are_kept_without_force(run, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    words = ("restore", folder, "-o", tmp_path / "out", *BLUR, "--lam", 0.002)
    assert run(*words).code == 1
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    assert load_image(tmp_path / "out" / "b.png").shape == (1, 3, 40, 48)
    assert run(*words, "--force").code == 0
    assert load_image(tmp_path / "out" / "a.png").shape == (1, 3, 40, 48)


def test_folders_that_make_no_sense_are_refused(refuse, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds none" in refuse("restore", tmp_path / "empty", "-o", tmp_path / "out")
    assert "holds none" in refuse("restore", folder / "sub", "-o", tmp_path / "out")
    assert "another folder" in refuse("restore", folder, "-o", folder, *BLUR)
    assert "got the file" in refuse("restore", folder, "-o", folder / "notes.txt", *BLUR)
    assert "can be created" in refuse("restore", folder, "-o", folder / "notes.txt" / "out", *BLUR)
    # What holds for every picture is said once, and no empty folder stays behind.
    assert "method" in refuse(
        "restore", folder, "-o", tmp_path / "out", *BLUR, "--method", "magic", "--quiet"
    )


# --- wrong calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--prior", "nosuch"], "prior out of"),
        (["--prior", "tvv"], "Did you mean 'tv'"),
        (["--prior", "tv:lam=1"], "no options"),
        (["--prior", "wavelet:wavelet=nosuch"], "nosuch"),
        (["--prior", "wavelet:levels=-1"], "levels"),
        (["--operator", "nosuch"], "operator out of"),
        (["--operator", "blur:sigmaa=2"], "Did you mean sigma"),
        (["--operator", "blur:sigma=0"], "sigma"),
        (["--operator", "downsample:factor=2,filter=sinc"], "bicubic"),
        (["--operator", "grayscale"], "(1, H, W)"),
        (["--sigma", "25"], "25/255"),
        (["--sigma", "-1"], ">= 0"),
        (["--sigma", "inf"], "finite"),
        (["--lam", "-3"], ">= 0"),
        (["--lam", "nan"], "finite"),
        (["--method", "magic"], "method"),
        (["--method", "latent"], "latent"),
        (["--max-steps", "0"], ">= 1"),
        (["--bits", "4"], "8 or 16"),
        (["--device", "toaster"], "cpu, or cuda"),
        (["--device", "cuda:99"], "cpu, or cuda"),
        (["--mask", "none.png"], "does not exist"),
        (["--report", "x.png"], ".html"),
        (["--report", "none/x.html"], "existing folder"),
    ],
)
def test_wrong_calls_are_refused_and_leave_nothing(refuse, blurred, tmp_path, words, match):
    assert match in refuse("restore", blurred, "-o", tmp_path / "x.png", *words)


def test_mask_of_another_size_is_refused(refuse, blurred, tmp_path):
    Image.new("L", (47, 40), 255).save(tmp_path / "m.png")
    message = refuse("restore", blurred, "-o", tmp_path / "x.png", "--mask", tmp_path / "m.png")
    assert "fit the mask (any, any, 40, 47)" in message


def test_files_that_are_no_pictures_are_refused(refuse, blurred, tmp_path):
    files = {
        "text.png": (b"not an image", "starts with b'not an image'"),
        "empty.png": (b"", "which is empty"),
        "cut.png": (blurred.read_bytes()[:1500], "truncated"),
    }
    for name, (content, match) in files.items():
        (tmp_path / name).write_bytes(content)
        assert match in refuse("restore", tmp_path / name, "-o", tmp_path / "x.png")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tif")
    assert "whole numbers" in refuse("restore", tmp_path / "float.tif", "-o", tmp_path / "x.png")
    assert "does not exist" in refuse("restore", tmp_path / "none.png", "-o", tmp_path / "x.png")


def test_targets_that_cannot_be_are_refused(refuse, blurred, tmp_path):
    (tmp_path / "taken.png").write_bytes(b"mine")
    assert "--force" in refuse("restore", blurred, "-o", tmp_path / "taken.png")
    assert "existing folder" in refuse("restore", blurred, "-o", tmp_path / "none" / "x.png")
    assert "the folder" in refuse("restore", blurred, "-o", tmp_path)
    assert "ending in one of" in refuse("restore", blurred, "-o", tmp_path / "x.gif")
    assert "8 bits" in refuse("restore", blurred, "-o", tmp_path / "x.jpg", "--bits", "16")
    (tmp_path / "taken.html").write_bytes(b"mine")
    assert "--force" in refuse(
        "restore", blurred, "-o", tmp_path / "x.png", "--report", tmp_path / "taken.html"
    )


def test_opacity_that_jpeg_cannot_hold_is_refused_before_the_work(refuse, tmp_path):
    save_image(
        torch.zeros(1, 3, 8, 8), tmp_path / "a.png", like=ImageInfo("PNG", alpha=torch.ones(1, 1, 8, 8))
    )
    assert "opacity" in refuse("restore", tmp_path / "a.png", "-o", tmp_path / "x.jpg")


def test_an_interrupt_between_pictures_keeps_the_finished_ones_whole(run, folder, tmp_path, monkeypatch):
    real, calls = ir.solve, []

    def second_interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr("invrestore.solvers.solve", second_interrupted)
    assert run("restore", folder, "-o", tmp_path / "out", *BLUR, "--lam", 0.002).code == 130
    assert list(snapshot(tmp_path / "out")) == [str(tmp_path / "out" / "a.png")]
    assert load_image(tmp_path / "out" / "a.png").shape == (1, 3, 40, 48)
