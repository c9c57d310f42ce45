"""``invrestore compress`` and ``decompress``: samples come back as they were, damaged files are refused by name."""

import hashlib
import struct

import pytest
import torch
from PIL import Image

import invrestore as ir
from invrestore.errors import ImageFileError, RangeError, ShapeError
from invrestore.io import decode_samples, encode_samples, load_image
from invrestore.io._samples import _DIGEST, _HEADER, _curve


@pytest.fixture
def compressed(run, picture, tmp_path):
    path = tmp_path / "photo.irz"
    assert run("compress", picture, "-o", path, "--keep", "10%").code == 0
    return path


def signed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()[:_DIGEST]


def altered(data: bytes, offset: int, form: str, value: int) -> bytes:
    """The file with one field of its header replaced and its checksum put right."""
    body = bytearray(data[:-_DIGEST])
    struct.pack_into(form, body, offset, value)
    return signed(bytes(body))


VERSION, CHANNELS, WIDTH, HEIGHT, COUNT, FIRST = 6, 7, 8, 12, 16, 20


@pytest.mark.parametrize("keep", [0.002, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_come_back_exactly(keep, channels, rng) -> None:
    x = torch.rand(1, channels, 37, 53, generator=rng)
    mask = ir.operators.SparseSampling((channels, 37, 53), keep=keep, rng=rng).mask
    found, kept = decode_samples(encode_samples(x, mask))
    assert torch.equal(kept, mask)
    torch.testing.assert_close(found, torch.where(mask, (x * 255).round() / 255, 0.0))


def test_files_are_small_and_the_two_codings_of_places_take_turns(rng) -> None:
    x = torch.rand(1, 1, 256, 256, generator=rng)
    sizes = {}
    for keep in (0.01, 0.5):
        mask = ir.operators.SparseSampling((1, 256, 256), keep=keep, rng=rng).mask
        data = encode_samples(x, mask)
        sizes[keep] = len(data)
        assert data[_HEADER.size] == (1 if keep == 0.01 else 0)
    # Entropy of the places and a byte for each random colour; the rest is header and coding loss.
    assert sizes[0.01] < 1.15 * (0.0808 / 8 * 65536 + 655) + 60
    assert sizes[0.5] < 1.02 * (1.0 / 8 * 65536 + 32768) + 60


def test_smooth_colours_cost_less_than_random_ones(rng) -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64) * torch.tensor([1.0, 0.9, 0.5]).view(1, 3, 1, 1)
    mask = ir.operators.SparseSampling((3, 64, 64), keep=0.2, rng=rng).mask
    noisy = torch.rand(1, 3, 64, 64, generator=rng)
    assert len(encode_samples(ramp.contiguous(), mask)) < 0.75 * len(encode_samples(noisy, mask))


def test_long_gaps_and_corners_are_coded(rng) -> None:
    mask = torch.zeros(40, 70, dtype=torch.bool)
    for place in (0, 255, 256, 511, 40 * 70 - 1):
        mask.view(-1)[place] = True
    _, kept = decode_samples(encode_samples(torch.rand(1, 3, 40, 70, generator=rng), mask))
    assert torch.equal(kept[0, 0], mask)


def test_curve_visits_neighbours_one_after_the_other() -> None:
    import numpy as np

    order = _curve(np.arange(64), 8)
    steps = np.abs(np.diff(np.stack(np.divmod(order, 8)), axis=1)).sum(0)
    assert sorted(order) == list(range(64))
    assert steps.mean() < 2


def test_picture_is_restored_and_its_samples_are_unchanged(run, picture, compressed, tmp_path) -> None:
    result = run("decompress", compressed, "-o", tmp_path / "back.png", "--prior", "tv")
    assert result.code == 0, result
    y, mask = decode_samples(compressed.read_bytes())
    x = load_image(tmp_path / "back.png")
    kept = mask.expand_as(y)
    assert torch.equal(x[kept], y[kept])
    assert float(ir.psnr(x, load_image(picture))) > 15


def test_compression_repeats_and_tells_its_size(run, picture, compressed, tmp_path) -> None:
    result = run("compress", picture, "-o", tmp_path / "again.irz", "--keep", 0.1)
    assert "192 of 1920 pixels" in result.out
    assert "bits a pixel" in result.out
    assert (tmp_path / "again.irz").read_bytes() == compressed.read_bytes()
    run("compress", picture, "-o", tmp_path / "uniform.irz", "--keep", 0.1, "--sampling", "uniform", "-q")
    assert (tmp_path / "uniform.irz").read_bytes() != compressed.read_bytes()


def test_sobel_samples_lie_on_edges(run, tmp_path) -> None:
    step = torch.zeros(1, 3, 40, 40)
    step[..., 20:] = 1
    ir.save_image(step, tmp_path / "step.png")
    run("compress", tmp_path / "step.png", "-o", tmp_path / "step.irz", "--keep", "2%")
    _, mask = decode_samples((tmp_path / "step.irz").read_bytes())
    columns = mask.nonzero()[:, 3]
    assert float(((columns > 17) & (columns < 22)).float().mean()) > 0.7


def test_gray_pictures_stay_gray(run, picture, tmp_path) -> None:
    with Image.open(picture) as image:
        image.convert("L").save(tmp_path / "gray.png")
    run("compress", tmp_path / "gray.png", "-o", tmp_path / "gray.irz", "--keep", "30%")
    y, _ = decode_samples((tmp_path / "gray.irz").read_bytes())
    assert y.shape == (1, 1, 40, 48)


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["0%", "101%", "-1", "lots", "nan", "2"])
def test_impossible_shares_are_refused(refuse, picture, tmp_path, keep) -> None:
    assert "a share above 0 and up to 100%" in refuse(
        "compress", picture, "-o", tmp_path / "x.irz", f"--keep={keep}"
    )


def test_wrong_names_are_refused(refuse, picture, compressed, tmp_path) -> None:
    assert "a name ending in .irz" in refuse("compress", picture, "-o", tmp_path / "x.jpg")
    assert "'sobel', 'uniform'" in refuse(
        "compress", picture, "-o", tmp_path / "x.irz", "--sampling", "edges"
    )
    assert "a prior out of" in refuse("decompress", compressed, "-o", tmp_path / "x.png", "--prior", "tvv")
    assert "No such file" in refuse("decompress", tmp_path / "none.irz", "-o", tmp_path / "x.png")


def test_nothing_is_overwritten_unless_asked(refuse, run, picture, compressed, tmp_path) -> None:
    refuse("compress", picture, "-o", compressed)
    (tmp_path / "there.png").write_bytes(b"mine")
    refuse("decompress", compressed, "-o", tmp_path / "there.png")
    assert run("compress", picture, "-o", compressed, "--keep", "20%", "--force").code == 0


DAMAGE = {
    "another file": (lambda d: b"\x89PNG\r\n\x1a\n" + d, "a file of samples, got something else"),
    "an empty file": (lambda d: b"", "a file of samples"),
    "a header alone": (lambda d: d[:20], "only 20 bytes"),
    "a later version": (lambda d: altered(d, VERSION, "<B", 2), "version 1, got version 2"),
    "half of it": (lambda d: d[: len(d) // 2], "a checksum that does not fit"),
    "one bit": (lambda d: d[:60] + bytes([d[60] ^ 1]) + d[61:], "a checksum that does not fit"),
    "something after": (lambda d: d + b"\0", "a checksum that does not fit"),
    "a huge picture": (lambda d: altered(d, WIDTH, "<I", 2**31), "1 to 100000000 pixels"),
    "an empty picture": (lambda d: altered(d, HEIGHT, "<I", 0), "1 to 100000000 pixels"),
    "two channels": (lambda d: altered(d, CHANNELS, "<B", 2), "a header that contradicts itself"),
    "too many samples": (lambda d: altered(d, COUNT, "<I", 5000), "a header that contradicts itself"),
    "another number of samples": (lambda d: altered(d, COUNT, "<I", 191), "cannot be unpacked"),
    "a narrower picture": (lambda d: altered(d, HEIGHT, "<I", 10), "cannot be unpacked"),
    "a shorter block": (lambda d: altered(d, FIRST, "<I", 3), "a header that contradicts itself"),
    "unknown places": (lambda d: altered(d, _HEADER.size, "<B", 7), "cannot be unpacked"),
    "an unknown coding": (lambda d: altered(d, _HEADER.size + 1, "<B", 7), "cannot be unpacked"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused_by_name_and_nothing_is_written(
    damage, refuse, compressed, tmp_path
) -> None:
    spoil, reason = DAMAGE[damage]
    path = tmp_path / "bad.irz"
    path.write_bytes(spoil(compressed.read_bytes()))
    message = refuse("decompress", path, "-o", tmp_path / "x.png")
    assert reason in message
    assert "bad.irz" in message


def test_blocks_that_unpack_to_far_more_than_announced_are_refused() -> None:
    import lzma

    from invrestore.io._samples import _FILTERS, _MAGIC

    bomb = bytes([1]) + lzma.compress(bytes(10**7), format=lzma.FORMAT_RAW, filters=_FILTERS)
    first = bytes([0, 0, 0x80])
    header = _HEADER.pack(_MAGIC, 1, 3, 1, 1, 1, len(first), len(bomb))
    with pytest.raises(ImageFileError, match="cannot be unpacked"):
        decode_samples(signed(header + first + bomb))


def test_random_bytes_never_raise_anything_else(compressed) -> None:
    data = compressed.read_bytes()
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        place = int(torch.randint(_HEADER.size, len(data) - _DIGEST, (), generator=random))
        value = int(torch.randint(0, 256, (), generator=random))
        body = bytearray(data[:-_DIGEST])
        body[place] = value
        try:
            decode_samples(signed(bytes(body)))
        except ImageFileError as error:
            assert "cannot be unpacked" in str(error)  # noqa: PT017


def test_encoder_refuses_what_does_not_fit() -> None:
    x, mask = torch.rand(1, 3, 4, 4), torch.ones(4, 4, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"\(1, 1 or 3, 4, 4\)"):
        encode_samples(x.repeat(2, 1, 1, 1), mask)
    with pytest.raises(RangeError, match="at least one kept pixel"):
        encode_samples(x, ~mask)
