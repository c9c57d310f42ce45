"""Use an operator of your own: any function of tensors that autograd can differentiate.

Here a camera that responds with the square root of the light (a gamma of 2) after a blur.

Run: python examples/own_operator_tv.py [--side 264] [--out restored.png]
"""

import argparse

import torch

import invrestore as ir
from invrestore.assets import photo

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--side", type=int, default=264, help="work on the upper left corner of this size")
options.add_argument("--out", help="picture to write")
given = options.parse_args()

truth = ir.load_image(photo("chelsea"))[..., : given.side, : given.side]
blur = ir.operators.Blur(ir.kernels.disk(2))


def camera(x: torch.Tensor) -> torch.Tensor:
    """Blur, then the square root; the small constant keeps the slope finite at black."""
    return (blur(x).clamp_min(0) + 1e-3).sqrt()


y = camera(truth) + 0.01 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))

solution = ir.solve(y, camera, ir.priors.TV(lam=1e-3), sigma=0.01, init=y**2)

print(solution)
print(f"PSNR {float(ir.psnr(y**2, truth)):.2f} dB before, {float(ir.psnr(solution.x, truth)):.2f} dB after")
if given.out:
    ir.save_image(solution.x, given.out)
