import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invrestore import data
from invrestore.data import ImageFile, find_images, fingerprints, reserved, reserved_set, write_reserved


def encoded(kind: str, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_list_names_every_test_set() -> None:
    sets = set(reserved().values())
    assert sets == {"cbsd68", "set5", "set12", "set14", "kodak24", "faces64", "faces128", "scenes6", "camvid"}


def test_list_holds_two_hashes_for_each_image() -> None:
    counts = {name: list(reserved().values()).count(name) for name in set(reserved().values())}
    # 68 pictures in two formats with equal pixels; Set12 and the photograph that its starfish is cut from.
    assert counts["cbsd68"] == 68 + 68 + 68
    assert counts["set12"] == 2 * 13
    assert counts["kodak24"] == 2 * 24
    assert counts["faces64"] == 2 * 500


def test_pixels_are_recognised_in_another_format() -> None:
    png, bmp = encoded("PNG"), encoded("BMP")
    assert fingerprints(png)[0] != fingerprints(bmp)[0]
    assert fingerprints(png)[1] == fingerprints(bmp)[1]
    assert fingerprints(png)[1] != fingerprints(encoded("PNG", seed=1))[1]


def test_transposed_pixels_are_another_image() -> None:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(encoded("PNG"))) as image:
        Image.frombytes("RGB", (9, 7), image.tobytes()).save(buffer, "PNG")
    assert fingerprints(buffer.getvalue())[1] != fingerprints(encoded("PNG"))[1]


def test_written_list_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert write_reserved({"mine": [ImageFile(tmp_path / "a.png")]}, tmp_path / "reserved.txt") == 1
    monkeypatch.setattr("invrestore.data._reserved.resources.files", lambda package: tmp_path)
    reserved.cache_clear()
    try:
        assert reserved_set(encoded("BMP")) == "mine"
        assert reserved_set(encoded("PNG", seed=1)) is None
    finally:
        reserved.cache_clear()


def test_packing_drops_reserved_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "invrestore.data._pack.reserved_set",
        lambda content: "held out" if content == encoded("PNG") else None,
    )
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(encoded("PNG", seed))
    summary = data.pack(find_images(tmp_path), tmp_path / "pack")
    assert summary.images == 2
    assert summary.refused == {"held out": 1}
    assert encoded("PNG") not in data.read_pack(tmp_path / "pack")
    assert data.pack(find_images(tmp_path), tmp_path / "test", testing=True).images == 3


@pytest.mark.slow
@pytest.mark.skipif("INVRESTORE_DATA" not in os.environ, reason="needs the test images")
def test_real_test_images_are_all_reserved() -> None:
    root = Path(os.environ["INVRESTORE_DATA"])
    for name in ("cbsd68", "kodak24", "set5", "set12", "set14"):
        for image in find_images(root / name):
            assert reserved_set(image.read()) == name
    for name, split_name in (("camvid", "highlevel/camvid"), ("scenes6", "highlevel/scenes6.zip")):
        assert {reserved_set(image.read()) for image in find_images(root / split_name, "test")} == {name}
        assert {reserved_set(image.read()) for image in find_images(root / split_name, "train")} == {None}
    free = [image for image in find_images(root / "bsds500") if reserved_set(image.read()) is None]
    assert len(free) == 431
