"""``invrestore degrade``: the measurement of a picture, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import invrestore as ir
from invrestore.io import ImageInfo, load_image, read


def test_blur_and_noise_give_the_measurement_of_the_library(run, picture, tmp_path):
    result = run(
        "degrade", picture, "-o", tmp_path / "y.png", "--operator", "blur:sigma=1.6", "--sigma", 0.02
    )
    assert result.code == 0
    x = load_image(picture)
    blurred = ir.operators.Blur(ir.kernels.gaussian(1.6))(x)
    noise = 0.02 * torch.randn(blurred.shape, generator=torch.Generator().manual_seed(0))
    expected = (blurred + noise).clamp(0, 1)
    assert (load_image(tmp_path / "y.png") - expected).abs().max() <= 0.5001 / 255


def test_the_same_seed_gives_the_same_file_and_another_seed_another(run, picture, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ["--operator", "sparse:keep=0.3", "--sigma", 0.1, "--corruption", "salt-pepper:amount=0.1"]
        assert run("degrade", picture, "-o", tmp_path / f"{name}.png", *words, "--seed", seed).code == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("spec", "size", "channels"),
    [
        ("identity", (48, 40), 3),
        ("blur:disk=2,padding=reflect", (48, 40), 3),
        ("blur:box=3,padding=valid", (46, 38), 3),
        ("motion:size=7,seed=3", (48, 40), 3),
        ("downsample:factor=4,filter=area", (12, 10), 3),
        ("jpeg:quality=10", (48, 40), 3),
        ("quantize:levels=5", (48, 40), 3),
        ("grayscale", (48, 40), 1),
        ("value", (48, 40), 1),
        ("sparse:keep=0.1,seed=4", (48, 40), 3),
    ],
)
def test_every_operator_gives_a_picture_of_the_right_size(run, picture, tmp_path, spec, size, channels):
    assert run("degrade", picture, "-o", tmp_path / "y.png", "--operator", spec).code == 0
    y = load_image(tmp_path / "y.png")
    assert y.shape == (1, channels, size[1], size[0])


def test_operators_act_in_the_order_given(run, picture, tmp_path):
    words = [
        "--operator",
        "grayscale",
        "--operator",
        "downsample:factor=2",
        "--operator",
        "quantize:levels=3",
    ]
    result = run("degrade", picture, "-o", tmp_path / "y.png", *words)
    assert "Grayscale then Downsample then Quantize" in result.out
    y = load_image(tmp_path / "y.png")
    assert y.shape == (1, 1, 20, 24)
    assert len(y.unique()) <= 3


def test_lost_pixels_are_black_also_under_noise(run, picture, mask, tmp_path):
    assert run("degrade", picture, "-o", tmp_path / "y.png", "--mask", mask, "--sigma", 0.2).code == 0
    y, known = load_image(tmp_path / "y.png"), load_image(mask).bool()
    assert y[(~known).expand_as(y)].max() == 0
    assert y[known.expand_as(y)].max() > 0.5


def test_kernel_from_a_picture(run, picture, tmp_path):
    kernel = np.zeros((3, 5), np.uint8)
    kernel[1, 1:4] = 200
    Image.fromarray(kernel).save(tmp_path / "k.png")
    words = ["--operator", f"blur:kernel={tmp_path / 'k.png'}", "--bits", "16"]
    assert run("degrade", picture, "-o", tmp_path / "y.png", *words).code == 0
    x = load_image(picture)
    expected = sum(x.roll(shift, -1) for shift in (-1, 0, 1)) / 3
    assert (load_image(tmp_path / "y.png") - expected).abs().max() < 1e-4


def test_16_bits_and_opacity_of_the_input_are_kept(run, tmp_path, rng):
    x = torch.rand(1, 3, 16, 16, generator=rng)
    alpha = torch.rand(1, 1, 16, 16, generator=rng)
    ir.save_image(x, tmp_path / "a.png", bits=16, like=ImageInfo("PNG", 16, alpha))
    assert run("degrade", tmp_path / "a.png", "-o", tmp_path / "b.png", "--operator", "blur:box=3").code == 0
    _, info = read(tmp_path / "b.png")
    assert info.bits == 16
    assert (info.alpha - alpha).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("spec", "amount"),
    [
        ("color-noise:amount=0.9", 0.9),
        ("salt-pepper:amount=0.2", 0.2),
        ("block:size=16", 256 / 1920),
        ("poisson:gain=10", 1),
        ("uniform:width=0.5", 1),
    ],
)
def test_corruptions_change_about_the_share_asked_for(run, picture, tmp_path, spec, amount):
    assert run("degrade", picture, "-o", tmp_path / "y.png", "--corruption", spec).code == 0
    changed = (load_image(tmp_path / "y.png") != load_image(picture)).any(1).float().mean()
    assert abs(changed - amount) < 0.1


def test_clutter_is_a_block_of_another_picture(run, picture, tmp_path):
    Image.new("L", (20, 20), 51).save(tmp_path / "gray.png")
    spec = f"clutter:image={tmp_path / 'gray.png'},size=10"
    assert run("degrade", picture, "-o", tmp_path / "y.png", "--corruption", spec).code == 0
    y, x = load_image(tmp_path / "y.png"), load_image(picture)
    changed = (y != x).any(1)
    assert 90 <= changed.sum() <= 100
    assert torch.allclose(y.movedim(1, -1)[changed], torch.tensor(0.2))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--operator", "nosuch"], "operator out of"),
        (["--operator", "blur:sigmaa=2"], "Did you mean sigma"),
        (["--operator", "blur:sigma=-1"], "sigma"),
        (["--operator", "blur:sigma=1,size=0"], "size"),
        (["--operator", "blur:box=3,size=3"], "size without sigma"),
        (["--operator", "jpeg:quality=101"], "quality"),
        (["--operator", "quantize:levels=1"], "levels"),
        (["--operator", "downsample:factor=0"], "factor"),
        (["--operator", "sparse:keep=2"], "keep"),
        (["--operator", "blur:kernel=none.png"], "does not exist"),
        (["--operator", "grayscale", "--operator", "grayscale"], "(1, 3, 40, 48)|channels|3"),
        (["--sigma", "25"], "25/255"),
        (["--sigma", "-0.1"], ">= 0"),
        (["--sigma", "nan"], "finite"),
        (["--seed", str(2**64)], "seed of 64 bits"),
        (["--bits", "12"], "8 or 16"),
        (["--corruption", "rain"], "corruption out of"),
        (["--corruption", "salt-pepper:amount=2"], "amount"),
        (["--mask", "none.png"], "does not exist"),
    ],
)
def test_wrong_calls_are_refused_and_leave_nothing(refuse, picture, tmp_path, words, match):
    message = refuse("degrade", picture, "-o", tmp_path / "y.png", *words)
    assert any(part in message for part in match.split("|"))


def test_black_kernels_and_masks_are_refused(refuse, picture, tmp_path):
    Image.new("L", (5, 5)).save(tmp_path / "black.png")
    assert "not black" in refuse(
        "degrade", picture, "-o", tmp_path / "y.png", "--operator", f"blur:kernel={tmp_path / 'black.png'}"
    )
    Image.new("L", (48, 40)).save(tmp_path / "dark.png")
    assert "empty mask" in refuse(
        "degrade", picture, "-o", tmp_path / "y.png", "--mask", tmp_path / "dark.png"
    )


def test_existing_target_needs_force(run, refuse, picture, tmp_path):
    target = tmp_path / "y.png"
    target.write_bytes(b"mine")
    assert "--force" in refuse("degrade", picture, "-o", target)
    assert run("degrade", picture, "-o", target, "--force", "--quiet").out == ""
    assert load_image(target).shape == (1, 3, 40, 48)
