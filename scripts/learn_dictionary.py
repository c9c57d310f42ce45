"""Write the atoms that ``priors.Dictionary()`` ships: 256 of 8x8x3 and 256 of 8x8, learned by K-SVD.

    python scripts/learn_dictionary.py --data DIR

DIR holds ``bsds500`` (train and test are used) and ``scenes`` (train). Images known to belong to a published
test set are left out. Clean patches drawn at random are coded with the error that denoising at
sigma = 20/255 allows, which keeps atoms for structure and none for grain. One core needs a few minutes; the
result depends on the images and the seed alone, up to the rounding of the machine.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from invrestore.data import find_images, reserved_set
from invrestore.priors import Dictionary

TARGET = Path(__file__).parents[1] / "invrestore" / "priors"
SOURCES = (("bsds500", "train"), ("bsds500", "test"), ("scenes", "train"))
SIGMA = 20 / 255
LUMA = torch.tensor([0.299, 0.587, 0.114])


def read(data: Path) -> list[torch.Tensor]:
    """Training images, each (1, 3, H, W) in [0, 1]."""
    images, refused = [], 0
    for folder, split in SOURCES:
        for file in find_images(data / folder, split):
            encoded = file.read()
            if reserved_set(encoded) is not None:
                refused += 1
                continue
            with Image.open(io.BytesIO(encoded)) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB")))
            images.append(pixels.permute(2, 0, 1)[None].float() / 255)
    print(f"{len(images)} images, {refused} reserved ones left out")
    return images


def main() -> None:
    """Learn and write both dictionaries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("INVRESTORE_DATA"), help="training data folder")
    parser.add_argument("--examples", type=int, default=120_000)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data DIR or set INVRESTORE_DATA")
    torch.set_num_threads(1)
    colour = read(Path(arguments.data))
    gray = [torch.einsum("bchw,c->bhw", image, LUMA)[:, None] for image in colour]
    for name, images in (("colour", colour), ("gray", gray)):
        began = time.perf_counter()
        rng = torch.Generator().manual_seed(2006)
        learned = Dictionary.learn(
            images, sigma=SIGMA, count=256, steps=arguments.steps, examples=arguments.examples, rng=rng
        )
        path = TARGET / f"dictionary_8x8_{name}.safetensors"
        assert learned.atoms is not None
        effort = f"{arguments.examples} patches of {len(images)} images, {arguments.steps} steps"
        recipe = f"K-SVD, {effort}, sigma 20/255"
        save_file({"atoms": learned.atoms.half().contiguous()}, path, metadata={"recipe": recipe})
        print(f"{path.name}: {path.stat().st_size} bytes, {time.perf_counter() - began:.0f} s, {recipe}")


if __name__ == "__main__":
    main()
