"""Every row restores every kind of problem it says it does, each image on its own."""

import dataclasses
import importlib.util
import inspect
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from invrestore import assets, kernels, operators, priors, solve
from invrestore.bench import _classical, _degradations, _examples, _filling, _libraries, _peers
from invrestore.bench._methods import METHODS
from invrestore.bench._types import Problem
from invrestore.errors import CapabilityError, ImageFileError, WeightsError
from invrestore.io import load_image

SIDE = 24
SETTINGS = {
    ("deepinv-tv", "noise"): {"lam": 0.05},
    ("deepinv-wavelet", "noise"): {"lam": 0.05},
    ("deepinv-tv", None): {"lam": 0.002, "steps": 20},
    ("deepinv-wavelet", None): {"lam": 0.002, "steps": 20},
    ("dictionary", None): {"steps": 8},
    ("low-rank", None): {"steps": 8},
    ("consensus-tv", None): {"votes": 4.0},
    ("patchmatch", None): {"patch": 5, "rounds": 2},
    ("skimage-tv", None): {"strength": 0.7},
}


HARD = {"jpeg"}  # weights made for photos smooth so small a picture too much
MAY_BE_WORSE = {
    # Long wavelets and patches of photos see little of a picture of 24 pixels.
    ("deepinv-wavelet", "downsample"),
    ("dictionary", "blur"),
    ("dictionary", "downsample"),
}


def clean_images():
    """Two smooth pictures of 24 x 24 pixels."""
    photo = load_image(assets.photo(assets.PHOTOS[0]))
    small = F.interpolate(photo, scale_factor=1 / 8, mode="bicubic", antialias=True)
    crops = torch.cat([small[..., 4:12, 9:17], small[..., 16:24, 20:28]])
    return F.interpolate(crops, SIDE, mode="bicubic", antialias=True).clamp(0, 1)


def blurred(x, seeds):
    operator = operators.Blur(kernels.gaussian(1.2, size=7), padding="circular")
    y = _degradations.Noisy(0.01)(operator(x), seeds).y
    return Problem("blur", y, operator, 0.01, y.clamp(0, 1), tuple(seeds))


def clutter(x, seeds):
    return dataclasses.replace(_degradations.Hole(8)(x, seeds), kind="clutter")


DEGRADE = {
    "noise": _degradations.Noisy(0.1),
    "blur": blurred,
    "downsample": _degradations.Reduced(2),
    "mask": _degradations.Hole(8),
    "grayscale": _degradations.Gray(),
    "quantize": _degradations.Levels(5),
    "jpeg": _degradations.Compressed(10),
    "colornoise": _degradations.ColoredPixels(0.6),
    "clutter": clutter,
}
CASES = [
    # BM3D's package takes seconds for however small an image.
    pytest.param(method, kind, id=f"{name}-{kind}", marks=[pytest.mark.slow] if name == "bm3d" else [])
    for name, method in METHODS.items()
    for kind in sorted(method.kinds)
    # Networks other than the denoiser make pictures of a size or a class: test_learned.py has their rows.
    if not method.peers and method.networks in ((), ("denoiser",))
]


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """A folder of training images, crops of the same photo."""
    folder = tmp_path_factory.mktemp("examples")
    photo = load_image(assets.photo(assets.PHOTOS[0]))[0]
    for k in range(40):
        cut = photo[:, 4 * k : 4 * k + SIDE, 5 * k : 5 * k + SIDE]
        pixels = (cut * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
    return str(folder)


def settings_for(method, kind, examples):
    found = SETTINGS.get((method.name, kind), SETTINGS.get((method.name, None), {}))
    return found | ({"examples": examples, "skip": 0} if method.examples else {})


def squared_error(x, clean):
    return (x - clean).square().mean((1, 2, 3))


@pytest.mark.filterwarnings("ignore")  # other libraries' own
@pytest.mark.parametrize(("method", "kind"), CASES)
def test_row_restores_each_image_on_its_own(method, kind, examples):
    if method.module and importlib.util.find_spec(method.module) is None:
        pytest.skip(f"{method.module} is not installed")
    clean, seeds = clean_images(), (3, 4)
    problem = DEGRADE[kind](clean, seeds)
    settings = settings_for(method, kind, examples)
    found = method.run(problem, **settings)
    assert found.shape == problem.view.shape
    assert bool(torch.isfinite(found).all())
    alone = method.run(DEGRADE[kind](clean[1:], seeds[1:]), **settings)
    assert (found[1:] - alone).abs().max() < 1e-5
    if method.group != "input" and (method.name, kind) not in MAY_BE_WORSE and kind not in HARD:
        assert bool((squared_error(found, clean) < squared_error(problem.view, clean)).all())


@pytest.mark.parametrize("name", METHODS)
def test_grid_names_settings_that_the_row_takes(name):
    method = METHODS[name]
    accepted = inspect.signature(method.run).parameters
    assert set(method.grid) <= set(accepted)
    assert name == method.name
    assert not method.examples or "examples" in accepted
    assert not method.peers or "peers" in accepted


def test_problem_without_model_needs_a_row_that_asks_for_none():
    problem = DEGRADE["colornoise"](clean_images(), (0, 1))
    with pytest.raises(CapabilityError, match="forward model"):
        _classical.explicit(problem, prior="tv")


def test_strength_is_the_weight_in_units_of_the_first_guess():
    problem = DEGRADE["noise"](clean_images(), (0, 1))
    expected = solve(problem.y, operators.Identity(), priors.TV(lam=0.05), sigma=0.1).x
    found = _classical.explicit(problem, prior="tv", strength=0.5)
    torch.testing.assert_close(found, expected)


def test_strength_acts_on_rounded_data_for_denoisers_too():
    problem = DEGRADE["quantize"](clean_images(), (0, 1))
    weak, strong = (_classical.dictionary(problem, strength=s) for s in (0.3, 2.0))
    assert squared_error(strong, problem.y).min() > 2 * squared_error(weak, problem.y).max()


def test_consensus_finds_the_pixels_of_a_flat_picture_under_heavy_noise():
    clean = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous()
    problem = _degradations.ColoredPixels(0.9)(clean, (0,))
    assert (_classical.consensus_tv(problem, votes=8.0) - clean).abs().mean() < 0.02


# Filling ----------------------------------------------------------------------------------------------------


def test_patchmatch_continues_a_periodic_texture_exactly():
    tile = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    clean = tile.repeat(1, 10, 10)
    known = torch.ones(40, 40, dtype=torch.bool)
    known[14:26, 14:26] = False
    found = _filling.complete(clean * known, known, torch.Generator().manual_seed(1))
    assert (found - clean).abs().max() < 1e-5


def test_patchmatch_keeps_known_pixels_and_refuses_scattered_ones():
    clean = clean_images()
    problem = DEGRADE["mask"](clean, (0, 1))
    known = problem.operator.mask.expand_as(clean)
    assert torch.equal(_filling.patchmatch(problem, patch=5, rounds=1)[known], clean[known])
    scattered = _degradations.Sparse(0.1)(clean, (0, 1))
    with pytest.raises(CapabilityError, match="known whole"):
        _filling.patchmatch(scattered)


def test_patchmatch_leaves_a_complete_image_as_it_is():
    clean = clean_images()[0]
    known = torch.ones(SIDE, SIDE, dtype=torch.bool)
    assert torch.equal(_filling.complete(clean, known, torch.Generator()), clean)


def test_nearest_neighbour_finds_an_image_that_is_among_the_examples(examples):
    clean = _examples.examples_of_size(examples, 3, SIDE, SIDE)[[7, 21]].float() / 255
    problem = DEGRADE["mask"](clean, (0, 1))
    for blend in (False, True):
        found = _filling.nearest_neighbours(problem, examples=examples, skip=0, blend=blend)
        torch.testing.assert_close(found, clean, atol=1e-5, rtol=0)


def test_blending_adds_the_harmonic_function_of_the_gap():
    # A linear function is harmonic: the correction continues it over the hole.
    ramp = torch.linspace(0, 1, 12).expand(2, 12, 12).contiguous()
    known = torch.ones(12, 12, dtype=torch.bool)
    known[3:8, 4:9] = False
    found = _filling._harmonic(ramp * known, known)
    torch.testing.assert_close(found, ramp, atol=1e-6, rtol=0)


def test_examples_are_fitted_to_the_size_and_the_first_left_out(examples):
    assert _examples.examples_of_size(examples, 1, 10, 20).shape == (40, 1, 10, 20)
    assert _examples.examples_of_size(examples, 3, 10, 20, 30).shape == (10, 3, 10, 20)
    assert _examples.examples_of_size(examples, 3, 10, 20, 0, 10).shape == (10, 3, 10, 20)
    with pytest.raises(ImageFileError, match="training images"):
        _examples.examples_of_size(examples, 3, 10, 20, 40)


# Published weights ------------------------------------------------------------------------------------------


def write_matconvnet(path, layers):
    """Convolutions (height, width, inputs, outputs) as MATLAB v7.3 files hold them: axes reversed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        net = file.create_group("net")
        names = []
        for k, (weight, bias) in enumerate(layers):
            group = file.create_group(f"#refs#/layer{k}")
            group["type"] = np.array([[ord(c)] for c in "conv"], dtype=np.uint16)
            group["w"], group["b"] = weight.transpose(3, 2, 1, 0), bias[None]
            refs = np.array([[group["w"].ref], [group["b"].ref]], dtype=h5py.ref_dtype)
            group.create_dataset("weights", data=refs, dtype=h5py.ref_dtype)
            names.append([group.ref])
        net.create_dataset("layers", data=np.array(names, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)


def random_layers(widths):
    rng = np.random.default_rng(0)
    return [
        (
            rng.normal(size=(3, 3, i, o)).astype(np.float32) * 0.1,
            rng.normal(size=o).astype(np.float32) * 0.1,
        )
        for i, o in itertools.pairwise(widths)
    ]


def test_dncnn_is_read_from_the_authors_layout(tmp_path):
    layers = random_layers([3, 64, 64, 3])
    write_matconvnet(tmp_path / "color_sigma25.mat", layers)
    problem = _degradations.Noisy(25 / 255)(clean_images(), (0, 1))
    x = problem.y
    for k, (weight, bias) in enumerate(layers):
        # MATLAB's filters are (height, width, inputs, outputs), and its convolution is torch's.
        x = F.conv2d(x, torch.from_numpy(weight).permute(3, 2, 0, 1), torch.from_numpy(bias), padding=1)
        x = x if k == 2 else F.relu(x)
    found = _peers.dncnn(problem, peers=str(tmp_path))
    torch.testing.assert_close(found, problem.y - x, atol=1e-5, rtol=1e-4)


def test_ffdnet_orders_the_phases_by_columns(tmp_path):
    first, last = np.zeros((3, 3, 13, 96), np.float32), np.zeros((3, 3, 96, 12), np.float32)
    # Phase k of red alone goes through: the answer shows where MATLAB's second phase, one pixel down, lies.
    first[1, 1, 1, 0] = last[1, 1, 0, 0] = 1
    write_matconvnet(
        tmp_path / "FFDNet_color.mat", [(first, np.zeros(96, np.float32)), (last, np.zeros(12, np.float32))]
    )
    problem = _degradations.Noisy(0.1)(clean_images().clamp(0.4, 1), (0, 1))
    found = _peers.ffdnet(problem, peers=str(tmp_path))
    torch.testing.assert_close(found[:, 0, ::2, ::2], problem.y[:, 0, 1::2, ::2], atol=1e-6, rtol=0)


def test_published_weights_say_what_they_do_not_treat(tmp_path):
    problem = _degradations.Noisy(35 / 255)(clean_images(), (0, 1))
    with pytest.raises(CapabilityError, match="noise level"):
        _peers.dncnn(problem, peers=str(tmp_path))
    with pytest.raises(WeightsError, match="FFDNet_color"):
        _peers.ffdnet(problem, peers=str(tmp_path))
    gray = _degradations.Noisy(25 / 255)(clean_images()[:, :1], (0, 1))
    write_matconvnet(tmp_path / "color_sigma25.mat", random_layers([3, 64, 3]))
    with pytest.raises(CapabilityError, match="colour images"):
        _peers.dncnn(gray, peers=str(tmp_path))


def test_gray_images_pass_through_the_libraries():
    pytest.importorskip("bm3d")
    problem = _degradations.Noisy(0.1)(clean_images()[:, :1], (0, 1))
    found = _libraries.bm3d(problem)
    assert found.shape == problem.y.shape
    assert bool((squared_error(found, clean_images()[:, :1]) < 0.01).all())
