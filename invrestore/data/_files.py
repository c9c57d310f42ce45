"""Find the images of any folder, and recognise the layouts of well-known datasets."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from invrestore.errors import ImageFileError, UnknownNameError

__all__ = ["ImageFile", "find_images", "layout"]

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFile:
    """One image, in a file of its own or inside a zip archive.

    Attributes:
        path: The image file, or the archive.
        member: Name inside the archive; None for a file of its own.
        split: "train", "val" or "test" where the layout says so, else None.
        label: Class name where the layout says so, else None.
        mask: File with the class number of every pixel where the layout has one, else None.
    """

    path: Path
    member: str | None = None
    split: str | None = None
    label: str | None = None
    mask: Path | None = None

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            ImageFileError: The file or archive member cannot be read.
        """
        try:
            if self.member is None:
                return self.path.read_bytes()
            return _archive(self.path, self.path.stat().st_mtime_ns).read(self.member)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ImageFileError("ImageFile.read", expected="a readable file", found=str(self)) from error

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}::{self.member}"


@lru_cache(maxsize=4)
def _archive(path: Path, modified: int) -> zipfile.ZipFile:
    """Open an archive once for all its members: reading the directory of a large one takes longer than they do."""
    return zipfile.ZipFile(path)


def layout(folder: str | Path) -> str:
    """Name the layout of a folder: "celeba", "imagenet", "sun397", "voc", "camvid", "indexed", "bsds" or "folder".

    - celeba: `img_align_celeba/` beside `list_eval_partition.txt` (0 train, 1 val, 2 test);
    - imagenet: `train/nXXXXXXXX/*.JPEG`, `val/`;
    - sun397: `ClassName.txt` beside one folder for each letter;
    - voc: `JPEGImages/` beside `ImageSets/` (also inside `VOCdevkit/VOC20XX/`), masks in `SegmentationClass/`;
    - camvid: `train/` beside `trainannot/` with a mask of the same name for each image, likewise `val`, `test`;
    - indexed: `index.csv` with the columns `file` and `split`, and `class` if there are labels;
    - bsds: at least two of `train/`, `val/`, `test/`, each holding images or class folders;
    - folder: anything else; every image below it counts, zip archives included.

    Raises:
        ImageFileError: There is no such folder.
    """
    root = _existing(folder)
    if (root / "list_eval_partition.txt").is_file() and (root / "img_align_celeba").is_dir():
        return "celeba"
    if any((root / "train").glob("n[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]")):
        return "imagenet"
    if (root / "ClassName.txt").is_file():
        return "sun397"
    if _voc_root(root) is not None:
        return "voc"
    if any((root / split).is_dir() and (root / f"{split}annot").is_dir() for split in _SPLITS):
        return "camvid"
    if _index(root) is not None:
        return "indexed"
    if sum((root / split).is_dir() for split in _SPLITS) >= 2:
        return "bsds"
    return "folder"


def find_images(folder: str | Path, split: str | None = None) -> list[ImageFile]:
    """List the images of a folder or a zip archive in a fixed order.

    Args:
        folder: Any folder; see :func:`layout` for the layouts whose splits and labels are understood. Or a zip
            archive of images, whose members may be called `SPLIT/CLASS/NAME`.
        split: "train", "val" or "test" to keep only those. Images of unknown split are kept under "train"
            only.

    Returns:
        The images sorted by path, empty when there are none.

    Raises:
        ImageFileError: There is no such folder or archive, or an archive is damaged.
        UnknownNameError: split is another word.
    """
    if split is not None and split not in _SPLITS:
        raise UnknownNameError.suggest("find_images", "split", split, _SPLITS)
    if Path(folder).suffix.lower() == ".zip" and Path(folder).is_file():
        return _sorted(_members(Path(folder)), split)
    root = _existing(folder)
    finders = {
        "celeba": _celeba,
        "imagenet": _by_split_folder,
        "sun397": _sun397,
        "voc": _voc,
        "camvid": _camvid,
        "indexed": _indexed,
        "bsds": _by_split_folder,
        "folder": _any,
    }
    return _sorted(finders[layout(root)](root), split)


def _sorted(images: Iterator[ImageFile], split: str | None) -> list[ImageFile]:
    found = sorted(images, key=lambda image: (str(image.path), image.member or ""))
    return [image for image in found if split is None or (image.split or "train") == split]


def _existing(folder: str | Path) -> Path:
    root = Path(folder)
    if not root.is_dir():
        remedy = "Give the data folder with --data DIR or the environment variable INVRESTORE_DATA."
        raise ImageFileError(
            "find_images", expected="an existing folder", found=repr(str(folder)), remedy=remedy
        )
    return root


def _is_image(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _any(root: Path) -> Iterator[ImageFile]:
    for path in root.rglob("*"):
        if path.is_file() and _is_image(path.name):
            yield ImageFile(path)
        elif path.suffix.lower() == ".zip" and path.is_file():
            yield from _members(path)


def _members(path: Path) -> Iterator[ImageFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ImageFileError("find_images", expected="a readable zip archive", found=str(path)) from error
    for name in names:
        if _is_image(name):
            parts = Path(name).parts
            split = parts[0] if parts[0] in _SPLITS else None
            yield ImageFile(path, name, split, parts[-2] if len(parts) > 2 else None)


def _by_split_folder(root: Path) -> Iterator[ImageFile]:
    for split in _SPLITS:
        for image in _any(root / split):
            inner = image.path.relative_to(root / split).parts
            yield ImageFile(image.path, image.member, split, inner[0] if len(inner) > 1 else image.label)


def _celeba(root: Path) -> Iterator[ImageFile]:
    for line in (root / "list_eval_partition.txt").read_text().splitlines():
        if line.strip():
            name, part = line.split()
            yield ImageFile(root / "img_align_celeba" / name, split=_SPLITS[int(part)])


def _sun397(root: Path) -> Iterator[ImageFile]:
    held_out = {
        line.strip().lstrip("/")
        for lists in root.glob("Testing_*.txt")
        for line in lists.read_text().splitlines()
    }
    for image in _any(root):
        inner = image.path.relative_to(root)
        split = "test" if inner.as_posix() in held_out else "train"
        yield ImageFile(image.path, image.member, split, "/".join(inner.parts[1:-1]) or None)


def _voc_root(root: Path) -> Path | None:
    for candidate in (root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))):
        if (candidate / "JPEGImages").is_dir() and (candidate / "ImageSets").is_dir():
            return candidate
    return None


def _voc(root: Path) -> Iterator[ImageFile]:
    inner = _voc_root(root) or root
    splits: dict[str, str] = {}
    for split in _SPLITS:
        for lists in inner.glob(f"ImageSets/*/{split}.txt"):
            splits.update((line.split()[0], split) for line in lists.read_text().splitlines() if line.strip())
    for image in _any(inner / "JPEGImages"):
        mask = inner / "SegmentationClass" / f"{image.path.stem}.png"
        yield ImageFile(image.path, image.member, splits.get(image.path.stem), mask=_if_file(mask))


def _camvid(root: Path) -> Iterator[ImageFile]:
    for image in _by_split_folder(root):
        masks = root / f"{image.split}annot"
        yield replace(image, label=None, mask=_if_file(masks / f"{image.path.stem}.png"))


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _index(root: Path) -> list[dict[str, str]] | None:
    path = root / "index.csv"
    if not path.is_file():
        return None
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        if not {"file", "split"}.issubset(reader.fieldnames or ()):
            return None
        return list(reader)


def _indexed(root: Path) -> Iterator[ImageFile]:
    for row in _index(root) or ():
        yield ImageFile(root / row["file"], split=row["split"], label=row.get("class") or None)
