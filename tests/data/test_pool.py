import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invrestore import data
from invrestore.data import ImagePool
from invrestore.errors import ImageFileError, ShapeError, TrainingError


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = 200  # The central square is gray, the rest black.
    Image.fromarray(np.stack([*np.meshgrid(ramp, ramp), np.zeros((32, 32), np.uint8)], axis=2)).save(
        root / "a.png"
    )
    Image.fromarray(wide).save(root / "b.png")
    Image.fromarray(wide[:4]).save(root / "small.png")
    data.pack(data.find_images(root), tmp_path / "pack")
    return tmp_path / "pack"


def test_squares_are_central_reduced_and_large_enough(packed: Path) -> None:
    squares = data.read_squares(packed, 16)
    assert squares.shape == (2, 3, 16, 16)
    assert squares.dtype == torch.uint8
    assert torch.equal(squares[1], torch.full((3, 16, 16), 200, dtype=torch.uint8))
    assert (squares[0, 0, 0].diff() > 0).all()
    assert data.read_squares(packed, 32).shape == (1, 3, 32, 32)
    assert data.read_squares(packed, 16, channels=1).shape == (2, 1, 16, 16)


def test_pictures_that_are_all_too_small_are_refused(packed: Path) -> None:
    with pytest.raises(TrainingError, match="an image of at least 64x64 pixels"):
        data.read_squares(packed, 64)


def test_drawn_images_are_those_of_the_pool_some_mirrored(rng: torch.Generator) -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    drawn = (ImagePool(images).draw(64, rng) * 255).round().to(torch.uint8)
    known = [*images, *images.flip(3)]
    kinds = [next(k for k, image in enumerate(known) if torch.equal(image, x)) for x in drawn]
    assert set(kinds) == {0, 1, 2, 3}
    plain = ImagePool(images, mirror=False).draw(64, rng)
    assert all(any(torch.allclose(image / 255, x) for image in images) for x in plain)
    assert len(ImagePool(images)) == 2


def test_same_seed_same_images() -> None:
    pool = ImagePool(torch.arange(3 * 8 * 4, dtype=torch.uint8).view(8, 3, 2, 2))
    first, second = (pool.draw(16, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 4), torch.zeros(0, 3, 4, 4, dtype=torch.uint8)])
def test_pool_of_something_else_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="uint8 images"):
        ImagePool(images)


def test_archive_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for content in (b"first", b"second"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.png", content)
        assert data.ImageFile(path, "x.png").read() == content
    path.unlink()
    with pytest.raises(ImageFileError, match="a readable file"):
        data.ImageFile(path, "x.png").read()
