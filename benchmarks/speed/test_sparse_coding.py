"""Orthogonal matching pursuit on all 8x8 patches of a picture: ours against scikit-learn.

Sparsity 8, 256 atoms. scikit-learn takes one signal after the other, so its time grows with the patches as
ours does and the ratio holds for larger pictures; 128x128 keeps a run under a minute.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.common import add_noise, devices, photo, synchronise
from invrestore.priors._sparse_coding import omp

SIDE, SPARSITY = 128, 8


@pytest.fixture
def work():
    """Patches less their mean, (N, 64), and random atoms, (256, 64)."""
    picture = add_noise(photo("astronaut", SIDE), 0.1).mean(1, keepdim=True)
    patches = torch.nn.functional.unfold(picture, 8)[0].T.contiguous()
    atoms = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    return patches - patches.mean(1, keepdim=True), torch.nn.functional.normalize(atoms, dim=1)


@pytest.mark.parametrize("device", devices())
def test_omp_invrestore(benchmark, work, device):
    patches, atoms = (t.to(device) for t in work)
    benchmark.group = f"omp-{device}"
    benchmark.extra_info.update(who="invrestore", per=1)

    def call():
        omp(patches, atoms, sparsity=SPARSITY)
        synchronise(device)

    benchmark.pedantic(call, rounds=3, warmup_rounds=1)


def test_omp_scikit_learn(benchmark, work):
    linear_model = pytest.importorskip("sklearn.linear_model")
    patches, atoms = (t.double().numpy() for t in work)
    gram, inner = atoms @ atoms.T, atoms @ patches.T
    benchmark.group = "omp-cpu"
    benchmark.extra_info.update(who="scikit-learn", per=1, asked=5)
    benchmark.pedantic(
        lambda: linear_model.orthogonal_mp_gram(gram, inner, n_nonzero_coefs=SPARSITY), rounds=1
    )
