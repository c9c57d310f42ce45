import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invrestore import data
from invrestore.data import LabelledPool, find_images, layout, read_labelled, read_labels, read_masks
from invrestore.errors import TrainingError


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def flat(value: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two classes in a zip: cats are dark, dogs are light."""
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as file:
        for number, (split, name) in enumerate(
            [("train", "cat"), ("train", "dog"), ("train", "dog"), ("test", "cat")]
        ):
            pixels = flat(40 + number if name == "cat" else 200 + number)
            file.writestr(f"{split}/{name}/{number}.png", png(pixels))
    return tmp_path / "pets.zip"


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    """Images whose red value is ten times the class of the pixel, with masks beside them."""
    root = tmp_path / "roads"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for number in range(2):
            mask = rng.integers(0, 3, (12, 16), dtype=np.uint8)
            image = np.repeat(10 * mask[:, :, None], 3, axis=2)
            Image.fromarray(image).save(root / split / f"{number}.png")
            Image.fromarray(mask).save(root / f"{split}annot" / f"{number}.png")
    return root


def test_an_archive_is_searched_like_a_folder(archive: Path) -> None:
    assert [i.label for i in find_images(archive, "train")] == ["cat", "dog", "dog"]
    assert [i.member for i in find_images(archive, "test")] == ["test/cat/3.png"]


def test_camvid_layout_pairs_images_with_masks(roads: Path) -> None:
    assert layout(roads) == "camvid"
    images = find_images(roads, "train")
    assert [i.path.relative_to(roads).as_posix() for i in images] == ["train/0.png", "train/1.png"]
    assert [i.mask and i.mask.relative_to(roads).as_posix() for i in images] == [
        "trainannot/0.png",
        "trainannot/1.png",
    ]
    assert all(i.label is None for i in images)


def test_voc_layout_finds_masks_where_there_are_some(tmp_path: Path) -> None:
    for name in ("JPEGImages/a.jpg", "JPEGImages/b.jpg", "SegmentationClass/a.png", "ImageSets/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    masks = [image.mask for image in find_images(tmp_path)]
    assert masks == [tmp_path / "SegmentationClass" / "a.png", None]


def test_packs_keep_classes_and_masks(archive: Path, roads: Path, tmp_path: Path) -> None:
    images = find_images(archive, "train") + find_images(roads, "train")
    data.pack(images, tmp_path / "pack")
    assert read_labels(tmp_path / "pack") == ["cat", "dog", "dog", None, None]
    masks = read_masks(tmp_path / "pack")
    assert masks[:3] == [None] * 3
    with Image.open(roads / "trainannot" / "1.png") as mask:
        np.testing.assert_array_equal(masks[4], np.asarray(mask))


def test_packs_without_labels_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(flat(1)))
    data.pack(find_images(tmp_path), tmp_path / "pack")
    assert read_labels(tmp_path / "pack") == [None]
    assert read_masks(tmp_path / "pack") == [None]


def test_reserved_images_leave_with_their_labels(
    archive: Path, roads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = find_images(archive, "train") + find_images(roads, "train")
    refused = {images[1].read(), images[3].read()}
    monkeypatch.setattr("invrestore.data._pack.reserved_set", lambda e: "held out" if e in refused else None)
    data.pack(images, tmp_path / "pack")
    assert read_labels(tmp_path / "pack") == ["cat", "dog", None]
    with Image.open(roads / "trainannot" / "1.png") as mask:
        np.testing.assert_array_equal(read_masks(tmp_path / "pack")[2], np.asarray(mask))


def test_reduced_images_keep_masks_of_their_size(roads: Path, tmp_path: Path) -> None:
    data.pack(find_images(roads, "train"), tmp_path / "pack", max_side=8)
    found = read_labelled(tmp_path / "pack", maps=True)
    assert [x.shape for x in found.images] == [(6, 8, 3)] * 2
    assert set(np.unique(found.labels[0])) <= {0, 1, 2}


def test_labelled_images_are_told_from_the_others(archive: Path, roads: Path, tmp_path: Path) -> None:
    data.pack(find_images(archive, "train") + find_images(roads, "train"), tmp_path / "pack")
    pets = read_labelled(tmp_path / "pack", maps=False)
    assert (pets.classes, pets.labels, len(pets.others)) == (("cat", "dog"), [0, 1, 1], 2)
    assert read_labelled(tmp_path / "pack", False, ("dog", "cat")).labels == [1, 0, 0]
    maps = read_labelled(tmp_path / "pack", maps=True)
    assert (maps.classes, len(maps.images), len(maps.others)) == (("0", "1", "2"), 2, 3)


def test_labels_outside_the_classes_are_refused(archive: Path, roads: Path, tmp_path: Path) -> None:
    data.pack(find_images(archive, "train") + find_images(roads, "train"), tmp_path / "pack")
    with pytest.raises(TrainingError, match="out of 2 classes cat, cow, got dog"):
        read_labelled(tmp_path / "pack", False, ("cat", "cow"))
    with pytest.raises(TrainingError, match="out of 2 classes a, b, got 2"):
        read_labelled(tmp_path / "pack", True, ("a", "b"))
    assert len(read_labelled(tmp_path / "pack", True, ("a", "b"), ignore=2).images) == 2


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(flat(1)))
    data.pack(find_images(tmp_path), tmp_path / "pack")
    with pytest.raises(TrainingError, match="images with a class, got none"):
        read_labelled(tmp_path / "pack", maps=False)
    with pytest.raises(TrainingError, match="images with a mask, got none"):
        read_labelled(tmp_path / "pack", maps=True)


def test_mask_of_another_size_is_refused(roads: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(roads / "trainannot" / "0.png")
    data.pack(find_images(roads, "train"), tmp_path / "pack")
    with pytest.raises(TrainingError, match=r"a mask of \(12, 16\) pixels"):
        read_labelled(tmp_path / "pack", maps=True)


def test_crops_come_with_their_class(rng: torch.Generator) -> None:
    pool = LabelledPool([flat(10), flat(20)], [0, 1])
    x, labels = pool.draw(64, 8, rng)
    assert x.shape == (64, 3, 8, 8)
    torch.testing.assert_close((255 * x[:, 0, 0, 0]).round(), 10.0 + 10 * labels)
    assert set(labels.tolist()) == {0, 1}


@pytest.mark.parametrize("zoom", [(1.0, 1.0), (2.0, 2.0)])
def test_masks_move_with_their_crops(rng: torch.Generator, zoom: tuple[float, float]) -> None:
    # Blocks of 4 pixels, so that enlarged masks can be compared away from the edges between classes.
    blocks = np.random.default_rng(0).integers(0, 5, (3, 4), dtype=np.uint8)
    mask = np.kron(blocks, np.ones((4, 4), np.uint8))
    pool = LabelledPool([np.repeat(10 * mask[:, :, None], 3, axis=2)], [mask])
    x, labels = pool.draw(32, 8, rng, zoom)
    assert labels.shape == (32, 8, 8)
    agrees = (255 * x[:, 0] - 10 * labels).abs() < 1
    assert agrees.float().mean() > (0.999 if zoom == (1.0, 1.0) else 0.6)


def test_reduction_reaches_no_further_than_the_images(rng: torch.Generator) -> None:
    x, _ = LabelledPool([flat(10)], [0]).draw(2, 10, rng, (0.1, 0.1))
    assert x.shape == (2, 3, 10, 10)
