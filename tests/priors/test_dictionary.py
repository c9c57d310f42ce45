"""The dictionary prior: cosine atoms, K-SVD learning, denoising and filling."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from safetensors.torch import save_file

import invrestore as ir
from invrestore import assets
from invrestore.errors import (
    CapabilityError,
    DTypeError,
    ImageFileError,
    InvrestoreError,
    RangeError,
    ShapeError,
    UnknownNameError,
    WeightsError,
)
from invrestore.priors import Dictionary, _dictionary
from invrestore.priors._dictionary_learning import dct_atoms, ksvd
from invrestore.priors._sparse_coding import omp

F64 = torch.float64


def scene(height: int = 40, width: int = 40, channels: int = 3, dtype: torch.dtype = F64) -> torch.Tensor:
    """A smooth picture with edges and a texture, (1, C, H, W)."""
    i = torch.arange(height, dtype=dtype)[:, None] / 40
    j = torch.arange(width, dtype=dtype) / 40
    layers = [
        0.5 + 0.25 * torch.sin(5 * i + 3 * j + c) + 0.2 * ((i - 0.5) ** 2 + (j - 0.4) ** 2 < 0.1)
        for c in range(channels)
    ]
    return torch.stack(layers)[None] + 0.05 * torch.sin(60 * j)


def noisy(x: torch.Tensor, sigma: float, rng: torch.Generator) -> torch.Tensor:
    return x + sigma * torch.randn(x.shape, generator=rng, dtype=x.dtype)


def small_atoms(rng: torch.Generator, channels: int = 1) -> torch.Tensor:
    return torch.randn(12, channels, 3, 3, generator=rng, dtype=F64)


def mse(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean())


# Cosine atoms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "channels"), [(64, 1), (256, 1), (121, 3), (81, 2)])
def test_cosine_atoms_have_unit_norm_and_span_every_patch(count, channels):
    atoms = dct_atoms(8, count, channels).double().flatten(1)
    assert atoms.shape == (count * channels, 64 * channels)
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(len(atoms), dtype=F64), rtol=0, atol=1e-6)
    assert torch.linalg.matrix_rank(atoms, atol=1e-3) == 64 * channels


def test_the_first_cosine_atom_is_constant_and_the_others_have_zero_mean():
    atoms = dct_atoms(8, 256)
    torch.testing.assert_close(atoms[0], torch.full((1, 8, 8), 1 / 8))
    assert atoms[1:].mean((1, 2, 3)).abs().max() < 1e-6


# K-SVD --------------------------------------------------------------------------------------------------


def test_ksvd_finds_the_dictionary_that_made_the_examples(rng):
    true = torch.nn.functional.normalize(torch.randn(20, 12, generator=rng, dtype=F64), dim=1)
    pick = torch.rand(1500, 20, generator=rng, dtype=F64).argsort(1)[:, :2]
    values = torch.randn(1500, 2, generator=rng, dtype=F64)
    x = (true[pick] * values[:, :, None]).sum(1)
    found = ksvd(x, x[:20], sparsity=2, steps=40)
    cosines = (found @ true.T).abs().amax(0)
    assert (cosines > 0.99).sum() >= 18, cosines


def test_ksvd_lowers_the_error_of_its_own_examples(rng):
    x = torch.randn(400, 9, generator=rng, dtype=F64)
    start = torch.randn(18, 9, generator=rng, dtype=F64)
    errors = []
    for steps in (1, 3, 10):
        D = ksvd(x, start, sparsity=3, steps=steps)
        errors.append(float((x - omp(x, D, sparsity=3).decode(D)).norm()))
    before = float((x - omp(x, start, sparsity=3).decode(start)).norm())
    assert before > errors[0] > errors[1] > errors[2]


def test_ksvd_replaces_atoms_that_are_double_or_never_used(rng):
    x = torch.zeros(200, 6, dtype=F64)
    x[:, :4] = torch.randn(200, 4, generator=rng, dtype=F64)
    start = torch.eye(6, dtype=F64)
    start[1] = start[0]
    D = ksvd(x, start, sparsity=1, steps=5)
    assert D[:, 4:].abs().max() < 1e-12, "atoms outside the span of the examples were replaced"
    assert (D @ D.T - torch.eye(6, dtype=F64)).abs().max() < 0.99
    torch.testing.assert_close(D.norm(dim=1), torch.ones(6, dtype=F64))


def test_ksvd_draws_repeat_with_the_seed(rng):
    x = torch.randn(300, 9, generator=rng, dtype=F64)
    runs = [
        ksvd(x, x[:12], sparsity=2, steps=3, batch=100, rng=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sparsity or error"),
        ({"sparsity": 2, "batch": 5}, "rng with batch"),
        ({"sparsity": 2, "steps": 0}, "steps"),
    ],
)
def test_ksvd_refuses_bad_options(rng, options, message):
    x = torch.randn(30, 9, generator=rng)
    with pytest.raises(RangeError, match=message):
        ksvd(x, x[:10], **options)


# Denoising ----------------------------------------------------------------------------------------------


def test_declares_denoising_and_prox_but_no_value():
    prior = Dictionary()
    assert prior.can(ir.priors.Capability.DENOISE, ir.priors.Capability.PROX)
    with pytest.raises(CapabilityError, match="a prior with value"):
        prior.value(scene())


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("coder", ["omp", "l1"])
def test_removes_most_of_the_noise(rng, channels, coder):
    x = scene(24, 24, channels=channels)
    y = noisy(x, 0.1, rng)
    assert mse(Dictionary(coder=coder).denoise(y, 0.1), x) < 0.25 * mse(y, x)


def test_shipped_colour_atoms_beat_the_cosines_channel_by_channel(rng):
    x = ir.load_image(assets.photo("astronaut"))[..., 40:88, 100:148]
    y = noisy(x, 0.1, rng)
    learned, cosine = (mse(d.denoise(y, 0.1), x) for d in (Dictionary(), Dictionary.dct()))
    assert learned < 0.8 * cosine


def test_adapting_to_the_noisy_image_helps_on_its_own_texture(rng):
    i = torch.arange(64)
    x = (((i[:, None] * 3 + i * 5) % 11 < 4) * 0.5 + 0.25).to(F64)[None, None]
    y = noisy(x, 0.1, rng)
    fixed = Dictionary(dct_atoms(8, 100))
    assert mse(dataclasses.replace(fixed, adapt=4).denoise(y, 0.1), x) < 0.7 * mse(fixed.denoise(y, 0.1), x)


def test_formula_of_the_paper_on_a_single_patch(rng):
    atoms = small_atoms(rng)
    y = torch.rand(1, 1, 3, 3, generator=rng, dtype=F64)
    sigma, gain = 0.1, 1.15
    patch = y.flatten(1)
    mean = patch.mean(1, keepdim=True)
    found = (
        omp(patch - mean, atoms.flatten(1), error=gain * sigma * 3, sparsity=4).decode(atoms.flatten(1))
        + mean
    )
    mu = 255 * sigma / 30
    expected = (patch + mu * found) / (1 + mu)
    torch.testing.assert_close(
        Dictionary(atoms, gain=gain).denoise(y, sigma).flatten(1), expected, rtol=0, atol=1e-12
    )


def test_average_of_overlapping_patches_matches_a_loop(rng):
    atoms = small_atoms(rng, 2)
    prior = Dictionary(atoms, gain=1.1, stride=1)
    y = torch.rand(1, 2, 6, 5, generator=rng, dtype=F64)
    D, total, count = atoms.flatten(1), torch.zeros_like(y), torch.zeros_like(y)
    for i in range(4):
        for j in range(3):
            patch = y[:, :, i : i + 3, j : j + 3]
            mean = patch.mean((2, 3), keepdim=True)
            code = omp((patch - mean).flatten(1), D, error=1.1 * 0.1 * 18**0.5, sparsity=4)
            total[:, :, i : i + 3, j : j + 3] += code.decode(D).view_as(patch) + mean
            count[:, :, i : i + 3, j : j + 3] += 1
    mu = 255 * 0.1 / 30
    torch.testing.assert_close(prior.denoise(y, 0.1), (y + mu * total) / (1 + mu * count), rtol=0, atol=1e-12)


def test_default_gain_is_the_quantile_of_the_norm_of_noise():
    from scipy.stats import chi2

    for n in (9, 64, 192):
        for share in (0.82, 0.96):
            assert _dictionary._noise_quantile(n, share) == pytest.approx(
                math.sqrt(chi2.ppf(share, n) / n), rel=3e-3
            )


def test_flat_patches_of_pure_noise_become_their_mean(rng):
    y = noisy(torch.full((1, 1, 40, 40), 0.5, dtype=F64), 0.05, rng)
    assert float(Dictionary().denoise(y, 0.05).std()) < 0.3 * 0.05


def test_at_level_zero_the_image_comes_back(rng):
    y = torch.rand(2, 3, 11, 9, generator=rng, dtype=F64)
    torch.testing.assert_close(Dictionary().denoise(y, 0.0), y, rtol=0, atol=0)
    torch.testing.assert_close(Dictionary().denoise(y, torch.tensor([0.0, 0.1]))[0], y[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (8, 8), (9, 17), (33, 16)])
@pytest.mark.parametrize("stride", [1, 2, 3, 8])
def test_takes_every_size_and_stride(rng, size, stride):
    y = torch.rand(1, 3, *size, generator=rng)
    out = Dictionary(stride=stride).denoise(y, 0.1)
    assert out.shape == y.shape
    assert torch.isfinite(out).all()


def test_images_of_a_batch_are_denoised_on_their_own(rng):
    y = torch.rand(7, 3, 12, 10, generator=rng, dtype=F64)
    sigma = torch.linspace(0.02, 0.3, 7, dtype=F64)
    prior = Dictionary()
    together = prior.denoise(y, sigma)
    for one, level, image in zip(y, sigma, together, strict=True):
        torch.testing.assert_close(image, prior.denoise(one[None], float(level))[0], rtol=0, atol=1e-10)


def test_bands_of_a_large_image_do_not_show(rng, monkeypatch):
    y = torch.rand(2, 1, 21, 18, generator=rng, dtype=F64)
    for stride in (1, 3):
        prior = Dictionary(small_atoms(rng), stride=stride)
        whole = prior.denoise(y, 0.1)
        monkeypatch.setattr(_dictionary, "_BAND", 40)
        torch.testing.assert_close(prior.denoise(y, 0.1), whole, rtol=0, atol=1e-12)
        monkeypatch.undo()


def test_gray_atoms_treat_channels_on_their_own(rng):
    y = torch.rand(2, 3, 10, 10, generator=rng, dtype=F64)
    prior = Dictionary(small_atoms(rng))
    sigma = torch.tensor([0.1, 0.2], dtype=F64)
    channels = [prior.denoise(y[:, c : c + 1], sigma) for c in range(3)]
    torch.testing.assert_close(prior.denoise(y, sigma), torch.cat(channels, 1), rtol=0, atol=1e-12)


def test_prox_is_denoising_at_the_root_of_the_variance(rng):
    y = torch.rand(2, 3, 10, 10, generator=rng, dtype=F64)
    prior = Dictionary(lam=0.02)
    torch.testing.assert_close(prior.prox(y, 0.5), prior.denoise(y, 0.1), rtol=0, atol=1e-12)
    each = prior.prox(y, torch.tensor([0.5, 2.0], dtype=F64))
    torch.testing.assert_close(each[1:], prior.denoise(y[1:], 0.2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64])
def test_type_of_the_image_is_kept(rng, dtype):
    y = noisy(scene(16, 16), 0.1, rng)
    out = Dictionary().denoise(y.to(dtype), 0.1)
    assert out.dtype == dtype
    assert (out.double() - Dictionary().denoise(y, 0.1)).abs().mean() < 0.02


def test_gradients_match_finite_differences(rng):
    y = torch.rand(1, 1, 5, 4, generator=rng, dtype=F64, requires_grad=True)
    atoms = small_atoms(rng).requires_grad_()
    sigma = torch.tensor(0.1, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda y, a, s: Dictionary(a).denoise(y, s), (y, atoms, sigma), eps=1e-7, atol=1e-4
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_agree(rng):
    y = noisy(scene(48, 56), 0.1, rng)
    prior = Dictionary()
    for coder in ("omp", "l1"):
        p = dataclasses.replace(prior, coder=coder)
        torch.testing.assert_close(p.denoise(y.cuda(), 0.1).cpu(), p.denoise(y, 0.1), rtol=0, atol=1e-6)
    mask = (torch.rand(1, 1, 48, 56, generator=rng) > 0.5).double()
    filled = prior.denoise((mask * y).cuda(), 0.0, mask=mask.cuda()).cpu()
    torch.testing.assert_close(filled, prior.denoise(mask * y, 0.0, mask=mask), rtol=0, atol=1e-6)


# Filling ------------------------------------------------------------------------------------------------


def test_missing_pixels_are_filled_and_known_ones_kept(rng):
    x = scene(32, 32)
    mask = (torch.rand(1, 1, 32, 32, generator=rng) > 0.5).double()
    out = Dictionary().denoise(x * mask, 0.0, mask=mask)
    torch.testing.assert_close(out * mask, x * mask, rtol=0, atol=1e-4)
    missing = (1 - mask).expand_as(x).bool()
    assert float((out - x)[missing].square().mean().sqrt()) < 0.25 * float(x.std())


def test_what_hides_behind_the_mask_does_not_matter(rng):
    x = scene(20, 20)
    mask = (torch.rand(1, 3, 20, 20, generator=rng) > 0.4).double()
    junk = torch.where(mask > 0, x, torch.rand(x.shape, generator=rng, dtype=F64) * 9)
    prior = Dictionary()
    torch.testing.assert_close(
        prior.denoise(junk, 0.05, mask=mask), prior.denoise(x * mask, 0.05, mask=mask), rtol=0, atol=1e-9
    )


def test_pixels_no_patch_knows_anything_about_keep_their_value(rng):
    y = torch.rand(1, 3, 40, 40, generator=rng, dtype=F64)
    mask = torch.ones(1, 1, 40, 40, dtype=F64)
    mask[..., 5:35, 5:35] = 0
    out = Dictionary().denoise(y, 0.0, mask=mask)
    torch.testing.assert_close(out[..., 13:27, 13:27], y[..., 13:27, 13:27], rtol=0, atol=0)
    assert torch.isfinite(out).all()


def test_a_full_mask_denoises(rng):
    x = scene(24, 24)
    y = noisy(x, 0.1, rng)
    assert mse(Dictionary().denoise(y, 0.1, mask=torch.ones(1)), x) < 0.3 * mse(y, x)


# Inside solve -------------------------------------------------------------------------------------------


def test_solve_denoises_in_one_call(rng):
    y = noisy(scene(24, 24), 0.1, rng)
    solution = ir.solve(y, ir.operators.Identity(), Dictionary(), sigma=0.1)
    torch.testing.assert_close(solution.x, Dictionary().denoise(y, 0.1), rtol=0, atol=1e-12)


def test_solve_deblurs_and_inpaints(rng):
    x = scene(32, 32)
    blur = ir.operators.Blur(ir.kernels.gaussian(1.2).double())
    y = noisy(blur(x), 0.01, rng)
    assert mse(ir.solve(y, blur, Dictionary(), sigma=0.01).x, x) < 0.7 * mse(y, x)
    mask = (torch.rand(1, 1, 32, 32, generator=rng) > 0.4).double()
    A = ir.operators.Mask(mask)
    filled = ir.solve(A(x), A, Dictionary(), sigma=0.0)
    assert math.sqrt(mse(filled.x, x)) < 0.06


# Learning and files -------------------------------------------------------------------------------------


def test_learned_atoms_code_the_images_they_come_from_better(rng):
    i = torch.arange(60)
    x = (((i[:, None] * 3 + i * 5) % 11 < 4) * 0.5 + 0.25).float()[None, None]
    learned = Dictionary.learn(x, sparsity=2, size=6, count=36, steps=5)
    patches = _dictionary._examples("test", [x], 6, 500, None)

    def left(d):
        D = d.atoms.flatten(1)
        return float((patches - omp(patches, D, sparsity=2).decode(D)).norm())

    assert left(learned) < 0.5 * left(Dictionary.dct(6, 36))


def test_learning_takes_images_of_many_sizes_and_repeats(rng):
    images = [torch.rand(2, 3, 12, 15, generator=rng), torch.rand(1, 3, 9, 8, generator=rng)]
    runs = [
        Dictionary.learn(
            images, sigma=0.1, size=4, count=20, steps=2, examples=60, rng=torch.Generator().manual_seed(s)
        )
        for s in (3, 3, 4)
    ]
    assert runs[0].atoms.shape == (20, 3, 4, 4)
    assert torch.equal(runs[0].atoms, runs[1].atoms)
    assert not torch.equal(runs[0].atoms, runs[2].atoms)


def test_learning_from_a_folder_is_learning_from_its_images(rng, tmp_path):
    images = torch.rand(2, 3, 14, 14, generator=rng).mul(255).round() / 255
    for i, image in enumerate(images):
        ir.save_image(image[None], tmp_path / f"{i}.png")
    options = {"sparsity": 2, "size": 4, "count": 16, "steps": 2}
    torch.testing.assert_close(
        Dictionary.learn(tmp_path, **options).atoms,
        Dictionary.learn(images, **options).atoms,
        rtol=0,
        atol=1e-5,
    )
    assert Dictionary.learn(str(tmp_path), lam=0.3, **options).lam == 0.3


def test_examples_are_patches_without_their_mean(rng):
    x = torch.rand(2, 2, 6, 7, generator=rng, dtype=F64)
    found = _dictionary._examples("test", [x], 3, 1000, None)
    every = _dictionary._cut(x, 3, 1).view(-1, 2, 9)
    torch.testing.assert_close(found, (every - every.mean(2, keepdim=True)).flatten(1))


@pytest.mark.parametrize("channels", [1, 3])
def test_shipped_atoms_are_256_of_8x8_and_small(channels):
    atoms = _dictionary.shipped_atoms(channels)
    assert atoms.shape == (256, channels, 8, 8)
    torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(256), rtol=0, atol=2e-3)
    cosines = (atoms.flatten(1) @ atoms.flatten(1).T).abs().fill_diagonal_(0)
    assert cosines.max() < 0.995


@pytest.mark.parametrize("damage", ["missing", "no safetensors", "other tensors"])
def test_damaged_atoms_are_reported(tmp_path, monkeypatch, damage):
    path = tmp_path / "dictionary_8x8_gray.safetensors"
    if damage == "no safetensors":
        path.write_bytes(b"not a file of tensors")
    elif damage == "other tensors":
        save_file({"weights": torch.ones(2)}, path)
    monkeypatch.setattr(_dictionary.resources, "files", lambda package: tmp_path)
    with pytest.raises(WeightsError, match="the shipped atoms dictionary_8x8_gray"):
        _dictionary.shipped_atoms.__wrapped__(1)


X = torch.rand(2, 3, 9, 9)
BAD = [
    (lambda: Dictionary([1.0]), DTypeError, "atoms as a floating-point tensor"),
    (lambda: Dictionary(torch.ones(4, 1, 3, 3).int()), DTypeError, "int32"),
    (lambda: Dictionary(torch.ones(4, 9)), ShapeError, r"\(K, C, p, p\)"),
    (lambda: Dictionary(torch.ones(4, 1, 3, 4)), ShapeError, r"\(K, C, p, p\)"),
    (lambda: Dictionary(torch.zeros(4, 1, 3, 3)), RangeError, "not zero"),
    (lambda: Dictionary(lam=-1.0), RangeError, "lam >= 0"),
    (lambda: Dictionary(coder="ompp"), UnknownNameError, "Did you mean 'omp'"),
    (lambda: Dictionary(gain=0.0), RangeError, "gain > 0"),
    (lambda: Dictionary(stride=0), RangeError, "stride >= 1"),
    (lambda: Dictionary(adapt=-1), RangeError, "adapt >= 0"),
    (lambda: Dictionary(max_atoms=0), RangeError, "max_atoms >= 1"),
    (lambda: Dictionary.dct(8, 50), RangeError, "Try 64 or 81"),
    (lambda: Dictionary().prox(X), CapabilityError, "a weight lam"),
    (lambda: Dictionary().denoise(X[0], 0.1), ShapeError, "Add the batch axis"),
    (lambda: Dictionary().denoise(X, 25.0), RangeError, "8-bit level"),
    (lambda: Dictionary().denoise(X, torch.ones(3) / 9), ShapeError, "one number for each image"),
    (lambda: Dictionary().denoise(X, 0.1, mask=torch.ones(5)), ShapeError, "a mask broadcastable"),
    (lambda: Dictionary().denoise(X, 0.1, mask=2 * torch.ones(9)), RangeError, r"a mask in \[0, 1\]"),
    (
        lambda: Dictionary(torch.ones(2, 3, 4, 4)).denoise(X[:, :1], 0.1),
        ShapeError,
        "the 3 channels of the atoms",
    ),
    (lambda: Dictionary.learn(X), RangeError, "sigma or sparsity"),
    (lambda: Dictionary.learn(X, sigma=25.0), RangeError, "8-bit level"),
    (lambda: Dictionary.learn(X[..., :4], sparsity=2), ShapeError, "images of at least 8x8"),
    (lambda: Dictionary.learn([X, X[:, :1]], sparsity=2), ShapeError, "equal channels"),
    (lambda: Dictionary.learn([], sparsity=2), ShapeError, "no image"),
    (
        lambda: Dictionary.learn(X, sparsity=2, start=torch.ones(4, 1, 3, 3)),
        ShapeError,
        "3 channels, as the images",
    ),
    (lambda: Dictionary.learn(X[:, :1], sparsity=2, count=50), RangeError, "count as a square"),
    (lambda: Dictionary.learn("/no/such/folder", sparsity=2), ImageFileError, "existing folder"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, InvrestoreError)


def test_folders_without_usable_images_are_refused(tmp_path):
    with pytest.raises(ImageFileError, match="images to learn from"):
        Dictionary.learn(tmp_path, sparsity=2)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageFileError, match="readable images"):
        Dictionary.learn(tmp_path, sparsity=2)
