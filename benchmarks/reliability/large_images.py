"""Does a 20-megapixel photo go through the shipped denoiser in 4 GB, and without seams?

``python -m benchmarks.reliability.large_images`` denoises and deblurs one in a process of its own each, reads the
peak of its resident memory from the operating system, compares tiles with the whole picture where that still fits, and
writes the result file.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys

import torch

import invrestore as ir
from benchmarks.common import add_noise, photo, write_result

HEIGHT, WIDTH = 3648, 5472
"""19.96 megapixels, a common camera."""

LIMIT = 4 * 2**30
LEVELS = (5, 25, 50)
"""In 8-bit units."""

PHOTOS = ("astronaut", "chelsea", "coffee")

WORKS = ("nothing", "denoise", "deblur, 1 step")


def work(name: str) -> None:
    """Do one of the works, and print peak memory in bytes and seconds."""
    import resource

    rng = torch.Generator().manual_seed(0)
    y = torch.rand(1, 3, HEIGHT, WIDTH, generator=rng)
    prior = ir.priors.load("denoiser")
    seconds = 0.0
    if name == "denoise":
        seconds = ir.solve(y, ir.operators.Identity(), prior, sigma=25 / 255).seconds
    elif name == "deblur, 1 step":
        # Every step needs the memory of the first.
        blur = ir.operators.Blur(ir.kernels.gaussian(1.6))
        seconds = ir.solve(y, blur, prior, sigma=0.03, max_steps=1).seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"peak_bytes": peak, "seconds": seconds}))


def measure(name: str) -> dict[str, float]:
    """Peak memory in bytes and seconds of one work, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.reliability.large_images", name]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(out)
    return found


def seams(side: int = 640, tile: int = 384) -> dict[str, float]:
    """Largest difference between tiles and the whole picture over some photos, in 8-bit units, for each level."""
    x = torch.cat([photo(name, side) for name in PHOTOS])
    network = ir.priors.load("denoiser").network
    found = {}
    for level in LEVELS:
        y = add_noise(x, level / 255)
        whole, tiles = (
            ir.priors.Denoiser(network, precision="full", tile=cut).denoise(y, level / 255)
            for cut in (0, tile)
        )
        found[str(level)] = 255 * float((whole - tiles).abs().max())
    return found


def main() -> None:
    """Measure, print and write everything."""
    with torch.no_grad():
        differences = seams()
    works = {name: measure(name) for name in WORKS}
    write_result("large_images", {"pixels": HEIGHT * WIDTH, "works": works, "seams_8bit": differences})
    print(f"one photo of {HEIGHT} x {WIDTH}, three channels, float32")
    for name, row in works.items():
        fits = "" if row["peak_bytes"] <= LIMIT else "  above 4 GiB"
        print(f"{name:<28}{row['peak_bytes'] / 2**30:8.2f} GiB{row['seconds']:10.1f} s{fits}")
    for level, difference in differences.items():
        print(f"tiles and whole, sigma {level}/255: at most {difference:.3f}/255 apart")
    assert all(math.isfinite(d) for d in differences.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", nargs="?", choices=WORKS, help="do this alone, in this process")
    chosen = parser.parse_args().work
    if chosen is None:
        main()
    else:
        with torch.no_grad():
            work(chosen)
