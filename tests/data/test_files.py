import zipfile
from pathlib import Path

import pytest

from invrestore.data import ImageFile, find_images, layout
from invrestore.errors import ImageFileError, UnknownNameError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(root: Path, split: str | None = None) -> list[str]:
    return [image.member or image.path.relative_to(root).as_posix() for image in find_images(root, split)]


def test_any_folder_is_searched_for_images_at_every_depth(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a/c.jpeg", "a/notes.txt", "a/.hidden.png", "d.tif")
    assert layout(tmp_path) == "folder"
    assert found(tmp_path) == ["a/c.jpeg", "b.PNG", "d.tif"]


def test_images_inside_archives_are_found_with_their_split_and_label(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("train/cat/0.jpg", "test/dog/1.jpg", "index.csv"):
            archive.writestr(name, b"content of " + name.encode())
    images = find_images(tmp_path)
    assert [(i.member, i.split, i.label) for i in images] == [
        ("test/dog/1.jpg", "test", "dog"),
        ("train/cat/0.jpg", "train", "cat"),
    ]
    assert images[1].read() == b"content of train/cat/0.jpg"
    assert str(images[1]).endswith("set.zip::train/cat/0.jpg")
    assert found(tmp_path, "train") == ["train/cat/0.jpg"]


def test_bsds_layout_has_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "val/2.jpg", "test/3.jpg")
    assert layout(tmp_path) == "bsds"
    assert found(tmp_path) == ["test/3.jpg", "train/1.jpg", "val/2.jpg"]
    assert found(tmp_path, "val") == ["val/2.jpg"]


def test_celeba_layout_follows_its_partition_list(tmp_path: Path) -> None:
    touch(tmp_path, *(f"img_align_celeba/00000{i}.jpg" for i in range(3)))
    (tmp_path / "list_eval_partition.txt").write_text("000000.jpg 0\n000001.jpg 1\n000002.jpg 2\n")
    assert layout(tmp_path) == "celeba"
    for split, number in (("train", 0), ("val", 1), ("test", 2)):
        assert found(tmp_path, split) == [f"img_align_celeba/00000{number}.jpg"]


def test_imagenet_layout_has_wordnet_labels(tmp_path: Path) -> None:
    touch(tmp_path, "train/n01440764/a.JPEG", "train/n01443537/b.JPEG", "val/c.JPEG")
    assert layout(tmp_path) == "imagenet"
    assert [i.label for i in find_images(tmp_path, "train")] == ["n01440764", "n01443537"]
    assert found(tmp_path, "val") == ["val/c.JPEG"]


def test_sun397_layout_has_nested_class_names_and_test_lists(tmp_path: Path) -> None:
    touch(tmp_path, "a/abbey/sun_1.jpg", "a/apartment_building/outdoor/sun_2.jpg")
    (tmp_path / "ClassName.txt").write_text("/a/abbey\n/a/apartment_building/outdoor\n")
    (tmp_path / "Testing_01.txt").write_text("/a/abbey/sun_1.jpg\n")
    assert layout(tmp_path) == "sun397"
    assert [(i.label, i.split) for i in find_images(tmp_path)] == [
        ("abbey", "test"),
        ("apartment_building/outdoor", "train"),
    ]


@pytest.mark.parametrize("prefix", ["", "VOC2012/", "VOCdevkit/VOC2012/"])
def test_voc_layout_reads_its_image_sets(tmp_path: Path, prefix: str) -> None:
    touch(tmp_path, f"{prefix}JPEGImages/2007_1.jpg", f"{prefix}JPEGImages/2007_2.jpg")
    lists = tmp_path / f"{prefix}ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_1\n")
    (lists / "val.txt").write_text("2007_2\n")
    assert layout(tmp_path) == "voc"
    assert found(tmp_path, "val") == [f"{prefix}JPEGImages/2007_2.jpg"]


def test_index_gives_splits_and_classes(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.jpg", "x/2.jpg")
    (tmp_path / "index.csv").write_text("file,class,split\nx/1.jpg,sea,train\nx/2.jpg,wood,test\n")
    assert layout(tmp_path) == "indexed"
    assert [(i.label, i.split) for i in find_images(tmp_path)] == [("sea", "train"), ("wood", "test")]


def test_index_without_splits_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    (tmp_path / "index.csv").write_text("file,identity\n1.jpg,7\n")
    assert layout(tmp_path) == "folder"
    assert found(tmp_path, "train") == ["1.jpg"]
    assert found(tmp_path, "test") == []


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="INVRESTORE_DATA"):
        find_images(tmp_path / "nowhere")


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'train'"):
        find_images(tmp_path, "trian")


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "set.zip")
    with pytest.raises(ImageFileError, match="a readable zip archive"):
        find_images(tmp_path)


def test_vanished_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="a readable file"):
        ImageFile(tmp_path / "gone.png").read()
