"""Super-resolution by coupled dictionaries: the code of what is seen predicts what is missing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources

import torch
import torch.nn.functional as F

from invrestore._checks import check_count, check_image, check_rng
from invrestore._types import Tensor
from invrestore.errors import CapabilityError, RangeError, ShapeError, WeightsError
from invrestore.operators import Downsample, Operator
from invrestore.priors._dictionary_learning import ksvd
from invrestore.priors._sparse_coding import omp
from invrestore.restorers._base import Restorer

__all__ = ["CoupledAtoms", "CoupledDictionary", "shipped_factors"]

_PATCH = 3
"""Side of a patch in pixels of the small image."""

_LUMA = (0.299, 0.587, 0.114)

_FILE = "coupled_{}x.safetensors"


@dataclasses.dataclass(frozen=True, eq=False)
class CoupledAtoms:
    """Two dictionaries whose atoms belong together.

    Attributes:
        factor: Reduction they undo.
        basis: Principal directions of the features, (d, 4 s s) with s = 3 factor.
        low: Atoms of reduced features, (K, d), unit norms.
        high: The missing detail that goes with each, (K, s s).
    """

    factor: int
    basis: Tensor
    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        where = "CoupledAtoms"
        check_count(where, "factor", self.factor, least=2)
        pixels = (_PATCH * self.factor) ** 2
        expected = {
            "basis": (self.basis.shape[0], 4 * pixels),
            "low": (self.low.shape[0], self.basis.shape[0]),
            "high": (self.low.shape[0], pixels),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ShapeError(
                    where, expected=f"{name} of shape {shape} for factor {self.factor}", found=str(found)
                )

    @classmethod
    def learn(
        cls,
        images: Sequence[Tensor],
        operator: Downsample,
        *,
        count: int = 512,
        sparsity: int = 3,
        steps: int = 15,
        examples: int = 60000,
        energy: float = 0.999,
        rng: torch.Generator,
    ) -> CoupledAtoms:
        """Learn both dictionaries together from large images and what ``operator`` makes of them.

        K-SVD learns atoms of feature and detail side by side, both scaled to unit mean energy, so that one
        code serves both. The code of a new image can only be found from its features; the detail atoms are
        therefore fitted once more, by least squares, to the codes that the features alone give.

        Args:
            images: Images (B, C, H, W), of any sizes; their luma is used.
            operator: The reduction to undo.
            count: Atoms, K.
            sparsity: Most atoms in a code.
            steps: Rounds of K-SVD.
            examples: Pairs of patches to learn from, the same number from every tensor in ``images``.
            energy: Share of the energy of the features that the reduced ones keep.
            rng: Source of the choice of examples.

        Raises:
            RangeError: An option is out of range, or there are fewer examples than atoms.
            ShapeError: An image is smaller than a patch.
        """
        where = "CoupledAtoms.learn"
        check_count(where, "count", count)
        check_count(where, "sparsity", sparsity)
        check_count(where, "examples", examples)
        check_rng(where, rng)
        if not 0 < energy <= 1:
            raise RangeError(where, expected="energy in (0, 1]", found=str(energy))
        features, details = [], []
        share = math.ceil(examples / max(len(images), 1))
        for image in images:
            f, d = _pairs(where, image, operator)
            pick = torch.randperm(f.shape[0], generator=rng, device=rng.device)[:share].to(f.device)
            features.append(f[pick])
            details.append(d[pick])
        if sum(f.shape[0] for f in features) < count:
            raise RangeError(
                where,
                expected=f"at least {count} examples, one for each atom",
                found=str(sum(f.shape[0] for f in features)),
                remedy="Give more or larger images.",
            )
        F_, X = torch.cat(features), torch.cat(details)
        values, vectors = torch.linalg.eigh(F_.mT @ F_)
        kept = values.flip(0).cumsum(0) / values.sum()
        basis = vectors.flip(1)[:, : int((kept < energy).sum()) + 1].mT.contiguous()
        L = F_ @ basis.mT
        # Flat patches have nothing to teach and would make atoms of rounding.
        lively = L.square().sum(1) > 1e-2 * L.square().sum(1).mean()
        L, X = L[lively], X[lively]
        scale = [1 / t.square().sum(1).mean().sqrt() for t in (L, X)]
        joint = torch.cat([scale[0] * L, scale[1] * X], 1)
        start = joint[
            torch.randperm(joint.shape[0], generator=rng, device=rng.device)[:count].to(joint.device)
        ]
        D = ksvd(joint, start, sparsity=sparsity, steps=steps)
        low = F.normalize(D[:, : L.shape[1]], dim=1)
        code = omp(L, low, sparsity=sparsity).dense(count)
        # The ridge decides for atoms that no example needed.
        gram = code.mT @ code
        ridge = 1e-6 * gram.diagonal().mean() * torch.eye(count, dtype=gram.dtype, device=gram.device)
        high = torch.linalg.solve(gram + ridge, code.mT @ X)
        return cls(operator.factor, basis, low, high)

    def to(self, like: Tensor) -> CoupledAtoms:
        """The same atoms with the type and on the device of ``like``."""
        return CoupledAtoms(self.factor, self.basis.to(like), self.low.to(like), self.high.to(like))


@dataclasses.dataclass(frozen=True, eq=False)
class CoupledDictionary(Restorer):
    """Bicubic enlargement plus the detail that coupled dictionaries predict, made to fit the measurement.

    Each 3x3 patch of the small image, seen as first and second derivatives of its bicubic enlargement, is
    coded by few atoms of the low dictionary; the same code of the high dictionary is the missing detail.
    Overlapping patches are averaged, and the nearest image with A x = y is the answer. Colour images get the
    detail of their luma in all channels.

    Args:
        atoms: What ``CoupledAtoms.learn`` made; None takes the shipped ones for the operator's factor.
        sparsity: Most atoms in a code.

    Raises:
        CapabilityError: The operator is no ``Downsample``, or there are no atoms for its factor.
        ShapeError: The measurement does not fit the operator.

    Example:
        >>> from invrestore import operators
        >>> CoupledDictionary().restore(torch.rand(1, 3, 12, 10), operators.Downsample(2)).shape
        torch.Size([1, 3, 24, 20])

    Reference:
        Yang, Wright, Huang and Ma (2010), with the reduced features, OMP codes and the least-squares fit of
        Zeyde, Elad and Protter (2010).
    """

    atoms: CoupledAtoms | None = None
    sparsity: int = 3

    def __post_init__(self) -> None:
        check_count("CoupledDictionary", "sparsity", self.sparsity)

    def restore(self, y: Tensor, operator: Operator) -> Tensor:
        """The large image, (B, C, H, W)."""
        where = "CoupledDictionary.restore"
        check_image(where, y, "y")
        if not isinstance(operator, Downsample):
            raise CapabilityError(
                where,
                expected="operators.Downsample",
                found=operator.name,
                remedy="Other operators: solve(y, operator, priors.Dictionary()).",
            )
        atoms = _shipped(where, operator.factor) if self.atoms is None else self.atoms
        if atoms.factor != operator.factor:
            raise CapabilityError(
                where,
                expected=f"operators.Downsample({atoms.factor}), as the atoms",
                found=f"factor {operator.factor}",
                remedy="CoupledAtoms.learn makes atoms for another factor.",
            )
        work = y if y.dtype in (torch.float32, torch.float64) else y.float()
        large = _enlarged(work, operator)
        detail = self._detail(_luma(large), atoms.to(work))
        return operator.project(large + detail, work).to(y.dtype)

    def _detail(self, luma: Tensor, atoms: CoupledAtoms) -> Tensor:
        factor, size = atoms.factor, _PATCH * atoms.factor
        height, width = luma.shape[-2:]
        grown = F.pad(
            luma, (0, _missing(width, size, factor), 0, _missing(height, size, factor)), mode="replicate"
        )
        columns = F.unfold(_derivatives(grown, factor), size, stride=factor)
        features = columns.mT.flatten(0, 1) @ atoms.basis.mT
        found = omp(features, atoms.low, sparsity=self.sparsity).decode(atoms.high)
        patches = found.view(luma.shape[0], -1, size * size).mT
        shape = grown.shape[-2:]
        total = F.fold(patches, shape, size, stride=factor)
        count = F.fold(torch.ones_like(patches[:1]), shape, size, stride=factor)
        return (total / count)[..., :height, :width]


def shipped_factors() -> list[int]:
    """Factors the package has coupled atoms for."""
    folder = resources.files("invrestore.restorers")
    return [f for f in range(2, 9) if folder.joinpath(_FILE.format(f)).is_file()]


def _shipped(where: str, factor: int) -> CoupledAtoms:
    if factor not in shipped_factors():
        raise CapabilityError(
            where,
            expected=f"a factor out of {shipped_factors()}",
            found=str(factor),
            remedy="CoupledAtoms.learn makes atoms for other factors.",
        )
    return _load(factor)


@cache
def _load(factor: int) -> CoupledAtoms:
    from safetensors import SafetensorError
    from safetensors.torch import load

    name = _FILE.format(factor)
    try:
        tensors = load(resources.files("invrestore.restorers").joinpath(name).read_bytes())
        return CoupledAtoms(factor, *(tensors[key].float() for key in ("basis", "low", "high")))
    except (OSError, SafetensorError, KeyError, ShapeError) as error:
        raise WeightsError(
            "CoupledDictionary",
            expected=f"the shipped atoms {name}",
            found=f"{type(error).__name__}: {error}",
            remedy="Install the package again.",
        ) from error


def _missing(length: int, size: int, factor: int) -> int:
    return max(size - length, -(length - size) % factor)


def _luma(x: Tensor) -> Tensor:
    """BT.601 luma of colour images, the mean of others, (B, 1, H, W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return torch.einsum("bchw,c->bhw", x, x.new_tensor(_LUMA))[:, None]


def _enlarged(y: Tensor, operator: Downsample) -> Tensor:
    """Bicubic enlargement, a = -0.5, to the operator's input size."""
    factor = operator.factor
    size = (y.shape[2] * factor, y.shape[3] * factor)
    # Only with antialias=True does torch interpolate with Pillow's kernel.
    large = F.interpolate(y, size, mode="bicubic", align_corners=False, antialias=True)
    return (
        large
        if operator.input_shape is None
        else large[..., : operator.input_shape[1], : operator.input_shape[2]]
    )


def _derivatives(luma: Tensor, factor: int) -> Tensor:
    """First and second differences over one pixel of the small image, along both axes, (B, 4, H, W)."""
    first = luma.new_zeros(2 * factor + 1)
    first[0], first[-1] = -1.0, 1.0
    second = luma.new_zeros(2 * factor + 1)
    second[0], second[factor], second[-1] = 0.5, -1.0, 0.5
    across = F.pad(luma, (factor, factor, 0, 0), mode="replicate")
    down = F.pad(luma, (0, 0, factor, factor), mode="replicate")
    kernels = torch.stack([first, second])[:, None]
    return torch.cat([F.conv2d(across, kernels[:, :, None]), F.conv2d(down, kernels[:, :, :, None])], 1)


def _pairs(where: str, image: Tensor, operator: Downsample) -> tuple[Tensor, Tensor]:
    """Features and missing detail of all patches of large images, (N, 4 s s) and (N, s s)."""
    check_image(where, image, "images")
    factor, size = operator.factor, _PATCH * operator.factor
    luma = _luma(image)
    luma = luma[..., : luma.shape[2] // factor * factor, : luma.shape[3] // factor * factor]
    if min(luma.shape[2:]) < size:
        raise ShapeError(where, expected=f"images of at least {size}x{size}", found=str(tuple(image.shape)))
    large = _enlarged(operator(luma), operator)
    features = F.unfold(_derivatives(large, factor), size, stride=factor)
    details = F.unfold(luma - large, size, stride=factor)
    return features.mT.flatten(0, 1), details.mT.flatten(0, 1)
