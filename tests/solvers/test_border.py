"""What a user may hand to `solve`, and get back from a solution: taken as it is meant, or refused by name."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import invrestore as ir
from invrestore import operators, priors, testing

TV = priors.TV(lam=0.1)
BLUR = operators.Blur(ir.kernels.box(3))
RAMP = np.linspace(0.2, 0.8, 256).reshape(16, 16)


def picture(mode: str) -> Image.Image:
    eight = Image.fromarray((RAMP * 255).round().astype(np.uint8))
    sixteen = (RAMP * 65535).round()
    made = {
        "F": lambda: Image.fromarray(RAMP.astype(np.float32)),
        "I": lambda: Image.fromarray(sixteen.astype(np.int32)),
        "I;16": lambda: Image.fromarray(sixteen.astype(np.uint16)),
        "I;16B": lambda: Image.fromarray(sixteen.astype(">u2")),
    }
    return made[mode]() if mode in made else eight.convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "F", "I", "I;16", "I;16B", "RGB", "RGBA", "CMYK"])
def test_pictures_of_any_mode_keep_their_values(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = ir.solve(picture(mode), operators.Identity(), priors.TV(lam=0.0), sigma=0.05).x
    assert x.shape == (1, 1 if mode in ("L", "LA", "F", "I", "I;16", "I;16B") else 3, 16, 16)
    expected = torch.from_numpy(RAMP).float().expand_as(x)
    torch.testing.assert_close(x, expected, rtol=0, atol=0.5 / 255 + 1e-6)


def test_pictures_beyond_16_bits_are_refused() -> None:
    with pytest.raises(ir.RangeError, match="mode I with samples in 0 to 65535, got 0 to 70000"):
        ir.solve(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), operators.Identity(), TV, sigma=0.1)


Y = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"init": Y + 0j}, ir.DTypeError, "init of real numbers"),
        ({"init": Y[:1]}, ir.ShapeError, "init of shape"),
        ({"init": Y.to("meta")}, ir.DeviceError, "init on meta"),
        ({"truth": Y * float("nan")}, ir.RangeError, "truth with finite values"),
        ({"truth": Y * 255}, ir.RangeError, r"truth in units of the image range \[0, 1\]"),
        ({"truth": Y.to("meta")}, ir.DeviceError, "truth on meta"),
        ({"sigma": torch.zeros(0)}, ir.ShapeError, r"sigma of shape \(\) or \(B,\)"),
        ({"sigma": torch.tensor(0.1 + 0j)}, ir.DTypeError, "sigma as real numbers, got torch.complex64"),
        ({"sigma": torch.tensor(True)}, ir.DTypeError, "sigma as real numbers, got torch.bool"),
        ({"tol": torch.tensor([1e-3, 1e-3])}, ir.ShapeError, "tol as one number"),
        ({"callback": "x"}, ir.DTypeError, "callback as a function"),
    ],
)
def test_senseless_arguments_are_refused_before_the_first_step(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ir.solve(Y, BLUR, TV, **({"sigma": 0.05} | options))


def test_complex_measurements_are_refused() -> None:
    with pytest.raises(ir.DTypeError, match=r"y of real numbers.*view_as_real"):
        ir.solve(Y + 0j, operators.Identity(), TV, sigma=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_start_images_may_have_another_type(dtype: torch.dtype) -> None:
    start = Y.flip(3)
    found = ir.solve(Y, BLUR, TV, sigma=0.05, init=start.to(dtype), max_steps=3).x
    assert found.dtype == torch.float32
    same = ir.solve(Y, BLUR, TV, sigma=0.05, init=start.to(dtype).float(), max_steps=3).x
    torch.testing.assert_close(found, same)
    assert ir.solve(Y.bfloat16(), BLUR, TV, sigma=0.05, init=start.bfloat16()).x.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("answer", "steps"), [(None, 30), (Y, 30), (False, 30), (True, 1), (np.True_, 1), (torch.tensor(True), 1)]
)
def test_only_the_answer_true_stops(answer: object, steps: int) -> None:
    found = ir.solve(Y, BLUR, TV, sigma=0.05, tol=0.0, max_steps=30, callback=lambda step, x: answer)
    assert found.steps.tolist() == [steps, steps]


@pytest.mark.parametrize(
    "operator",
    [BLUR, operators.Mask(torch.ones(1, 1)), operators.Downsample(4, input_shape=(1, 1, 1))],
    ids=lambda op: op.name,
)
def test_a_single_pixel_is_restored_under_total_variation(operator: operators.Operator) -> None:
    y = torch.tensor([0.2, 0.7]).view(2, 1, 1, 1)
    torch.testing.assert_close(ir.solve(y, operator, TV, sigma=0.05, tol=1e-6, max_steps=500).x, y)


@pytest.mark.parametrize("prior", [priors.TV(), priors.Tikhonov()], ids=lambda p: p.name)
def test_a_model_that_gives_no_numbers_diverges_whatever_chooses_the_weight(prior: priors.Prior) -> None:
    hopeless = operators.Callable(lambda x: (x - 2).log())
    found = ir.solve(Y, hopeless, prior, sigma=0.05, throw=False)
    assert found.status.name == "DIVERGED"
    with pytest.raises(ir.ConvergenceError, match="NaN or infinity"):
        ir.solve(Y, hopeless, prior, sigma=0.05)


@pytest.mark.parametrize("prior", ["denoiser", "dictionary", "low-rank"])
def test_levels_of_a_batch_have_their_own_rounding_errors(prior: str) -> None:
    quantise = operators.Quantize(5)
    x = torch.nn.functional.avg_pool2d(
        torch.rand(2, 1, 18, 18, generator=torch.Generator().manual_seed(1)), 3, 1
    )
    y = quantise(x)
    both = ir.solve(y, quantise, prior, sigma=torch.tensor([0.02, 0.2])).x
    alone = ir.solve(y[:1], quantise, prior, sigma=0.02).x
    torch.testing.assert_close(both[:1], alone, rtol=0, atol=1e-5)


def test_a_plot_replaces_no_file_and_leaves_none_behind(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    # PSNR is there for every step, the other curves for checks.
    found = ir.solve(Y, BLUR, TV, sigma=0.05, truth=Y, tol=0.0, max_steps=25)
    found.plot(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > drawn.height
    (tmp_path / "mine.png").write_text("precious")
    with pytest.raises(ir.ImageFileError, match="exists"):
        found.plot(tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_text() == "precious"
    found.plot(tmp_path / "mine.png", force=True)
    with pytest.raises(ir.ImageFileError, match="an existing folder"):
        found.plot(tmp_path / "none" / "a.png")
    with pytest.raises(ir.ImageFileError, match=r"a name that ends in \."):
        found.plot(tmp_path / "a.xyz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "mine.png"]


@pytest.mark.parametrize("name", ["a" * 300 + ".png", "a\0b.png"])
def test_names_that_no_file_can_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ir.ImageFileError, match="a name that the file system can hold"):
        ir.save_image(torch.rand(1, 3, 4, 4), tmp_path / name)


def test_a_link_to_nowhere_is_a_file_of_the_user(tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ir.ImageFileError, match="exists"):
        ir.solve(Y, operators.Identity(), TV, sigma=0.05).save(link)
    assert link.is_symlink()


def test_loading_a_network_draws_no_random_numbers_of_the_user() -> None:
    before = torch.get_rng_state()
    ir.networks.load("classifier")
    assert torch.equal(before, torch.get_rng_state())


def test_laws_of_priors_are_checked_with_no_more_than_the_prior() -> None:
    testing.check_prior(TV, shape=(1, 6, 7))
    testing.check_prior(priors.TV(), shape=(1, 6, 7))
    testing.check_prior(priors.load("dictionary"), shape=(1, 9, 10))


@pytest.mark.parametrize("shape", [8, None, (3, 4)])
def test_sparse_samples_want_the_shape_of_an_image(shape: Any) -> None:
    with pytest.raises(ir.ShapeError, match=r"shape \(C, H, W\)"):
        operators.SparseSampling(shape, keep=0.1)
