"""Trained networks become rows that tell each network what it was trained to be told, and no more."""

import dataclasses

import pytest
import torch

from invrestore import networks
from invrestore.bench import SUITES, _degradations, _learned
from invrestore.bench._methods import learned
from invrestore.errors import CapabilityError
from invrestore.networks import DCGAN, Card, Cascade, FaceGAN, RestorationUNet, UNet
from invrestore.operators import Identity, Mask
from invrestore.solvers import LatentSearch

SIDE = 16
UNET = {"widths": [4, 8], "blocks": 1, "informed": True}
FACE = {
    "size": SIDE,
    "latent_dim": 8,
    "generator_widths": [4, 8],
    "encoder_widths": [4, 8],
    "discriminator_widths": [4, 8],
    "mapping_layers": 2,
}
BLOCKS = (
    {"kind": "block", "size": (4, 8), "centred": 1.0, "told": 0.5},
    {"kind": "clutter", "size": (4, 8), "told": 0.0},
)
SPARSE = ({"kind": "sparse", "keep": (0.01, 0.5), "guided": 0.5},)
EVERYDAY = (
    {"kind": "noise", "sigma": (0.0, 0.3)},
    {"kind": "blur", "side": (3, 27), "width": (0.5, 3.0), "sigma": (0.0, 0.05)},
    {"kind": "jpeg", "quality": (5, 60), "subsampling": ("4:2:0",)},
)
MADE = {
    "tiny-denoiser": (UNet, {"widths": [4, 8], "blocks": 1}, ()),
    "tiny-unified": (RestorationUNet, UNET, EVERYDAY),
    "tiny-sparse": (RestorationUNet, UNET, SPARSE),
    "tiny-block": (RestorationUNet, UNET, BLOCKS),
    "tiny-colours": (RestorationUNet, UNET, ({"kind": "colornoise", "amount": (0.8, 0.95)},)),
    "tiny-cascade": (Cascade, {"generator": "RestorationUNet", "arguments": UNET, "width": 4}, BLOCKS[:1]),
    "tiny-faces": (FaceGAN, FACE, ()),
    "tiny-dcgan": (DCGAN, {"size": SIDE, "width": 4}, ()),
}


@pytest.fixture(autouse=True)
def weights(monkeypatch, tmp_path):
    """A catalogue of untrained networks, and short searches."""
    for name, (architecture, arguments, degradations) in MADE.items():
        torch.manual_seed(0)
        card = Card(
            name=name,
            architecture=architecture.__name__,
            arguments=arguments,
            sha256="",
            channels=3,
            sigma_range=(0.0, 1.0) if architecture is UNet else None,
            parameters=0,
            data="none",
            licence="none",
            metrics={},
            training="none",
            recipe="none",
            commit="none",
            reference="none",
            degradations=degradations,
        )
        networks.save(architecture(**arguments), tmp_path / f"{name}.safetensors", card)
    monkeypatch.setenv("INVRESTORE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(LatentSearch, "budget", lambda self, problem: 12)
    monkeypatch.setattr("invrestore.solvers._latent_adapt._ADAPTATION", 5)
    _learned._load.cache_clear()
    yield
    _learned._load.cache_clear()
    _learned._last.clear()


def pictures(count=2):
    """Smooth colour pictures."""
    small = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear")


def row(name, suffix=""):
    return next(method for method in learned(name) if method.name == name + suffix)


def settings(suite, name):
    return dict(next(r for r in SUITES[suite].rows if r.method == name).fixed)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("tiny-denoiser", {"noise", "blur", "downsample", "mask", "clutter", "quantize", "jpeg"}),
        ("tiny-unified", {"noise", "blur", "jpeg"}),
        ("tiny-sparse", {"mask"}),
        ("tiny-block", {"mask", "clutter"}),
        ("tiny-cascade", {"mask", "clutter"}),
        ("tiny-colours", {"colornoise"}),
    ],
)
def test_row_treats_what_the_network_was_trained_for(name, kinds):
    method = learned(name)[0]
    assert method.kinds == kinds
    assert method.networks == (method.name,) == (name,)
    assert bool(method.grid) == (name == "tiny-denoiser")


def test_a_denoiser_has_a_row_in_the_mean_over_its_views(monkeypatch):
    plain, averaged = learned("tiny-denoiser")
    assert averaged.name == "tiny-denoiser-ensemble"
    assert averaged.kinds == {"noise"}
    assert averaged.channels == (1, 3)
    calls = []
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda *a: calls.append(1) or forward(*a))
    problem = _degradations.Noisy(0.1)(pictures(), (0, 1))
    assert plain.run(problem).shape == averaged.run(problem).shape == problem.y.shape
    assert len(calls) == 1 + 8


def test_generator_has_rows_for_the_pipeline_its_first_stage_and_plain_map():
    assert [m.name for m in learned("tiny-faces")] == ["tiny-faces-map", "tiny-faces", "tiny-faces-raw"]
    for method in learned("tiny-faces"):
        averaged = ("denoiser",) if method.name == "tiny-faces" else ()
        assert method.networks == ("tiny-faces", *averaged)
        assert "grayscale" in method.kinds
        assert "colornoise" not in method.kinds


@pytest.fixture
def seen(monkeypatch):
    """What solve is asked."""
    asked = []
    solve = _learned.solve

    def listen(y, operator, prior, **options):
        asked.append((y, operator, options))
        return solve(y, operator, prior, **options)

    monkeypatch.setattr(_learned, "solve", listen)
    return asked


def test_sparse_samples_are_told_and_kept(seen):
    clean = pictures()
    problem = _degradations.Sparse(0.1, guided=True)(clean, (0, 1))
    found = row("tiny-sparse").run(problem, **settings("sparse", "xgan-sparse"))
    assert seen[0][1] is problem.operator
    known = problem.operator.mask.expand_as(clean)
    assert torch.equal(found[known], clean[known])


def test_told_hole_is_filled_and_a_blind_one_is_seen_white(seen):
    clean = pictures()
    hole = _degradations.Hole(6, fill=1.0)(clean, (0, 1))
    told = row("tiny-block").run(hole, **settings("hole128", "xgan-block"))
    assert isinstance(seen[0][1], Mask)
    assert bool((told[:, :, 6:10, 6:10] < 0.95).any())
    blind = row("tiny-block").run(hole, **settings("block128", "xgan-block"))
    assert isinstance(seen[1][1], Identity)
    assert torch.equal(seen[1][0], hole.view)
    # An untrained network of this kind gives back the first image, here what it was shown.
    torch.testing.assert_close(blind, hole.view, atol=1e-3, rtol=0)


def test_blind_network_is_shown_the_clutter_and_not_the_hole(seen):
    problem = _degradations.Clutter(4, 8)(pictures(), (0, 1))
    row("tiny-block").run(problem, **settings("block128", "xgan-block"))
    assert torch.equal(seen[0][0], problem.view)
    assert isinstance(seen[0][1], Identity)


def test_cascade_is_told_where_the_block_is(seen):
    problem = _degradations.Hole(6, fill=1.0)(pictures(), (0, 1))
    for suite in ("block128", "hole128"):
        found = row("tiny-cascade").run(problem, **settings(suite, "cascade"))
        known = problem.operator.mask.expand_as(found)
        assert torch.equal(found[known], problem.view[known])
    assert all(isinstance(operator, Mask) for _, operator, _ in seen)


def test_random_colours_reach_the_network_without_a_model(seen):
    problem = _degradations.ColoredPixels(0.9)(pictures(), (0, 1))
    found = row("tiny-colours").run(problem)
    assert found.shape == problem.view.shape
    assert isinstance(seen[0][1], Identity)


def test_unified_restorer_is_told_noise_level_and_quality(seen):
    noisy = _degradations.Noisy(0.1)(pictures(), (0, 1))
    row("tiny-unified").run(noisy)
    assert seen[0][2]["sigma"] == 0.1
    coded = _degradations.Compressed(10)(pictures(), (0, 1))
    found = row("tiny-unified").run(coded, **settings("jpeg", "unified"))
    assert seen[1][1] is coded.operator
    assert seen[1][1].quality == 10
    torch.testing.assert_close(coded.operator(found), coded.y, atol=0.05, rtol=0)


KINDS = {
    "hole": _degradations.Hole(6),
    "gray": _degradations.Gray(),
    "noise": _degradations.Noisy(0.1),
    "x4": _degradations.Reduced(4),
    "levels": _degradations.Levels(5),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["-map", "", "-raw"])
def test_search_restores_each_image_on_its_own(kind, suffix):
    clean = pictures()
    method = row("tiny-faces", suffix)
    found = method.run(KINDS[kind](clean, (3, 4)))
    assert found.shape == clean.shape
    alone = method.run(KINDS[kind](clean[1:], (4,)))
    torch.testing.assert_close(found[1:], alone, atol=1e-4, rtol=0)


def test_raw_row_is_the_same_whether_the_pipeline_ran_before_or_not():
    problem = KINDS["x4"](pictures(), (0, 1))
    alone = row("tiny-faces", "-raw").run(problem)
    whole = row("tiny-faces").run(problem)
    shared = row("tiny-faces", "-raw").run(problem)
    assert torch.equal(alone, shared)
    assert (whole - shared).abs().max() > 1e-3
    # Data consistency is what makes the difference.
    torch.testing.assert_close(problem.operator(whole), problem.y, atol=1e-3, rtol=0)


def test_raw_row_does_not_take_the_answer_of_another_problem():
    first, second = (KINDS["noise"](pictures(), seeds) for seeds in ((0, 1), (2, 3)))
    row("tiny-faces").run(first)
    other = row("tiny-faces", "-raw").run(second)
    _learned._last.clear()
    assert torch.equal(other, row("tiny-faces", "-raw").run(second))


def test_plain_map_begins_at_a_latent_of_the_images_own_seed(seen):
    problem = KINDS["noise"](pictures(), (5, 6))
    row("tiny-dcgan", "-map").run(problem)
    _, _, options = seen[0]
    expected = [torch.randn(1, 100, generator=torch.Generator().manual_seed(s)) for s in (5, 6)]
    assert torch.equal(options["init"], torch.cat(expected))
    assert options["restarts"] == 1
    assert options["fidelity"] == "l2"


def test_search_needs_a_forward_model():
    problem = dataclasses.replace(KINDS["noise"](pictures(), (0, 1)), operator=None)
    for suffix in ("", "-raw", "-map"):
        with pytest.raises(CapabilityError, match="forward model"):
            row("tiny-faces", suffix).run(problem)
