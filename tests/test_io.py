"""Picture files: every kind is read as stored, written back in kind, and bad ones are refused by name."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from invrestore.errors import DTypeError, ImageFileError, RangeError, ShapeError, UnknownNameError
from invrestore.io import ImageInfo, check_target, encode, load_image, read, save_image, write_bytes

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def stored(x: torch.Tensor, top: int) -> np.ndarray:
    """The whole numbers behind (1, C, H, W) values, as (H, W, C)."""
    return (x.double() * top).round()[0].permute(1, 2, 0).long().numpy()


def png(
    samples: np.ndarray, *, filters: int | None = None, interlace: bool = False, key: bytes = b""
) -> bytes:
    """A 16-bit PNG written straight from the specification, sample by sample, with the filter asked for."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[r::dr, c::dc] for r, c, dr, dc in adam7] if interlace else [samples]
    data = b""
    for part in parts:
        if part.size == 0:
            continue
        above = [0] * (part.shape[1] * channels * 2)
        for number, row in enumerate(part):
            raw = list(row.astype(">u2").tobytes())
            kind = number % 5 if filters is None else filters
            data += bytes([kind])
            for i, value in enumerate(raw):
                a = raw[i - 2 * channels] if i >= 2 * channels else 0
                b, c = above[i], above[i - 2 * channels] if i >= 2 * channels else 0
                p = a + b - c
                near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                data += bytes([(value - (0, a, b, (a + b) // 2, near)[kind]) % 256])
            above = raw

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, int(interlace))
    packed = zlib.compress(data)
    half = len(packed) // 2
    transparent = chunk(b"tRNS", key) if key else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + transparent
        + chunk(b"IDAT", packed[:half])
        + chunk(b"IDAT", packed[half:])
        + chunk(b"IEND", b"")
    )


# --- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".tif", {}), (".webp", {"lossless": True})])
def test_colour_values_are_those_stored_over_255(tmp_path, rng, suffix, options):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **options)
    x, info = read(tmp_path / f"a{suffix}")
    assert x.shape == (1, 3, 5, 7)
    assert x.dtype == torch.float32
    assert (stored(x, 255) == pixels).all()
    assert (info.bits, info.alpha) == (8, None)


def test_jpeg_gives_what_pillow_decodes(tmp_path, rng):
    pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=80)
    x, info = read(tmp_path / "a.jpg")
    assert info.format == "JPEG"
    with Image.open(tmp_path / "a.jpg") as image:
        assert (stored(x, 255) == np.asarray(image)).all()


def test_gray_files_have_one_channel_and_bilevel_ones_too(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).point(lambda v: 255 * (v > 127)).convert("1").save(tmp_path / "b.png")
    assert (stored(load_image(tmp_path / "a.png"), 255)[..., 0] == pixels).all()
    assert (load_image(tmp_path / "b.png")[0, 0].numpy() == (pixels > 127)).all()


@pytest.mark.parametrize("filters", [0, 1, 2, 3, 4, None])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_filter_of_16_bit_png_is_undone_exactly(tmp_path, rng, channels, filters):
    samples = rng.integers(0, 65536, (9, 6, channels))
    (tmp_path / "a.png").write_bytes(png(samples, filters=filters))
    x, info = read(tmp_path / "a.png", dtype=torch.float64)
    opaque = channels in (1, 3)
    whole = x if opaque else torch.cat([x, info.alpha], 1)
    assert info.bits == 16
    assert (stored(whole, 65535) == samples).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(9, 6), (1, 1), (3, 13)])
def test_interlaced_16_bit_png_is_read_exactly(tmp_path, rng, channels, size):
    samples = rng.integers(0, 65536, (*size, channels))
    (tmp_path / "a.png").write_bytes(png(samples, interlace=True))
    x, info = read(tmp_path / "a.png")
    whole = x if info.alpha is None else torch.cat([x, info.alpha], 1)
    assert (stored(whole, 65535) == samples).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_of_16_bit_png_becomes_opacity(tmp_path, rng, channels):
    samples = rng.integers(0, 65536, (4, 5, channels))
    key = samples[2, 3].astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png(samples, key=key))
    x, info = read(tmp_path / "a.png")
    assert (stored(x, 65535) == samples).all()
    assert info.alpha is not None
    assert info.alpha[0, 0, 2, 3] == 0
    assert info.alpha.sum() == 19


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff_from_another_writer_is_read_exactly(tmp_path, rng, order, compression, channels):
    tifffile = pytest.importorskip("tifffile")
    samples = rng.integers(0, 65536, (70, 5, channels)).astype(order + "u2")
    tifffile.imwrite(
        tmp_path / "a.tif",
        samples[..., 0] if channels == 1 else samples,
        photometric="minisblack" if channels == 1 else "rgb",
        compression=compression,
        byteorder=order,
        rowsperstrip=16,
        extrasamples=["unassalpha"] if channels == 4 else None,
    )
    x, info = read(tmp_path / "a.tif")
    whole = x if info.alpha is None else torch.cat([x, info.alpha], 1)
    assert info.bits == 16
    assert (stored(whole, 65535) == samples).all()


def test_tiff_with_white_as_zero_is_inverted(tmp_path, rng):
    tifffile = pytest.importorskip("tifffile")
    for kind, top in ((np.uint8, 255), (np.uint16, 65535)):
        samples = rng.integers(0, top + 1, (5, 6)).astype(kind)
        tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")
        assert (stored(load_image(tmp_path / "a.tif"), top)[..., 0] == top - samples.astype(int)).all()


def test_opacity_is_kept_apart(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels[..., :2]).save(tmp_path / "la.png")
    x, info = read(tmp_path / "rgba.png")
    assert (stored(x, 255) == pixels[..., :3]).all()
    assert (stored(info.alpha, 255) == pixels[..., 3:]).all()
    x, info = read(tmp_path / "la.png")
    assert (stored(x, 255) == pixels[..., :1]).all()
    assert (stored(info.alpha, 255) == pixels[..., 1:2]).all()


def test_palettes_are_looked_up_and_their_transparent_entry_becomes_opacity(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "holed.png", transparency=1)
    x, info = read(tmp_path / "plain.png")
    assert x[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert info.alpha is None
    _, info = read(tmp_path / "holed.png")
    assert info.alpha[0, 0].tolist() == [[1, 0]]


def test_cmyk_becomes_rgb_and_its_profile_is_not_put_on_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    x, _ = read(tmp_path / "a.jpg")
    assert x.shape == (1, 3, 8, 8)
    assert x[0, 0].min() > 0.98
    assert x[0, 1:].max() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, rng, orientation):
    image = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "camera"
    image.save(tmp_path / "a.png", exif=exif)
    x, info = read(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as turned:
        assert (stored(x, 255) == np.asarray(ImageOps.exif_transpose(turned))).all()
    save_image(x, tmp_path / "b.png", like=info)
    with Image.open(tmp_path / "b.png") as image:
        kept = image.getexif()
    assert (kept.get(0x0112), kept[0x010F]) == (None, "camera")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_the_one_asked_for(tmp_path, dtype):
    Image.new("RGB", (3, 2), (255, 51, 0)).save(tmp_path / "a.png")
    x = load_image(tmp_path / "a.png", dtype=dtype)
    assert x.dtype == dtype
    assert torch.equal(x[0, :, 0, 0], torch.tensor([1, 0.2, 0], dtype=dtype))


def test_mode_turns_colour_to_luma_and_gray_to_three_equal_channels(tmp_path):
    Image.new("RGB", (3, 2), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (3, 2), 51).save(tmp_path / "gray.png")
    assert load_image(tmp_path / "red.png", mode="gray").unique().item() == pytest.approx(0.299)
    assert load_image(tmp_path / "gray.png", mode="rgb").shape == (1, 3, 2, 3)
    assert load_image(tmp_path / "gray.png", mode="gray").shape == (1, 1, 2, 3)
    with pytest.raises(UnknownNameError, match="'gray'"):
        load_image(tmp_path / "red.png", mode="grey")
    with pytest.raises(DTypeError, match="floating"):
        load_image(tmp_path / "red.png", dtype=torch.uint8)


def test_content_decides_not_the_file_ending(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg", "PNG")
    assert read(tmp_path / "a.jpg")[1].format == "PNG"


# --- refusing to read --------------------------------------------------------------------------------


def test_missing_file_names_the_nearest(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "photo.png")
    with pytest.raises(ImageFileError, match=r"does not exist\. Did you mean .*photo\.png"):
        read(tmp_path / "phota.png")
    with pytest.raises(ImageFileError, match="no folder"):
        read(tmp_path / "nowhere" / "photo.png")


def test_folders_pipes_and_impossible_names_are_refused(tmp_path):
    with pytest.raises(ImageFileError, match="folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageFileError, match="device or pipe"):
        read(tmp_path / "pipe.png")
    with pytest.raises(ImageFileError, match="null"):
        read("a\0b.png")


@pytest.mark.parametrize("content", [b"not an image at all", b"", b"GIF89a........................"])
def test_files_that_hold_no_such_picture_are_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageFileError, match="PNG, JPEG, TIFF or WebP"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, rng, suffix, part):
    x = torch.from_numpy(rng.random((1, 3, 64, 64)))
    data = encode(x, suffix)
    (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageFileError, match="truncated, damaged"):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_damaged_bytes_give_a_picture_or_the_named_error(tmp_path, rng, suffix, bits):
    if bits == 16 and suffix in (".jpg", ".webp"):
        return
    data = encode(
        torch.from_numpy(rng.random((1, 3, 24, 20))), suffix, bits=bits, like=ImageInfo("PNG", icc=SRGB)
    )
    target = tmp_path / "a"
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 3):
            damaged[place] = rng.integers(0, 256)
        target.write_bytes(damaged)
        try:
            x, _ = read(target, max_pixels=10**6)
        except ImageFileError:
            refused += 1
        else:
            assert torch.isfinite(x).all()
    assert refused > 0


def test_decompression_bombs_are_refused_before_decoding(tmp_path):
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 300_000, 300_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    (tmp_path / "a.png").write_bytes(bomb)
    with pytest.raises(ImageFileError, match=r"at most 100000000 pixels, got 300000 x 300000.*max_pixels"):
        read(tmp_path / "a.png")
    Image.new("L", (11, 10)).save(tmp_path / "b.png")
    with pytest.raises(ImageFileError, match="at most 100 pixels"):
        read(tmp_path / "b.png", max_pixels=100)
    assert read(tmp_path / "b.png", max_pixels=110)[0].shape == (1, 1, 10, 11)


def test_the_pixel_limit_can_be_raised_above_that_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("L", (50, 50)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").shape == (1, 1, 50, 50)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_animations_and_many_pages_are_refused(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (i * 80, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageFileError, match="one picture, got 3"):
        read(tmp_path / f"a{suffix}")


def test_samples_that_are_no_16_bit_whole_numbers_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageFileError, match="whole numbers"):
        read(tmp_path / "float.tif")
    Image.fromarray(np.zeros((4, 4), np.int32)).save(tmp_path / "int.tif")
    with pytest.raises(ImageFileError, match="whole numbers"):
        read(tmp_path / "int.tif")


def test_16_bit_tiff_stored_plane_by_plane_is_refused_not_garbled(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    planes = np.zeros((3, 6, 5), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ImageFileError, match="pixel by pixel"):
        read(tmp_path / "a.tif")


# --- writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_8_bit_values_survive_lossless_formats(tmp_path, rng, suffix, channels):
    x = torch.from_numpy(rng.integers(0, 256, (1, channels, 5, 7)) / 255)
    save_image(x, tmp_path / f"a{suffix}")
    back = load_image(tmp_path / f"a{suffix}", dtype=torch.float64)
    # WebP knows no gray.
    assert torch.equal(back, x if suffix != ".webp" else x.expand(1, 3, 5, 7))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("opacity", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 300), (33, 2)])
def test_16_bit_values_survive_with_opacity_and_profile(tmp_path, rng, suffix, channels, opacity, size):
    x = torch.from_numpy(rng.integers(0, 65536, (1, channels, *size)) / 65535)
    alpha = torch.from_numpy(rng.integers(0, 65536, (1, 1, *size)) / 65535) if opacity else None
    like = ImageInfo("PNG", 16, alpha, SRGB)
    if (suffix, channels, opacity) == (".tif", 1, True):
        with pytest.raises(ImageFileError, match=r"gray with opacity.*\.png"):
            save_image(x, tmp_path / "a.tif", like=like)
        return
    save_image(x, tmp_path / f"a{suffix}", like=like)
    back, info = read(tmp_path / f"a{suffix}", dtype=torch.float64)
    assert torch.equal(back, x)
    assert info.bits == 16
    assert info.icc == (SRGB if channels == 3 else None)
    assert info.alpha is None if alpha is None else torch.equal(info.alpha, alpha)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff_is_read_by_another_reader(tmp_path, rng, channels):
    tifffile = pytest.importorskip("tifffile")
    samples = rng.integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    x = torch.from_numpy(samples[..., :3].astype(float) / 65535).permute(2, 0, 1)
    alpha = torch.from_numpy(samples[..., 3].astype(float) / 65535)[None, None] if channels == 4 else None
    save_image(x, tmp_path / "a.tif", bits=16, like=ImageInfo("TIFF", 16, alpha))
    assert (tifffile.imread(tmp_path / "a.tif").reshape(5, 7, channels) == samples).all()


def test_high_bytes_of_16_bit_png_agree_with_pillow(tmp_path, rng):
    x = torch.from_numpy(rng.integers(0, 65536, (1, 3, 15, 17)) / 65535)
    save_image(x, tmp_path / "a.png", bits=16)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        high = np.asarray(image)
    assert (high == stored(x, 65535) // 256).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_opacity_profile_and_exif_are_put_back(tmp_path, rng, suffix):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    pixels = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif, icc_profile=SRGB)
    x, info = read(tmp_path / "a.png")
    save_image(x, tmp_path / f"b{suffix}", like=info)
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert (np.asarray(image) == pixels).all()
        assert image.info["icc_profile"] == SRGB
        assert suffix == ".tif" or image.getexif()[0x010F] == "camera"


def test_exif_is_put_back_into_16_bit_png(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "camera"
    save_image(torch.zeros(3, 4, 4), tmp_path / "a.png", bits=16, like=ImageInfo("JPEG", exif=exif.tobytes()))
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif()[0x010F] == "camera"


def test_opacity_follows_the_size_of_the_picture(tmp_path):
    alpha = torch.zeros(1, 1, 4, 4)
    alpha[..., 2:] = 1
    save_image(torch.zeros(1, 3, 8, 8), tmp_path / "a.png", like=ImageInfo("PNG", alpha=alpha))
    _, info = read(tmp_path / "a.png")
    assert info.alpha.shape == (1, 1, 8, 8)
    assert info.alpha[..., :2].max() == 0
    assert info.alpha[..., 6:].min() == 1


def test_bits_of_the_original_are_kept_where_the_format_can(tmp_path):
    x = torch.full((1, 3, 4, 4), 0.30001)
    like = ImageInfo("PNG", 16)
    for suffix, bits in ((".png", 16), (".tif", 16), (".jpg", 8), (".webp", 8)):
        save_image(x, tmp_path / f"a{suffix}", like=like)
        assert read(tmp_path / f"a{suffix}")[1].bits == bits
    save_image(x, tmp_path / "b.png", bits=8, like=like)
    assert read(tmp_path / "b.png")[1].bits == 8


def test_values_are_clipped_and_rounded_to_nearest(tmp_path):
    x = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.7]).view(1, 1, 1, 4)
    save_image(x, tmp_path / "a.png")
    assert stored(load_image(tmp_path / "a.png"), 255).ravel().tolist() == [0, 0, 1, 255]
    assert x[0, 0, 0, 0] == -0.5


def test_existing_file_is_replaced_only_by_force(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"mine")
    with pytest.raises(ImageFileError, match=r"exists\..*force"):
        save_image(torch.zeros(1, 1, 2, 2), target)
    with pytest.raises(ImageFileError, match="exists"):
        write_bytes(target, b"other")
    assert target.read_bytes() == b"mine"
    save_image(torch.zeros(1, 1, 2, 2), target, force=True)
    assert load_image(target).shape == (1, 1, 2, 2)
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    for links in (True, False):
        real = os.link

        def link(source, name, links=links, real=real):
            Path(name).write_bytes(b"faster")
            if not links:
                raise PermissionError("no hard links here")
            real(source, name)

        monkeypatch.setattr(os, "link", link)
        with pytest.raises(ImageFileError, match="exists"):
            write_bytes(target, b"slower")
        monkeypatch.undo()
        assert target.read_bytes() == b"faster"
        assert os.listdir(tmp_path) == ["a.png"]
        target.unlink()


def test_filesystems_without_hard_links_work_too(tmp_path, monkeypatch):
    def link(source, name):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", link)
    write_bytes(tmp_path / "a.bin", b"data")
    assert (tmp_path / "a.bin").read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def link(source, name):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.bin", b"data")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    # A file size limit makes the system refuse the write part of the way, as a full disk does.
    code = """
        import resource, sys
        from invrestore.errors import ImageFileError
        from invrestore.io import write_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_bytes(sys.argv[1], bytes(5000))
        except ImageFileError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.bin")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "to be written, got File too large" in done.stdout
    assert os.listdir(tmp_path) == []


def test_targets_that_cannot_be_written_are_refused_beforehand(tmp_path, monkeypatch):
    with pytest.raises(ImageFileError, match="file name, got the folder"):
        check_target(tmp_path)
    with pytest.raises(ImageFileError, match=r"existing folder .*Create it"):
        check_target(tmp_path / "none" / "a.png")
    for name, match in (("a.bmp", r"ending in one of \.png"), ("a", "no ending")):
        with pytest.raises(ImageFileError, match=match):
            check_target(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ImageFileError, match="permissions"):
        check_target(tmp_path / "a.png")


def test_what_a_format_cannot_store_is_refused(tmp_path):
    x = torch.zeros(1, 3, 4, 4)
    for suffix in (".jpg", ".webp"):
        with pytest.raises(ImageFileError, match="8 bits"):
            save_image(x, tmp_path / f"a{suffix}", bits=16)
    info = ImageInfo("PNG", alpha=torch.ones(1, 1, 4, 4))
    with pytest.raises(ImageFileError, match="opacity"):
        save_image(x, tmp_path / "a.jpg", like=info)
    save_image(x, tmp_path / "a.jpg", like=info.without_alpha())
    with pytest.raises(RangeError, match="8 or 16"):
        save_image(x, tmp_path / "a.png", bits=12)
    with pytest.raises(ImageFileError, match="WEBP can store"):
        save_image(torch.zeros(1, 1, 1, 20_000), tmp_path / "wide.webp")
    assert os.listdir(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (torch.zeros(2, 3, 4, 4), ShapeError, r"Save x\[i\]"),
        (torch.zeros(1, 4, 4, 3), ShapeError, "channels-first"),
        (torch.zeros(4, 4), ShapeError, "C = 1 or 3"),
        (torch.zeros(1, 3, 0, 4), ShapeError, "C = 1 or 3"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), DTypeError, "floating"),
        (np.zeros((1, 3, 4, 4)), DTypeError, "ndarray"),
        (torch.full((1, 3, 4, 4), torch.nan), RangeError, "NaN"),
        (torch.full((1, 3, 4, 4), torch.inf), RangeError, "infinite"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.complex64), RangeError, "real values"),
    ],
)
def test_tensors_that_are_no_picture_are_refused_and_leave_no_file(tmp_path, x, error, match):
    with pytest.raises(error, match=match):
        save_image(x, tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


def test_encode_gives_the_bytes_of_the_file(tmp_path):
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    save_image(x, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == encode(x, ".png")
    assert Image.open(io.BytesIO(encode(x, ".webp"))).size == (4, 4)
