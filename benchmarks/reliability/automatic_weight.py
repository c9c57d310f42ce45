"""How near the automatic weight comes to the best one: 6 photos x 3 tasks, TV.

``python -m benchmarks.reliability.automatic_weight`` prints the table of the documentation and writes the result file.
"""

from __future__ import annotations

import argparse

import torch

import invrestore as ir
from benchmarks.common import add_noise, photo, write_result

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina")
SIZE = 256


def tasks(x: torch.Tensor):
    """(name, operator, measurement, sigma or None)."""
    blur = ir.operators.Blur(ir.kernels.gaussian(1.6))
    mask = ir.operators.Mask(torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.5)
    identity = ir.operators.Identity()
    return [
        ("blur 1.6, sigma 0.01", blur, add_noise(blur(x), 0.01)),
        ("noise, sigma 0.1", identity, add_noise(x, 0.1)),
        ("half the pixels, sigma 0.05", mask, mask(add_noise(x, 0.05))),
    ]


def main() -> None:
    """Measure, print and write everything."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    rows = []
    for name in PHOTOS:
        x = photo(name, SIZE)
        for task, operator, y in tasks(x):
            chosen = ir.solve(y, operator, ir.priors.TV())
            centre = float(chosen.lam)
            searched = [
                (
                    float(ir.psnr(ir.solve(y, operator, ir.priors.TV(lam), sigma=float(chosen.sigma)).x, x)),
                    lam,
                )
                for lam in (centre * 2 ** (k / 3) for k in range(-9, 10))
            ]
            best, best_lam = max(searched)
            got = float(ir.psnr(chosen.x, x))
            rows.append(
                {
                    "photo": name,
                    "task": task,
                    "input": float(ir.psnr(y, x)),
                    "automatic": got,
                    "best": best,
                    "loss": best - got,
                    "lam": centre,
                    "best_lam": best_lam,
                    "seconds": chosen.seconds,
                }
            )
            print(
                f"| {name} | {task} | {got:.2f} | {best:.2f} | {best - got:.2f} | {centre:.4f} | {best_lam:.4f} |",
                flush=True,
            )
    write_result("automatic_weight", {"rows": rows, "largest_loss": max(r["loss"] for r in rows)})
    print(f"largest loss {max(r['loss'] for r in rows):.2f} dB")


if __name__ == "__main__":
    main()
