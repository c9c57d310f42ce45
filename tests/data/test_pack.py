from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invrestore import data
from invrestore.data import PatchPool
from invrestore.errors import ImageFileError, RangeError, TrainingError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    random = np.random.default_rng(0)
    for number, size in enumerate([(40, 30), (24, 50), (16, 16)]):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def test_pack_keeps_the_files_as_they_are(folder: Path, tmp_path: Path) -> None:
    summary = data.pack(data.find_images(folder), tmp_path / "pack", description="my photos")
    assert data.read_pack(tmp_path / "pack") == [path.read_bytes() for path in sorted(folder.iterdir())]
    assert summary.images == 3
    assert summary.size == sum(path.stat().st_size for path in folder.iterdir())
    assert data.describe_pack(tmp_path / "pack") == "3 images of my photos"


def test_large_images_are_reduced_on_request(folder: Path, tmp_path: Path) -> None:
    data.pack(data.find_images(folder), tmp_path / "pack", max_side=20)
    pool = PatchPool.from_pack(tmp_path / "pack")
    assert pool.sides.tolist() == [[20, 15], [10, 20], [16, 16]]


def test_unreadable_files_are_reported_and_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"no picture")
    summary = data.pack(data.find_images(folder), tmp_path / "pack")
    assert summary.unreadable == ("broken.jpg",)
    assert summary.images == 3


def test_images_beyond_the_largest_pack_are_drawn_at_random(folder: Path, tmp_path: Path) -> None:
    for number in range(3, 30):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    images = data.find_images(folder)
    packs = [data.pack(images, tmp_path / f"{seed}", max_bytes=9000, seed=seed) for seed in (0, 1, 1)]
    assert all(9000 - 4000 < pack.size <= 9000 and pack.images + pack.beyond == 30 for pack in packs)
    first, second, again = (data.read_pack(tmp_path / f"{seed}") for seed in (0, 1, 1))
    assert first != second == again
    order = [image.read() for image in images]
    assert [order.index(encoded) for encoded in first] == sorted(order.index(encoded) for encoded in first)
    assert data.pack(images, tmp_path / "all").beyond == 0


def test_image_beyond_the_largest_pack_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="max_side"):
        data.pack(data.find_images(folder), tmp_path / "pack", max_bytes=100)
    assert not list(tmp_path.glob("pack*"))


def test_pack_that_cannot_be_written_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: str, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("invrestore.data._pack.save_file", full)
    with pytest.raises(OSError, match="No space"):
        data.pack(data.find_images(folder), tmp_path / "pack")
    assert not list(tmp_path.glob("pack*"))


def test_pack_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at least one image to train on"):
        data.pack([], tmp_path / "pack")


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_damaged_pack_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "pack").write_bytes(content)
    with pytest.raises(ImageFileError, match=r"a file written by data\.pack"):
        data.read_pack(tmp_path / "pack")
    with pytest.raises(ImageFileError, match=r"a file written by data\.pack"):
        data.describe_pack(tmp_path / "pack")


def test_every_crop_is_a_piece_of_an_image_in_one_of_eight_positions(rng: torch.Generator) -> None:
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    pieces = {
        np.ascontiguousarray(position).tobytes()
        for top in range(3)
        for left in range(4)
        for turned in (np.rot90(image[top : top + 3, left : left + 3], k) for k in range(4))
        for position in (turned, turned[:, ::-1])
    }
    crops = PatchPool([image]).crops(2000, 3, rng).permute(0, 2, 3, 1).numpy()
    assert {np.ascontiguousarray(crop).tobytes() for crop in crops} == pieces


def test_crops_never_mix_images(rng: torch.Generator) -> None:
    pool = PatchPool([np.full((8, 9, 3), value, np.uint8) for value in (10, 20, 30)])
    crops = pool.crops(200, 5, rng).flatten(1)
    assert (crops == crops[:, :1]).all()
    assert crops[:, 0].unique().tolist() == [10, 20, 30]


def test_large_images_give_more_crops(rng: torch.Generator) -> None:
    pool = PatchPool([np.zeros((8, 8, 3), np.uint8), np.ones((29, 29, 3), np.uint8)])
    share = pool.crops(2000, 8, rng).flatten(1)[:, 0].float().mean()
    assert share > 0.99


def test_images_smaller_than_the_patch_are_passed_over(rng: torch.Generator) -> None:
    pool = PatchPool([np.zeros((4, 90, 3), np.uint8), np.ones((16, 16, 3), np.uint8)])
    assert (pool.crops(50, 8, rng) == 1).all()


def test_same_seed_gives_the_same_crops() -> None:
    pool = PatchPool([np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)])
    first, second = (pool.crops(4, 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.uint8
    assert first.shape == (4, 3, 8, 8)


def test_copies_are_reduced_within_the_given_scales(folder: Path, tmp_path: Path) -> None:
    data.pack(data.find_images(folder), tmp_path / "pack")
    pool = PatchPool.from_pack(tmp_path / "pack", scales=(0.5, 1.0), copies=3)
    heights = pool.sides[:3, 0].tolist()
    assert heights[0] == 40
    assert all(20 <= height <= 40 for height in heights)
    assert len(pool.sides) == 9


def test_patch_larger_than_every_image_is_refused(rng: torch.Generator) -> None:
    with pytest.raises(TrainingError, match="an image of at least 9x9, got 8"):
        PatchPool([np.zeros((8, 20, 3), np.uint8)]).crops(1, 9, rng)


def test_empty_pool_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least one image, got none"):
        PatchPool([])


@pytest.mark.parametrize(
    ("scales", "copies"), [((0.0, 1.0), 1), ((0.9, 0.8), 1), ((0.5, 1.5), 1), ((1.0, 1.0), 0)]
)
def test_senseless_scales_are_refused(tmp_path: Path, scales: tuple[float, float], copies: int) -> None:
    with pytest.raises(RangeError, match="copies >= 1"):
        PatchPool.from_pack(tmp_path / "pack", scales=scales, copies=copies)
