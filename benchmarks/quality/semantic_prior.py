"""Does a high-level network help as a regulariser inside ``solve``, beside a denoiser? Guidance, measured.

``python -m benchmarks.quality.semantic_prior --data DIR`` restores 60 test pictures of scenes6 with plug-and-play,
where every denoised image D(x, s) is moved down the gradient of a high-level loss h of the classifier,

    D(x, s) - lam s^2 grad h(D(x, s)),

which is guidance by a classifier (Dhariwal and Nichol, 2021) if h = -log p(class | x) and the class is known, and
minimisation of entropy if h is the entropy of p(. | x). It prints accuracy and PSNR for several lam, 0 being plain
plug-and-play, and writes the result file.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import invrestore as ir
from benchmarks.common import write_result
from benchmarks.quality.highlevel import TASKS, load_images, noisy_image
from invrestore import networks
from invrestore.metrics import psnr, quantize
from invrestore.priors import Denoiser

STRENGTHS = (0.0, 10.0, 100.0, 1000.0)
EVERY = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Guided(Denoiser):
    """A denoiser whose image is moved down the gradient of a high-level loss.

    Args:
        high_level: Classifier.
        target: Known classes (B,); None for the entropy.
        strength: Factor lam of the gradient.
    """

    high_level: nn.Module | None = dataclasses.field(default=None, kw_only=True)
    target: Tensor | None = dataclasses.field(default=None, kw_only=True)
    strength: float = dataclasses.field(default=0.0, kw_only=True)

    def _denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        denoised = super()._denoise(x, sigma)
        if not self.strength or self.high_level is None:
            return denoised
        with torch.enable_grad():
            inner = denoised.detach().requires_grad_()
            logits = self.high_level(inner)
            if self.target is None:
                loss = -(logits.softmax(1) * logits.log_softmax(1)).sum()
            else:
                loss = F.cross_entropy(logits, self.target, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, inner)
        variance = torch.as_tensor(sigma).square().view(-1, 1, 1, 1)
        return denoised - self.strength * variance * gradient


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("INVRESTORE_DATA"), help="data folder")
    parser.add_argument("--denoiser", default="denoiser", help="name or file of the denoiser's weights")
    options = parser.parse_args()
    task = TASKS[0]
    images = load_images(task, Path(options.data))
    x, labels = images.x[::EVERY], images.labels[::EVERY]
    load = networks.load_file if options.denoiser.endswith(".safetensors") else networks.load
    network, classifier = load(options.denoiser), networks.load(task.network)
    problems = {
        "noise, sigma 45/255": (ir.operators.Identity(), 45),
        "blur 1.6, sigma 15/255": (ir.operators.Blur(ir.kernels.gaussian(1.6)), 15),
    }
    rows = []
    for name, (operator, sigma) in problems.items():
        y = torch.stack([noisy_image(operator(image[None])[0], sigma, i) for i, image in enumerate(x)])
        for loss in ("entropy", "class"):
            for strength in STRENGTHS:
                if loss == "class" and not strength:
                    continue
                prior = Guided(
                    network,
                    high_level=classifier,
                    target=labels if loss == "class" else None,
                    strength=strength,
                )
                found = quantize(ir.solve(y, operator, prior, sigma=sigma / 255).x)
                with torch.no_grad():
                    accuracy = 100 * float((classifier(found).argmax(1) == labels).float().mean())
                row = {
                    "problem": name,
                    "loss": loss if strength else "none",
                    "lam": strength,
                    "top1": round(accuracy, 2),
                    "psnr": round(float(psnr(found, x).mean()), 3),
                }
                rows.append(row)
                print(row, flush=True)
    write_result("semantic_prior", {"images": len(x), "denoiser": options.denoiser, "rows": rows})


if __name__ == "__main__":
    main()
