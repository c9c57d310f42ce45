"""Super-resolution by coupled dictionaries."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

import invrestore as ir
from invrestore import assets
from invrestore.errors import CapabilityError, RangeError, ShapeError, WeightsError
from invrestore.operators import Blur, Downsample
from invrestore.restorers import CoupledAtoms, CoupledDictionary, Restorer, _coupled

F64 = torch.float64


def photo(name: str = "chelsea", side: int = 96) -> torch.Tensor:
    return ir.load_image(assets.photo(name))[..., 60 : 60 + side, 60 : 60 + side]


def stripes(side: int = 48) -> torch.Tensor:
    i = torch.arange(side)
    return (((i[:, None] * 2 + i * 3) % 12 < 5) * 0.6 + 0.2).to(F64)[None, None]


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_shipped_atoms_beat_bicubic_enlargement(factor, name):
    x, A = photo(name), Downsample(factor)
    y = A(x)
    gain = ir.psnr(CoupledDictionary().restore(y, A), x) - ir.psnr(_coupled._enlarged(y, A), x)
    assert float(gain) > 0.3


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_answer_agrees_with_the_measurement(factor):
    A = Downsample(factor)
    y = A(photo(side=48)).double()
    torch.testing.assert_close(A(CoupledDictionary().restore(y, A)), y, rtol=0, atol=1e-6)


def test_enlargement_is_pillows_bicubic():
    import numpy as np
    from PIL import Image

    y = torch.rand(1, 1, 11, 14, generator=torch.Generator().manual_seed(1))
    wanted = Image.fromarray(y[0, 0].numpy()).resize((42, 33), Image.Resampling.BICUBIC)
    torch.testing.assert_close(_coupled._enlarged(y, Downsample(3))[0, 0], torch.from_numpy(np.array(wanted)))


def test_features_are_differences_over_one_small_pixel():
    i = torch.arange(20, dtype=F64)
    ramp = (0.1 * i[:, None] ** 2 + 0.5 * i)[None, None]
    across, second_across, down, second_down = _coupled._derivatives(ramp, 2)[0, :, 2:-2, 2:-2]
    torch.testing.assert_close(across, torch.full_like(across, 2.0))
    torch.testing.assert_close(second_across, torch.zeros_like(across))
    torch.testing.assert_close(down, 0.8 * i[2:-2, None].expand(16, 16))
    torch.testing.assert_close(second_down, torch.full_like(across, 0.4))


def test_colour_gets_the_detail_of_its_luma_in_all_channels():
    A = Downsample(2)
    gray = photo(side=32).double().mean(1, keepdim=True)
    one = CoupledDictionary().restore(A(gray), A)
    three = CoupledDictionary().restore(A(gray.expand(-1, 3, -1, -1)), A)
    torch.testing.assert_close(three, one.expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 5), (13, 16)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_takes_every_size_and_channel_count(size, channels):
    y = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1))
    out = CoupledDictionary().restore(y, Downsample(3))
    assert out.shape == (1, channels, 3 * size[0], 3 * size[1])
    assert torch.isfinite(out).all()


def test_sizes_the_factor_does_not_divide():
    A = Downsample(2, input_shape=(1, 17, 23))
    x = torch.rand(1, 1, 17, 23, generator=torch.Generator().manual_seed(1), dtype=F64)
    assert CoupledDictionary().restore(A(x), A).shape == x.shape


def test_images_of_a_batch_are_restored_on_their_own():
    A = Downsample(2)
    y = torch.rand(7, 3, 8, 9, generator=torch.Generator().manual_seed(1), dtype=F64)
    together = CoupledDictionary().restore(y, A)
    for one, image in zip(y, together, strict=True):
        torch.testing.assert_close(image, CoupledDictionary().restore(one[None], A)[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64])
def test_type_of_the_measurement_is_kept(dtype):
    y = Downsample(2)(photo(side=32)).to(dtype)
    assert CoupledDictionary().restore(y, Downsample(2)).dtype == dtype


def test_gradients_flow_to_the_measurement():
    A = Downsample(2)
    y = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: CoupledDictionary().restore(y, A), y, eps=1e-7, atol=1e-4)


def test_solve_takes_it_as_a_prior():
    A = Downsample(2)
    y = A(photo(side=32))
    assert isinstance(CoupledDictionary(), Restorer)
    torch.testing.assert_close(ir.solve(y, A, CoupledDictionary()).x, CoupledDictionary().restore(y, A))


def test_learned_atoms_restore_the_texture_they_come_from():
    A, x = Downsample(2), stripes()
    rng = torch.Generator().manual_seed(1)
    atoms = CoupledAtoms.learn([x], A, count=60, steps=3, rng=rng)
    y = A(x)
    learned, plain = CoupledDictionary(atoms).restore(y, A), _coupled._enlarged(y, A)
    assert float(ir.psnr(learned, x)) > float(ir.psnr(plain, x)) + 6


def test_learning_repeats_with_the_seed():
    images = [stripes(), photo(side=36).double()]
    runs = [
        CoupledAtoms.learn(
            images, Downsample(3), count=20, steps=2, examples=150, rng=torch.Generator().manual_seed(s)
        )
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0].low, runs[1].low)
    assert torch.equal(runs[0].high, runs[1].high)
    assert not torch.equal(runs[0].high, runs[2].high)


def test_reduced_features_keep_their_energy():
    A = Downsample(2)
    features, _ = _coupled._pairs("test", photo().double(), A)
    atoms = CoupledAtoms.learn(
        [photo().double()], A, count=30, steps=1, energy=0.95, rng=torch.Generator().manual_seed(1)
    )
    kept = float((features @ atoms.basis.mT).square().sum() / features.square().sum())
    assert 0.95 <= kept < 1
    smaller = float((features @ atoms.basis[:-1].mT).square().sum() / features.square().sum())
    assert smaller < 0.95
    torch.testing.assert_close(atoms.basis @ atoms.basis.mT, torch.eye(len(atoms.basis), dtype=F64))


@pytest.mark.parametrize("damage", ["no safetensors", "other tensors"])
def test_damaged_atoms_are_reported(tmp_path, monkeypatch, damage):
    path = tmp_path / "coupled_2x.safetensors"
    if damage == "no safetensors":
        path.write_bytes(b"not a file of tensors")
    else:
        save_file({"low": torch.ones(2)}, path)
    monkeypatch.setattr(_coupled.resources, "files", lambda package: tmp_path)
    with pytest.raises(WeightsError, match="the shipped atoms coupled_2x"):
        _coupled._load.__wrapped__(2)


Y = torch.rand(1, 3, 8, 8)
RNG = torch.Generator().manual_seed(0)
BAD = [
    (
        lambda: CoupledDictionary().restore(Y, Blur(torch.ones(3, 3) / 9)),
        CapabilityError,
        "operators.Downsample",
    ),
    (lambda: CoupledDictionary().restore(Y, Downsample(8)), CapabilityError, r"a factor out of \[2, 3, 4\]"),
    (lambda: CoupledDictionary(_coupled._load(2)).restore(Y, Downsample(3)), CapabilityError, "as the atoms"),
    (lambda: CoupledDictionary(sparsity=0), RangeError, "sparsity >= 1"),
    (lambda: CoupledDictionary().restore(Y[0], Downsample(2)), ShapeError, "Add the batch axis"),
    (lambda: dataclasses.replace(_coupled._load(2), factor=1), RangeError, "factor >= 2"),
    (lambda: dataclasses.replace(_coupled._load(2), factor=3), ShapeError, "basis of shape"),
    (lambda: CoupledAtoms.learn([Y[..., :4]], Downsample(2), rng=RNG), ShapeError, "images of at least 6x6"),
    (lambda: CoupledAtoms.learn([Y], Downsample(2), rng=RNG), RangeError, "at least 512 examples"),
    (lambda: CoupledAtoms.learn([], Downsample(2), rng=RNG), RangeError, "at least 512 examples"),
    (lambda: CoupledAtoms.learn([Y], Downsample(2), energy=0.0, rng=RNG), RangeError, r"energy in \(0, 1\]"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
