"""Fill in half of the pixels with a wavelet prior; the known pixels are kept exactly (sigma=0).

Run: python examples/inpaint_wavelet_exact.py [--side 264] [--out restored.png]
"""

import argparse

import torch

import invrestore as ir
from invrestore.assets import photo

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--side", type=int, default=264, help="work on the upper left corner of this size")
options.add_argument("--out", help="picture to write")
given = options.parse_args()

truth = ir.load_image(photo("coffee"))[..., : given.side, : given.side]
operator = ir.operators.SparseSampling(truth.shape[1:], keep=0.5, rng=torch.Generator().manual_seed(0))
y = operator(truth)

solution = ir.solve(y, operator, ir.priors.Wavelet("db4"), sigma=0.0)

print(solution)
print(f"PSNR {float(ir.psnr(y, truth)):.2f} dB before, {float(ir.psnr(solution.x, truth)):.2f} dB after")
if given.out:
    ir.save_image(solution.x, given.out)
