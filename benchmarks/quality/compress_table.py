"""A picture as a few of its pixels: guided against uniform samples, and against JPEG of the same size.

Run::

    python -m benchmarks.quality.compress_table --data DIR

Held-out faces of 128 x 128 and the pictures of Kodak go through what ``invrestore compress`` and ``decompress`` do:
samples chosen with seed 0, coded, decoded, restored by `xgan-sparse` (``--prior`` takes another name) and put back.
Sizes are those of the whole files. JPEG is Pillow's with 4:2:0 and optimised tables, at the highest quality whose file
is no larger than that of the guided samples; where none is that small the picture is left out of its mean, and the
number of pictures is shown. The faces come out of JPEG files of quality 92, which favours JPEG at high rates. PSNR is
of RGB in 8 bits. The table goes to `benchmarks/results/VERSION/quality/compress.csv`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import RESULTS
from invrestore import metrics, priors, solve
from invrestore.bench import ImageSet, environment
from invrestore.bench._images import find, load
from invrestore.bench._tables import csv_text
from invrestore.bench.suites._sets import FACES_128, KODAK24
from invrestore.io import MAX_PIXELS, decode_samples, encode_samples, write_bytes
from invrestore.operators import Mask, SparseSampling
from invrestore.priors import Capability, Prior

__all__ = ["jpeg_within", "main", "markdown", "sampled", "summary"]

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
SETS: tuple[ImageSet, ...] = (FACES_128, KODAK24)


def sampled(x: torch.Tensor, share: float, guided: bool, prior: Prior) -> tuple[int, torch.Tensor]:
    """Size of the file in bytes, and the picture (1, C, H, W) that comes out of it.

    Args:
        x: Picture, (1, C, H, W) in [0, 1].
        share: Share of the pixels that is kept.
        guided: Choose them along edges.
        prior: Restores the others.
    """
    rng = torch.Generator().manual_seed(0)
    guide = x[0] if guided else None
    mask = SparseSampling(tuple(x.shape[1:]), keep=share, guide=guide, rng=rng).mask
    data = encode_samples(x, mask)
    y, known = decode_samples(data, name="table", max_pixels=MAX_PIXELS)
    direct = prior.can(Capability.RESTORE)
    return len(data), solve(y, Mask(known), prior, sigma=0.0, refine=direct).x


def jpeg_within(x: torch.Tensor, most: int) -> tuple[int, torch.Tensor] | None:
    """Size and picture of the best JPEG of at most so many bytes; None where none is that small."""
    pixels = (x[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    low, high, best = 1, 95, None
    while low <= high:
        quality = (low + high) // 2
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
        if buffer.tell() <= most:
            best, low = buffer, quality + 1
        else:
            high = quality - 1
    if best is None:
        return None
    with Image.open(best) as decoded:
        array = np.array(decoded.convert("RGB"))
    return len(best.getvalue()), torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


def summary(pictures: Sequence[torch.Tensor], share: float, prior: Prior) -> list[dict[str, Any]]:
    """Means over pictures of size, PSNR and SSIM: a record for each way to make the file."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {"guided": [], "uniform": [], "jpeg": []}
    for x in pictures:
        size, restored = sampled(x, share, True, prior)
        made: dict[str, tuple[int, torch.Tensor] | None] = {"guided": (size, restored)}
        made["uniform"] = sampled(x, share, False, prior)
        made["jpeg"] = jpeg_within(x, size)
        for way, found in made.items():
            if found is not None:
                y = metrics.quantize(found[1])
                bits = 8 * found[0] / (x.shape[-2] * x.shape[-1])
                scores = float(metrics.psnr(y, x)), float(metrics.ssim(y, x))
                rows[way].append((found[0], bits, *scores))
    records = []
    for way, values in rows.items():
        size, bits, psnr, ssim = np.mean(values, 0).tolist() if values else [float("nan")] * 4
        records.append(
            {
                "share": share,
                "way": way,
                "n": len(values),
                "bytes": round(size, 1),
                "bits_per_pixel": round(bits, 4),
                "psnr": round(psnr, 4),
                "ssim": round(ssim, 5),
            }
        )
    return records


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """A table for each set of images: bytes, PSNR / SSIM of each way."""
    lines = []
    for images in dict.fromkeys(record["images"] for record in records):
        here = [record for record in records if record["images"] == images]
        lines += [f"**{images}**, {max(r['n'] for r in here)} pictures, bytes: PSNR in dB / SSIM", ""]
        lines.append("| kept | bits a pixel | guided | uniform | JPEG of the guided size |")
        lines.append("|---|---|---|---|---|")
        for share in dict.fromkeys(record["share"] for record in here):
            ways = {r["way"]: r for r in here if r["share"] == share}
            most = ways["guided"]["n"]
            cells = [f"{100 * share:g} %", f"{ways['guided']['bits_per_pixel']:.3f}"]
            for r in ways.values():
                text = f"{r['bytes']:.0f}: {r['psnr']:.2f} / {r['ssim']:.3f}" if r["n"] else "none so small"
                cells.append(text if r["n"] in (0, most) else f"{text} ({r['n']})")
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="training data folder"
    )
    parser.add_argument("--prior", default="xgan-sparse", help="what restores the pictures")
    parser.add_argument("--limit", type=int, default=24, help="pictures of each set")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the training data folder with --data or INVRESTORE_DATA")
    prior = priors.load(options.prior)
    records: list[dict[str, Any]] = []
    for images in SETS:
        pictures = [load(images, file) for file in find(images, Path(options.data))[: options.limit]]
        for share in SHARES:
            found = summary(pictures, share, prior)
            records += [{"images": images.label, "prior": options.prior, **record} for record in found]
            print(
                images.label,
                share,
                *(f"{r['way']} {r['psnr']:.2f} dB {r['bytes']:.0f} B" for r in found),
                flush=True,
            )
    target = RESULTS / "quality"
    target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / "compress.csv", csv_text(records).encode(), force=True)
    details = json.dumps(environment(), indent=1) + "\n"
    write_bytes(target / "compress-environment.json", details.encode(), force=True)
    print(markdown(records))


if __name__ == "__main__":
    main()
