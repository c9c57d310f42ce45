"""Fill a hole in the aligned photo of a face by searching the latent space of a generator, and film the search.

Without --photo, the face is one the generator makes from latents of its own that the search does not know.

Run: python examples/fill_a_face.py [--photo face.png] [--side 64] [--out restored.png] [--film search.gif]
"""

import argparse

import torch

import invrestore as ir

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--photo", help="aligned face as wide as high, brought to the generator's size")
options.add_argument("--side", type=int, default=64, help="steps of the search, 2 for each pixel of this")
options.add_argument("--out", help="picture to write")
options.add_argument("--film", help="animation to write, ending in .gif")
given = options.parse_args()

prior = ir.priors.load("faces64")
size = ir.networks.load("faces64").size
if given.photo:
    photo = ir.load_image(given.photo)
    truth = torch.nn.functional.interpolate(photo, (size, size), mode="area")
else:
    truth = prior.generate(prior.sample(1, torch.Generator().manual_seed(2024)))

known = torch.ones(size, size, dtype=torch.bool)
known[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = False
operator = ir.operators.Mask(known)
y = operator(truth)

film = ir.solvers.Film(every=10)
solution = ir.solve(y, operator, prior, sigma=0.0, max_steps=2 * given.side, callback=film)

print(solution)
print(f"PSNR {float(ir.psnr(y, truth)):.2f} dB before, {float(ir.psnr(solution.x, truth)):.2f} dB after")
if given.out:
    ir.save_image(solution.x, given.out)
if given.film:
    film.gif(given.film, side=4 * size)
