"""Write the coupled atoms that ``restorers.CoupledDictionary()`` ships, for factors 2, 3 and 4.

    python scripts/learn_coupled.py --data DIR

DIR holds ``bsds500`` (train and test are used); images known to belong to a published test set are left out.
The images are reduced by ``operators.Downsample``. One core needs about a minute for each factor.
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
from invrestore.operators import Downsample
from invrestore.restorers import CoupledAtoms

TARGET = Path(__file__).parents[1] / "invrestore" / "restorers"


def read(data: Path) -> list[torch.Tensor]:
    """Training images, each (1, 3, H, W) in [0, 1]."""
    images = []
    for split in ("train", "test"):
        for file in find_images(data / "bsds500", split):
            encoded = file.read()
            if reserved_set(encoded) is None:
                with Image.open(io.BytesIO(encoded)) as image:
                    pixels = torch.from_numpy(np.array(image.convert("RGB")))
                images.append(pixels.permute(2, 0, 1)[None].float() / 255)
    return images


def main() -> None:
    """Learn and write the atoms of every factor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("INVRESTORE_DATA"), help="training data folder")
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data DIR or set INVRESTORE_DATA")
    torch.set_num_threads(1)
    images = read(Path(arguments.data))
    for factor in (2, 3, 4):
        began = time.perf_counter()
        rng = torch.Generator().manual_seed(2010)
        atoms = CoupledAtoms.learn(
            images, Downsample(factor), examples=arguments.examples, steps=arguments.steps, rng=rng
        )
        path = TARGET / f"coupled_{factor}x.safetensors"
        tensors = {key: getattr(atoms, key).half().contiguous() for key in ("basis", "low", "high")}
        effort = (
            f"{arguments.examples} pairs of patches of {len(images)} images, {arguments.steps} steps of K-SVD"
        )
        save_file(tensors, path, metadata={"recipe": effort})
        print(f"{path.name}: {path.stat().st_size} bytes, {time.perf_counter() - began:.0f} s, {effort}")


if __name__ == "__main__":
    main()
