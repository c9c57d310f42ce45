"""Deblur a photo with total variation; weight and noise level are found from the picture itself.

Run: python examples/deblur_tv_auto.py [--side 264] [--out restored.png]
"""

import argparse

import torch

import invrestore as ir
from invrestore.assets import photo

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--side", type=int, default=264, help="work on the upper left corner of this size")
options.add_argument("--out", help="picture to write")
given = options.parse_args()

truth = ir.load_image(photo("astronaut"))[..., : given.side, : given.side]
operator = ir.operators.Blur(ir.kernels.gaussian(1.6))
noise = 0.01 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
y = operator(truth) + noise

solution = ir.solve(y, operator, ir.priors.TV())

print(solution)
print(f"PSNR {float(ir.psnr(y, truth)):.2f} dB before, {float(ir.psnr(solution.x, truth)):.2f} dB after")
if given.out:
    ir.save_image(solution.x, given.out)
