from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invrestore import DTypeError, ImageFileError, RangeError, ShapeError, UnknownNameError, kernels


def moments(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean offset from the sample n // 2 and covariance."""
    k = kernel[0, 0].double()
    i = torch.arange(k.shape[0]).double() - k.shape[0] // 2
    j = torch.arange(k.shape[1]).double() - k.shape[1] // 2
    mean = torch.stack([(k.sum(1) * i).sum(), (k.sum(0) * j).sum()])
    di, dj = i - mean[0], j - mean[1]
    cross = (k * di[:, None] * dj).sum()
    return mean, torch.stack([(k.sum(1) * di**2).sum(), cross, (k.sum(0) * dj**2).sum()])


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_every_kernel_sums_to_one_in_the_default_type(side: int) -> None:
    made = [kernels.gaussian(1.3, side), kernels.box(side), kernels.motion(side), kernels.disk(side / 2)]
    for kernel in made:
        assert kernel.ndim == 4
        assert kernel.shape[:2] == (1, 1)
        assert kernel.dtype == torch.get_default_dtype()
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
        assert bool((kernel >= 0).all())


def test_gaussian_has_its_moments() -> None:
    mean, covariance = moments(kernels.gaussian(1.6))
    assert torch.allclose(mean, torch.zeros(2).double(), atol=1e-6)
    assert torch.allclose(covariance, torch.tensor([1.6**2, 0, 1.6**2]).double(), atol=5e-3)


def test_turned_gaussian_has_the_turned_covariance() -> None:
    angle, tall, wide = 0.5, 3.0, 1.0
    _, covariance = moments(kernels.gaussian((tall, wide), angle=angle))
    c, s = math.cos(angle), math.sin(angle)
    expected = [tall**2 * c**2 + wide**2 * s**2, (tall**2 - wide**2) * s * c, tall**2 * s**2 + wide**2 * c**2]
    assert torch.allclose(covariance, torch.tensor(expected).double(), rtol=0.02)


def test_even_gaussian_peaks_at_its_centre_sample() -> None:
    kernel = kernels.gaussian(1.0, 6)[0, 0]
    assert divmod(int(kernel.argmax()), 6) == (3, 3)


def test_disk_is_the_exact_area() -> None:
    radius, fine = 3.3, 64
    kernel = kernels.disk(radius)[0, 0].double()
    side = kernel.shape[0]
    g = (torch.arange(side * fine).double() + 0.5) / fine - side / 2
    inside = ((g[:, None] ** 2 + g**2) < radius**2).double().view(side, fine, side, fine).mean((1, 3))
    assert torch.allclose(kernel, inside / inside.sum(), atol=2e-5)
    assert float(kernel[side // 2, side // 2]) == pytest.approx(1 / (math.pi * radius**2), rel=1e-5)
    assert torch.equal(kernels.disk(0.4), torch.ones(1, 1, 1, 1))


def test_motion_is_a_centred_path_that_the_seed_decides() -> None:
    for seed in range(6):
        kernel = kernels.motion(21, torch.Generator().manual_seed(seed))
        mean, _ = moments(kernel)
        assert float(mean.abs().max()) < 0.5
        assert float((kernel > 0).double().mean()) < 0.5
        assert torch.equal(kernel, kernels.motion(21, torch.Generator().manual_seed(seed)))
    assert torch.equal(kernels.motion(21), kernels.motion(21, torch.Generator().manual_seed(0)))
    assert not torch.equal(kernels.motion(21), kernels.motion(21, torch.Generator().manual_seed(1)))


def test_motion_without_shake_is_a_straight_line() -> None:
    _, (a, b, c) = moments(kernels.motion(31, torch.Generator().manual_seed(5), shake=0.0))
    spread = torch.linalg.eigvalsh(torch.tensor([[a, b], [b, c]]))
    assert float(spread[0]) < 0.5 < 20 < float(spread[1])


def test_from_file_reads_every_kind(tmp_path: Path) -> None:
    values = np.array([[0, 2, 0], [4, 10, 0]], dtype=np.float64)
    expected = torch.from_numpy(values / values.sum()).to(torch.get_default_dtype())[None, None]
    np.save(tmp_path / "k.npy", values)
    np.savez(tmp_path / "one.npz", k=values)
    np.savez(tmp_path / "two.npz", a=values, b=values.T)
    np.savetxt(tmp_path / "k.txt", values)
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "k.png")
    Image.fromarray((values * 1000).astype(np.uint16)).save(tmp_path / "deep.png")
    for name in ("k.npy", "one.npz", "k.txt", "k.png", "deep.png"):
        assert torch.allclose(kernels.from_file(tmp_path / name), expected)
    assert torch.allclose(kernels.from_file(tmp_path / "two.npz", key="b"), expected.mT)
    column = np.array([[1.0], [2.0], [1.0]])
    np.save(tmp_path / "column.npy", column[None, None])
    assert kernels.from_file(str(tmp_path / "column.npy")).shape == (1, 1, 3, 1)


def test_from_file_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="an existing file"):
        kernels.from_file(tmp_path / "none.png")
    with pytest.raises(ImageFileError, match="a file of kind"):
        kernels.from_file(tmp_path / "kernel.mat")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageFileError, match=r"a readable .png file"):
        kernels.from_file(tmp_path / "text.png")
    (tmp_path / "words.txt").write_text("one two")
    with pytest.raises(ImageFileError, match=r"a readable .txt file"):
        kernels.from_file(tmp_path / "words.txt")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ImageFileError, match=r"a readable .npy file"):
        kernels.from_file(tmp_path / "cut.npy")
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"2 arrays: a, b.*key="):
        kernels.from_file(tmp_path / "two.npz")
    with pytest.raises(UnknownNameError, match="'c'"):
        kernels.from_file(tmp_path / "two.npz", key="c")
    np.save(tmp_path / "cube.npy", np.ones((2, 3, 3)))
    with pytest.raises(ShapeError, match=r"an array of shape \(2, 3, 3\)"):
        kernels.from_file(tmp_path / "cube.npy")
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    with pytest.raises(RangeError, match="finite numbers"):
        kernels.from_file(tmp_path / "nan.npy")
    np.save(tmp_path / "zero.npy", np.zeros((2, 2)))
    with pytest.raises(RangeError, match="a positive sum"):
        kernels.from_file(tmp_path / "zero.npy")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: kernels.gaussian(0.0), RangeError, "sigma > 0"),
        (lambda: kernels.gaussian(-1.0), RangeError, "sigma > 0"),
        (lambda: kernels.gaussian((1.0, math.nan)), RangeError, "sigma > 0"),
        (lambda: kernels.gaussian((1.0, 1.0, 1.0)), ShapeError, "a number or a pair"),  # type: ignore[arg-type]
        (lambda: kernels.gaussian(1.0, angle=math.inf), RangeError, "a finite angle"),
        (lambda: kernels.gaussian(1.0, 0), RangeError, "size >= 1"),
        (lambda: kernels.gaussian(1.0, 2.5), DTypeError, "size as an int or a pair"),  # type: ignore[arg-type]
        (lambda: kernels.box(0), RangeError, "size >= 1"),
        (lambda: kernels.disk(0.0), RangeError, "radius > 0"),
        (lambda: kernels.motion(0), RangeError, "size >= 1"),
        (lambda: kernels.motion(9, shake=2.0), RangeError, r"shake in \[0, 1\]"),
        (lambda: kernels.motion(9, rng=0), DTypeError, "rng as a torch.Generator"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(make: object, error: type[Exception], message: str) -> None:
    assert callable(make)
    with pytest.raises(error, match=message):
        make()
