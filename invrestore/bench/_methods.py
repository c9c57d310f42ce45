"""The rows that a benchmark can have: our priors, simple baselines, other libraries and published weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from invrestore import networks, priors
from invrestore._types import Tensor
from invrestore.bench import _classical, _colour, _filling, _learned, _libraries, _peers
from invrestore.bench._types import Kind, Method
from invrestore.networks import LatentModel, RestorerNetwork

__all__ = ["METHODS", "learned"]

_HOLES: frozenset[Kind] = frozenset({"mask", "clutter"})
_LINEAR: frozenset[Kind] = frozenset({"noise", "blur", "downsample", "mask", "clutter"})
_MODELLED: frozenset[Kind] = frozenset({*_LINEAR, "quantize", "jpeg"})
_INVERTED: frozenset[Kind] = frozenset({*_MODELLED, "grayscale"})
_EVERY: frozenset[Kind] = frozenset({*_MODELLED, "grayscale", "colornoise"})

_STRENGTHS: Mapping[str, tuple[Any, ...]] = {"strength": (None, 0.5, 2.0)}
_TV_STRENGTHS: Mapping[str, tuple[Any, ...]] = {"strength": (None, 0.15, 0.25, 0.9, 1.2, 1.6)}


def _explicit(name: str, label: str, reference: str, **grid: tuple[Any, ...]) -> Method:
    run = functools.partial(_classical.explicit, prior=name)
    return Method(name, label, "classical", run, _MODELLED, grid, reference=reference)


def _opencv(name: str, label: str, reference: str) -> Method:
    run = functools.partial(_libraries.opencv_inpaint, flavour=name)
    return Method(name, label, "peer", run, _HOLES, {"radius": (3, 5, 9)}, "cv2", reference=reference)


def learned(name: str) -> list[Method]:
    """The rows of a network that ships with weights."""
    details = networks.card(name)
    architecture = networks.ARCHITECTURES[details.architecture]

    def row(
        run: Callable[..., Tensor],
        kinds: frozenset[Kind],
        suffix: str = "",
        words: str = "",
        others: tuple[str, ...] = (),
    ) -> Method:
        return Method(
            name + suffix,
            f"Ours: {name}{words}",
            "learned",
            functools.partial(run, prior=name),
            kinds,
            _STRENGTHS if run is _learned.denoised else {},
            networks=(name, *others),
            # `solve` takes gray pictures through a colour denoiser.
            channels=(1, 3) if run in (_learned.denoised, _learned.ensembled) else (details.channels,),
            reference=details.reference,
        )

    if issubclass(architecture, LatentModel):
        return [
            row(_learned.plain_map, _INVERTED, "-map", ", plain MAP"),
            # Its answer is averaged with that of the denoiser.
            row(_learned.searched, _INVERTED, others=("denoiser",)),
            row(_learned.searched_raw, _INVERTED, "-raw", ", raw G(z)"),
        ]
    if issubclass(architecture, RestorerNetwork):
        return [row(_learned.restored, _learned.kinds_of(details))]
    return [
        row(_learned.denoised, _MODELLED),
        row(_learned.ensembled, frozenset({"noise"}), "-ensemble", ", mean of 8 views"),
    ]


def _methods() -> list[Method]:
    found = [
        # No restoration.
        Method("input", "Input", "input", _classical.measured, _EVERY),
        Method(
            "bicubic",
            "Bicubic",
            "input",
            _classical.bicubic,
            frozenset({"downsample"}),
            reference="Keys (1981), a = -0.5",
        ),
        # Ours, classical.
        _explicit("tikhonov", "Tikhonov", "Tikhonov (1963), squared gradients"),
        _explicit("tv", "TV", "Rudin, Osher and Fatemi (1992), vectorial", **_TV_STRENGTHS),
        _explicit("tgv", "TGV", "Bredies, Kunisch and Pock (2010)", **_TV_STRENGTHS),
        _explicit("wavelet", "Wavelet", "Donoho and Johnstone (1994), db4, 4 shifts", **_STRENGTHS),
        Method(
            "dictionary",
            "Sparse: learned dictionary",
            "classical",
            _classical.dictionary,
            _MODELLED,
            _STRENGTHS,
            reference="Mairal, Elad and Sapiro (2008)",
        ),
        Method(
            "k-svd",
            "Sparse: K-SVD on the image",
            "classical",
            _classical.k_svd,
            frozenset({"noise"}),
            {"gain": (None, 1.05, 1.1)},
            reference="Elad and Aharon (2006)",
        ),
        Method(
            "low-rank",
            "Low rank",
            "classical",
            _classical.low_rank,
            _MODELLED,
            {"strength": (None, 0.5, 2.0), "rank": (0, 4, 8, 16, 24)},
            reference="Gu et al. (2014), WNNM; masks: Hu et al. (2013), truncated nuclear norm",
        ),
        Method(
            "coupled-dictionary",
            "Sparse: coupled dictionaries",
            "classical",
            _classical.coupled_dictionary,
            frozenset({"downsample"}),
            {"sparsity": (2, 3, 5)},
            reference="Yang et al. (2010), Zeyde et al. (2010)",
        ),
        Method(
            "colour-regression",
            "Colour by regression",
            "classical",
            _colour.colour_regression,
            frozenset({"grayscale"}),
            {"ridge": (1e-4, 1e-3, 1e-2)},
            examples=True,
            reference="Ridge regression of colour on luma at each pixel",
        ),
        Method(
            "median",
            "Median",
            "classical",
            _classical.median,
            frozenset({"colornoise"}),
            {"size": (5, 9, 15, 21)},
            reference="Tukey (1977), scipy",
        ),
        Method(
            "tv-l1",
            "TV with L1 fidelity",
            "classical",
            _classical.tv_l1,
            frozenset({"colornoise"}),
            {"lam": (0.5, 1.0, 1.5, 2.0)},
            reference="Chan and Esedoglu (2005)",
        ),
        Method(
            "consensus-tv",
            "Neighbour consensus + TV",
            "classical",
            _classical.consensus_tv,
            frozenset({"colornoise"}),
            {"radius": (5, 7, 10), "votes": (2.0, 3.0, 5.0)},
            reference="After Garnett et al. (2005)",
        ),
        Method(
            "patchmatch",
            "PatchMatch",
            "classical",
            _filling.patchmatch,
            _HOLES,
            {"patch": (5, 7, 9)},
            reference="Wexler et al. (2007), Barnes et al. (2009)",
        ),
        Method(
            "k-nn",
            "k nearest neighbours",
            "classical",
            _filling.nearest_neighbours,
            _HOLES,
            {"neighbours": (1, 4, 10, 30, 60)},
            examples=True,
            reference="Hays and Efros (2007); Perez et al. (2003) for blending",
        ),
        # Other libraries.
        Method(
            "biharmonic",
            "Biharmonic (scikit-image)",
            "peer",
            _libraries.biharmonic,
            _HOLES,
            module="skimage",
            reference="Damelin and Hoang (2018), scikit-image",
        ),
        _opencv("telea", "Telea (OpenCV)", "Telea (2004), OpenCV"),
        _opencv("navier-stokes", "Navier-Stokes (OpenCV)", "Bertalmio et al. (2001), OpenCV"),
        Method(
            "skimage-tv",
            "TV (scikit-image)",
            "peer",
            _libraries.skimage_tv,
            frozenset({"noise", "quantize", "jpeg", "colornoise"}),
            {"strength": (0.6, 0.8, 1.0, 1.3, 1.7)},
            "skimage",
            reference="Chambolle (2004), scikit-image",
        ),
        Method(
            "bm3d",
            "BM3D",
            "peer",
            _libraries.bm3d,
            frozenset({"noise", "blur", "quantize", "jpeg", "colornoise"}),
            {"strength": (0.7, 0.85, 1.0, 1.2, 1.5)},
            "bm3d",
            reference="Mäkinen, Azzari and Foi (2020), package bm3d",
        ),
        Method(
            "deepinv-tv",
            "TV (deepinv)",
            "peer",
            _libraries.deepinv_tv,
            _LINEAR,
            {"lam": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)},
            "deepinv",
            reference="deepinv, Douglas-Rachford",
        ),
        Method(
            "deepinv-wavelet",
            "Wavelet (deepinv)",
            "peer",
            _libraries.deepinv_wavelet,
            _LINEAR,
            {"lam": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)},
            "ptwt",
            reference="deepinv, Douglas-Rachford",
        ),
        Method(
            "deepinv-dpir",
            "DPIR (deepinv) with our denoiser",
            "peer",
            _libraries.deepinv_dpir,
            frozenset({"blur", "downsample", "mask", "clutter"}),
            module="deepinv",
            networks=("denoiser",),
            reference="Zhang et al. (2021), deepinv",
        ),
        Method(
            "dncnn-blind",
            "DnCNN, blind (authors' weights)",
            "peer",
            _peers.dncnn_blind,
            frozenset({"noise"}),
            module="h5py",
            peers=True,
            channels=(3,),
            reference="Zhang et al. (2017)",
        ),
        Method(
            "dncnn",
            "DnCNN, one for each level (authors' weights)",
            "peer",
            _peers.dncnn,
            frozenset({"noise"}),
            module="h5py",
            peers=True,
            channels=(3,),
            reference="Zhang et al. (2017)",
        ),
        Method(
            "ffdnet",
            "FFDNet (authors' weights)",
            "peer",
            _peers.ffdnet,
            frozenset({"noise"}),
            module="h5py",
            peers=True,
            channels=(3,),
            reference="Zhang et al. (2018)",
        ),
    ]
    # Ours, learned: whatever ships with weights.
    trained = [name for name in networks.available() if name in priors.available()]
    return found + [method for name in trained for method in learned(name)]


METHODS: dict[str, Method] = {method.name: method for method in _methods()}
"""Methods by name."""
