"""JPEG as a forward model: compression and decompression, bit for bit where it counts, with gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F

from invrestore._checks import check_choice, check_count, check_shape, check_tensor
from invrestore._types import Shape, Tensor
from invrestore.errors import RangeError, ShapeError
from invrestore.operators._base import LinearOperator, Operator
from invrestore.operators._quantize import check_gradient, pass_through, round_to_integers, soft_round

__all__ = ["JPEG", "JPEGTransform"]

SUBSAMPLINGS = ("4:4:4", "4:2:0")

# Quantisation tables of ITU-T T.81 (1992), annex K.1, for quality 50.
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)

# The integer cosine matrix of the codec's accurate transform, 8192 sqrt(8) times the orthonormal one. It
# comes from a fast algorithm with rounded constants (Loeffler, Ligtenberg and Moschytz, 1989), hence 6436
# beside 6437. Both passes are this exact integer product followed by one rounding, in either direction.
_EVEN = ((8192, 8192), (10703, 4433), (8192, -8192), (4433, -10704))
_ODD = (
    (11363, 9633, 6437, 2260),
    (9633, -2259, -11362, -6436),
    (6437, -11362, 2261, 9633),
    (2260, -6436, 9633, -11363),
)
_FRACTION = 2.0**13
_FIRST_PASS = 2.0**2
"""Fixed-point scales of the cosine constants and of the result of the first pass."""

# Colour weights of JFIF: Y, Cb, Cr from R, G, B and back.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
_BITS = 65536.0
_TO_YCC_FIXED = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_TO_RGB_FIXED = ((65536, 0, 91881), (65536, -22554, -46802), (65536, 116130, 0))


def _table(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _cosine_matrix(like: Tensor) -> Tensor:
    """The 8x8 integer matrix in full: even rows are symmetric, odd rows antisymmetric."""
    rows: list[list[int]] = []
    for k in range(4):
        a, b = _EVEN[k]
        half = (a, b, -b, -a) if k % 2 else (a, b, b, a)
        rows.append([*half, *half[::-1]])
        rows.append([*_ODD[k], *(-v for v in _ODD[k][::-1])])
    return _table(rows, like)


def quantisation_tables(quality: int) -> tuple[list[list[int]], list[list[int]]]:
    """Luma and chroma tables for a quality from 1 to 100, entries in [1, 255].

    Reference:
        The quality rule of the Independent JPEG Group: percentage 5000 / q below 50, 200 - 2 q above.
    """
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality

    def scaled(table: Sequence[Sequence[int]]) -> list[list[int]]:
        return [[min(max((v * percent + 50) // 100, 1), 255) for v in row] for row in table]

    return scaled(_LUMA_TABLE), scaled(_CHROMA_TABLE)


def _to_blocks(plane: Tensor) -> Tensor:
    """(..., 8m, 8n) to (..., m, n, 8, 8)."""
    *lead, h, w = plane.shape
    return plane.reshape(*lead, h // 8, 8, w // 8, 8).transpose(-3, -2)


def _from_blocks(blocks: Tensor) -> Tensor:
    """Inverse of ``_to_blocks``."""
    *lead, m, n, _, _ = blocks.shape
    return blocks.transpose(-3, -2).reshape(*lead, 8 * m, 8 * n)


def _from_left(matrix: Tensor, blocks: Tensor) -> Tensor:
    """``matrix @ blocks`` as one large product: a batched one of 8x8 blocks is several times slower."""
    return (blocks.mT @ matrix.T).mT


def _repeat_edge(x: Tensor, *, rows: int = 0, columns: int = 0) -> Tensor:
    """Append copies of the last row and column."""
    return F.pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x


def _fold_edge(x: Tensor, *, rows: int = 0, columns: int = 0) -> Tensor:
    """Adjoint of ``_repeat_edge``: appended rows and columns are added to the last kept one."""
    if columns:
        x = torch.cat([x[..., : -columns - 1], x[..., -columns - 1 :].sum(-1, keepdim=True)], -1)
    if rows:
        x = torch.cat([x[..., : -rows - 1, :], x[..., -rows - 1 :, :].sum(-2, keepdim=True)], -2)
    return x


def _halved(x: Tensor) -> Tensor:
    """Sum of each 2x2 square, (..., 2h, 2w) to (..., h, w)."""
    return x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]


def _doubled(x: Tensor) -> Tensor:
    """Every sample repeated in a 2x2 square: the adjoint of ``_halved``."""
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def _divide(v: Tensor, divisor: float) -> Tensor:
    """Division with rounding to the nearest integer, halves upwards, as an arithmetic shift does."""
    return round_to_integers(v / divisor)


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The samples before and after each one, edges repeated."""
    n = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
    return before, after


def _triangle(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The two samples that replace each one, 3/4 near and 1/4 far neighbour, times 4."""
    before, after = _neighbours(x, axis)
    return 3 * x + before, 3 * x + after


def _enlarged(plane: Tensor, height: int, width: int) -> Tensor:
    """Chroma brought to full size with the decoder's triangle filter (1/16, 3/16, 3/16, 9/16), then cropped.

    Planes of one or two columns are only repeated, as the decoder does.
    """
    if plane.shape[-1] <= 2:
        return _doubled(plane)[..., :height, :width]
    rows = torch.stack(_triangle(plane, -2), -2).flatten(-3, -2)
    left, right = _triangle(rows, -1)
    # 8 on even and 7 on odd columns before the shift, the decoder's way to avoid a bias.
    left, right = _divide(left, 16), _divide(right - 1, 16)
    return torch.stack((left, right), -1).flatten(-2)[..., :height, :width]


def _before_triangle(plane: Tensor, height: int, width: int) -> Tensor:
    """The plane whose enlargement to (height, width), averaged over 2x2 squares, is ``plane``.

    Along each axis, enlarging and averaging is the filter (1/8, 6/8, 1/8), whose spectrum lies in [1/2, 1];
    on a last sample of which only the first half is kept it is (2/8, 6/8). The iteration
    c <- c + (plane - filter(c)) halves the error each time; 16 rounds leave 2e-5 of it.
    """
    if plane.shape[-1] <= 2:
        return plane
    for axis, size in ((-2, height), (-1, width)):
        seen = plane
        for _ in range(16):
            before, after = _neighbours(plane, axis)
            if size % 2:
                n = plane.shape[axis]
                after = torch.cat([after.narrow(axis, 0, n - 1), before.narrow(axis, n - 1, 1)], axis)
            plane = seen + (2 * plane - before - after) / 8
    return plane


class _Layout(NamedTuple):
    """Sizes of one plane: samples that count, and their extension to whole blocks."""

    height: int
    width: int
    full_height: int
    full_width: int


def _layouts(input_shape: Shape, halve_chroma: bool) -> list[_Layout]:
    channels, height, width = input_shape
    planes = []
    for c in range(channels):
        factor = 2 if c and halve_chroma else 1
        h, w = -(-height // factor), -(-width // factor)
        planes.append(_Layout(h, w, 8 * -(-h // 8), 8 * -(-w // 8)))
    return planes


def _check_picture(where: str, name: str, x: object) -> Tensor:
    x = check_tensor(where, name, x)
    check_shape(where, name, x, (None, None, None))
    if x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ShapeError(
            where,
            expected=f"{name} with 1 (gray) or 3 (RGB) channels and at least one pixel",
            found=str(tuple(x.shape)),
            remedy="Treat other channels as separate gray images.",
        )
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class JPEGTransform(LinearOperator):
    """The linear part of JPEG: image to DCT coefficients, before any rounding.

    RGB to YCbCr, box average of chroma for 4:2:0, extension to whole 8x8 blocks by repeating the edge, and
    the orthonormal DCT of each block. Coefficients are in units of the image range; the level shift of the
    codec, which would make the map affine, is left to the bounds of ``JPEG.interval``.

    Args:
        shape: (C, H, W) of the image, C = 1 or 3.
        subsampling: "4:4:4" or "4:2:0"; without effect on gray images.

    Shapes:
        x: (B, C, H, W). y: (B, M), the blocks of Y, Cb and Cr in raster order; ``planes`` splits it.

    Raises:
        ShapeError: ``shape`` is not (1 or 3, H, W).
    """

    shape: Shape
    subsampling: str = dataclasses.field(default="4:2:0", kw_only=True)

    def __post_init__(self) -> None:
        check_choice(self.name, "subsampling", self.subsampling, SUBSAMPLINGS)
        if len(self.shape) != 3 or self.shape[0] not in (1, 3) or min(self.shape) < 1:
            raise ShapeError(self.name, expected="shape (1 or 3, H, W)", found=str(tuple(self.shape)))
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def input_shape(self) -> Shape:
        """(C, H, W)."""
        return self.shape

    @property
    def layouts(self) -> list[_Layout]:
        """Sizes of the planes Y, Cb, Cr."""
        return _layouts(self.shape, self.subsampling == "4:2:0")

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """(M,)."""
        return (sum(p.full_height * p.full_width for p in self.layouts),)

    def planes(self, y: Tensor) -> list[Tensor]:
        """Coefficients of each plane, (B, M) to a list of (B, rows, columns, 8, 8)."""
        sizes = [p.full_height * p.full_width for p in self.layouts]
        return [
            part.reshape(-1, p.full_height // 8, p.full_width // 8, 8, 8)
            for part, p in zip(torch.split(y, sizes, 1), self.layouts, strict=True)
        ]

    @staticmethod
    def _join(planes: Sequence[Tensor]) -> Tensor:
        return torch.cat([p.flatten(1) for p in planes], 1)

    @staticmethod
    def _dct(like: Tensor) -> Tensor:
        k = torch.arange(8, dtype=torch.float64, device=like.device)
        matrix = 0.5 * torch.cos(math.pi / 8 * k[:, None] * (k + 0.5))
        matrix[0] *= math.sqrt(0.5)
        return matrix.to(like.dtype)

    def _samples(self, x: Tensor) -> list[Tensor]:
        """Planes Y, Cb, Cr of the image at their own size."""
        if x.shape[1] == 1:
            return [x[:, 0]]
        planes = list(torch.einsum("ij,bjhw->ibhw", _table(_TO_YCC, x), x).unbind(0))
        if self.subsampling == "4:2:0":
            height, width = self.shape[1:]
            planes[1:] = [
                _halved(_repeat_edge(p, rows=height % 2, columns=width % 2)) / 4 for p in planes[1:]
            ]
        return planes

    def _apply(self, x: Tensor) -> Tensor:
        d = self._dct(x)
        coefficients = []
        for plane, p in zip(self._samples(x), self.layouts, strict=True):
            whole = _repeat_edge(plane, rows=p.full_height - p.height, columns=p.full_width - p.width)
            coefficients.append(_from_left(d, _to_blocks(whole) @ d.T))
        return self._join(coefficients)

    def _whole_planes(self, y: Tensor) -> list[Tensor]:
        d = self._dct(y)
        return [_from_blocks(_from_left(d.T, blocks @ d)) for blocks in self.planes(y)]

    def _adjoint(self, y: Tensor) -> Tensor:
        height, width = self.shape[1:]
        planes = []
        for whole, p in zip(self._whole_planes(y), self.layouts, strict=True):
            plane = _fold_edge(whole, rows=p.full_height - p.height, columns=p.full_width - p.width)
            if p.height != height or p.width != width:
                plane = _fold_edge(_doubled(plane) / 4, rows=height % 2, columns=width % 2)
            planes.append(plane)
        if len(planes) == 1:
            return planes[0][:, None]
        return torch.einsum("ij,ibhw->bjhw", _table(_TO_YCC, y), torch.stack(planes))

    def image_of(self, y: Tensor) -> Tensor:
        """An image with the coefficients ``y``: inverse DCT, chroma repeated, YCbCr to RGB.

        Exactly a right inverse where the blocks tile the image (sides divisible by 8, or 16 for 4:2:0).
        """
        height, width = self.shape[1:]
        planes = []
        for whole, p in zip(self._whole_planes(y), self.layouts, strict=True):
            plane = whole[..., : p.height, : p.width]
            if p.height != height or p.width != width:
                plane = _doubled(plane)[..., :height, :width]
            planes.append(plane)
        if len(planes) == 1:
            return planes[0][:, None]
        to_rgb = torch.linalg.inv(torch.tensor(_TO_YCC, dtype=torch.float64, device=y.device)).to(y.dtype)
        return torch.einsum("ij,jbhw->bihw", to_rgb, torch.stack(planes))


@dataclasses.dataclass(frozen=True, eq=False)
class JPEG(Operator):
    """``A(x)``: the image after JPEG compression and decompression, nonlinear.

    The arithmetic is that of libjpeg: 8-bit input, 16-bit fixed-point colour conversion, 2x2 chroma average
    with alternating rounding, integer DCT, standard tables, triangle-filter chroma on decoding. Images
    saved and loaded with Pillow at the same quality and subsampling come out the same.

    Every rounding and saturation passes the gradient through unchanged, also beyond the ends of the range,
    so that values outside [0, 1] are pulled back; ``gradient="soft"`` uses a smooth staircase for the
    quantisation of coefficients instead.

    Args:
        quality: 1 (smallest file) to 100.
        subsampling: "4:4:4" (full chroma) or "4:2:0" (half along both axes); no effect on gray images.
        gradient: "straight-through" or "soft"; the value is the same for both.
        temperature: Width of the soft steps in units of one quantisation step, > 0.

    Shapes:
        x, y: (B, 1 or 3, H, W) of any size; x is clipped to [0, 1] and rounded to 8 bits, y is 8-bit / 255.

    Raises:
        RangeError: ``quality`` is outside 1 to 100.
        ShapeError: The image has neither 1 nor 3 channels.
        UnknownNameError: Unknown ``subsampling`` or ``gradient``.

    Example:
        >>> JPEG(90)(torch.full((1, 3, 9, 5), 0.2)).shape
        torch.Size([1, 3, 9, 5])

    Reference:
        ITU-T T.81 (1992); differentiable rounding as in Shin and Song (2017), with another staircase.
    """

    quality: int
    subsampling: str = dataclasses.field(default="4:2:0", kw_only=True)
    gradient: str = dataclasses.field(default="straight-through", kw_only=True)
    temperature: float = dataclasses.field(default=0.2, kw_only=True)

    is_linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count(self.name, "quality", self.quality)
        if self.quality > 100:
            raise RangeError(self.name, expected="quality from 1 to 100", found=str(self.quality))
        check_choice(self.name, "subsampling", self.subsampling, SUBSAMPLINGS)
        check_gradient(self.name, self.gradient, self.temperature)

    def _check_input(self, x: object, where: str = "") -> Tensor:
        return _check_picture(where or self.name, "x", x)

    def _check_output(self, y: object, where: str) -> Tensor:
        return _check_picture(where, "y", y)

    def transform(self, input_shape: Shape) -> JPEGTransform:
        """The linear map from images of shape (C, H, W) to the coefficients that ``interval`` bounds."""
        return JPEGTransform(tuple(input_shape), subsampling=self.subsampling)

    def tables(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Quantisation steps (8, 8) of luma and chroma in 8-bit levels, in the type and place of ``like``."""
        luma, chroma = quantisation_tables(self.quality)
        return _table(luma, like), _table(chroma, like)

    def _apply(self, x: Tensor) -> Tensor:
        # Integers up to 2^40 occur, which float64 holds exactly and float32 does not.
        levels = x.double() * 255
        eight_bit = round_to_integers(pass_through(levels.clamp(0, 255), levels))
        planes = [self._coded(p, c) for c, p in enumerate(self._encoder_planes(eight_bit))]
        return (self._decoded(planes, x.shape[2], x.shape[3]) / 255).to(x.dtype)

    def _encoder_planes(self, x: Tensor) -> list[Tensor]:
        """Whole-block planes of 8-bit samples less 128."""
        height, width = x.shape[2:]
        if x.shape[1] == 1:
            planes = [x[:, 0]]
        else:
            mixed = torch.einsum("ij,bjhw->ibhw", _table(_TO_YCC_FIXED, x), x)
            # Chroma gets one unit less than one half, so that exact halves go down.
            planes = [_divide(mixed[0], _BITS)]
            planes += [_divide(m - 1, _BITS) + 128 for m in mixed[1:]]
        whole: list[Tensor] = []
        for plane, p in zip(planes, _layouts(tuple(x.shape[1:]), self.subsampling == "4:2:0"), strict=True):
            columns = p.full_width - p.width
            if (p.height, p.width) != (height, width) or (whole and self.subsampling == "4:2:0"):
                # Columns are extended before averaging and rows after it, as in the codec.
                plane = _halved(_repeat_edge(plane, rows=height % 2, columns=2 * p.full_width - width))
                bias = 1.0 + torch.arange(p.full_width, device=x.device) % 2
                plane, columns = round_to_integers((plane + bias) / 4 - 0.5), 0
            whole.append(_repeat_edge(plane, rows=p.full_height - p.height, columns=columns) - 128)
        return whole

    def _coded(self, plane: Tensor, component: int) -> Tensor:
        """Samples after integer DCT, quantisation and integer inverse DCT."""
        d = _cosine_matrix(plane)
        table = self.tables(plane)[min(component, 1)]
        rows = _divide(_to_blocks(plane) @ d.T, _FRACTION / _FIRST_PASS)
        scaled = _divide(_from_left(d, rows), _FRACTION * _FIRST_PASS)
        # The result is 8 times the coefficient; the quotient is rounded with halves away from 0.
        ratio = scaled / (8 * table)
        nearest = ratio.detach().sign() * (ratio.detach().abs() + 0.5).floor()
        smooth = ratio if self.gradient == "straight-through" else soft_round(ratio, self.temperature)
        coefficients = pass_through(nearest, smooth) * table
        columns = _divide(_from_left(d.T, coefficients), _FRACTION / _FIRST_PASS)
        samples = _divide(columns @ d, _FRACTION * _FIRST_PASS * 8) + 128
        return _from_blocks(pass_through(samples.clamp(0, 255), samples))

    def _decoded(self, planes: list[Tensor], height: int, width: int) -> Tensor:
        """8-bit image (B, C, H, W) from whole-block planes."""
        if len(planes) == 1:
            return planes[0][:, None, :height, :width]
        if self.subsampling == "4:2:0":
            h, w = -(-height // 2), -(-width // 2)
            planes[1:] = [_enlarged(p[:, :h, :w], height, width) for p in planes[1:]]
        y, cb, cr = (p[:, :height, :width] for p in planes)
        ycc = torch.stack([y, cb - 128, cr - 128])
        rgb = _divide(torch.einsum("ij,jbhw->bihw", _table(_TO_RGB_FIXED, y), ycc), _BITS)
        return pass_through(rgb.clamp(0, 255), rgb)

    def coefficients(self, x: Tensor) -> Tensor:
        """DCT coefficients before quantisation, ``transform(x.shape[1:])(x)``, shape (B, M)."""
        x = self._check_input(x, f"{self.name}.coefficients")
        return self.transform(tuple(x.shape[1:]))(x)

    def _steps(self, transform: JPEGTransform, like: Tensor) -> Tensor:
        """Quantisation step of each entry of (B, M), in units of the image range."""
        tables = self.tables(like)
        parts = [
            tables[min(c, 1)].expand(p.full_height // 8, p.full_width // 8, 8, 8).reshape(-1)
            for c, p in enumerate(transform.layouts)
        ]
        return torch.cat(parts) / 255

    def _shift(self, transform: JPEGTransform, like: Tensor) -> Tensor:
        """Level shift of each entry: luma is coded less 128, which only the mean of a block shows."""
        shift = like.new_zeros(transform.output_shape_of(transform.shape))
        luma = transform.layouts[0]
        shift[: luma.full_height * luma.full_width : 64] = 8 * 128 / 255
        return shift

    def _cut(self, transform: JPEGTransform, device: torch.device) -> Tensor:
        """True for the coefficients of blocks that reach over the border of the image."""
        parts = []
        height, width = transform.shape[1:]
        for p in transform.layouts:
            scale = 8 * (1 if (p.height, p.width) == (height, width) else 2)
            rows = torch.arange(1, p.full_height // 8 + 1, device=device) * scale > height
            columns = torch.arange(1, p.full_width // 8 + 1, device=device) * scale > width
            parts.append((rows[:, None] | columns).repeat_interleave(64))
        return torch.cat(parts)

    def _recovered(self, transform: JPEGTransform, y: Tensor) -> Tensor:
        """Coefficients that the decoded image ``y`` was made from, before they are moved to the grid.

        For 4:2:0 the decoder's triangle filter is undone on the chroma planes.
        """
        planes = transform._samples(y)
        if len(planes) == 3 and transform.subsampling == "4:2:0":
            height, width = transform.shape[1:]
            planes[1:] = [_before_triangle(p, height, width) for p in planes[1:]]
        d = transform._dct(y)
        coefficients = []
        for plane, p in zip(planes, transform.layouts, strict=True):
            whole = _repeat_edge(plane, rows=p.full_height - p.height, columns=p.full_width - p.width)
            coefficients.append(_from_left(d, _to_blocks(whole) @ d.T))
        return transform._join(coefficients)

    def interval(self, y: Tensor, *, margin: float = 0.0) -> tuple[Tensor, Tensor]:
        """Smallest and largest DCT coefficients that are quantised to those of ``y``.

        ``fidelity.Interval(lower, upper)`` on ``transform(input_shape)(x)`` then says that x compresses to y.
        The stored coefficients are found from the decoded image: exactly, but where decoded samples were
        clipped at 0 or 1 (on a photo at quality 90, 0.3 % of the coefficients). Blocks that reach over the
        border show only in part; there the bounds are a whole step to either side instead of half a step. The
        8-bit roundings inside the codec move coefficients by about 0.3/255 rms, more than the finest steps;
        ``margin`` allows for that.

        Args:
            y: Decoded image (B, 1 or 3, H, W).
            margin: Added on both sides, in 8-bit levels, >= 0.

        Returns:
            (lower, upper), both (B, M), in units of the image range.
        """
        where = f"{self.name}.interval"
        y = self._check_output(y, where)
        if not (math.isfinite(margin) and margin >= 0):
            raise RangeError(where, expected="margin >= 0 and finite", found=str(margin))
        transform = self.transform(tuple(y.shape[1:]))
        precise = y.detach().double()
        step, shift = self._steps(transform, precise), self._shift(transform, precise)
        found = self._recovered(transform, precise)
        on_grid = ((found - shift) / step).round() * step + shift
        cut = self._cut(transform, y.device)
        centre = torch.where(cut, found, on_grid)
        half = torch.where(cut, step, 0.5 * step) + margin / 255
        return (centre - half).to(y.dtype), (centre + half).to(y.dtype)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` with its DCT coefficients clipped to ``interval(y)``: nearest in YCbCr, not in RGB.

        Exactly inside the interval where the blocks tile the image; in blocks cut by the border, and up to
        the 8-bit roundings of the codec, only nearly so. For 4:2:0 the chroma correction is constant on
        2x2 squares, so chroma detail of ``x`` finer than that is kept.
        """
        where = f"{self.name}.project"
        x, y = self._check_input(x, where), self._check_output(y, where)
        if x.shape != y.shape:
            raise ShapeError(where, expected=f"x of y's shape {tuple(y.shape)}", found=str(tuple(x.shape)))
        transform = self.transform(tuple(x.shape[1:]))
        lower, upper = self.interval(y)
        c = transform(x)
        return x + transform.image_of(torch.minimum(torch.maximum(c, lower), upper) - c)

    def estimate_sigma(self, y: Tensor) -> Tensor:
        """Root mean square compression error of each image, shape (B,), from the tables and ``y``.

        A nonzero coefficient errs uniformly, q^2/12. A zero one errs by its own size, which is inferred from
        what is visible (see ``_zero_bin_variance``), so that coarse tables do not overstate the error of
        smooth images. Detail lost to chroma subsampling is not counted. On photos the estimate is 0.9 to
        1.6 times the true error; on synthetic gradients it is several times too large.
        """
        y = self._check_output(y, f"{self.name}.estimate_sigma")
        transform = self.transform(tuple(y.shape[1:]))
        precise = y.detach().double()
        step, shift = self._steps(transform, precise), self._shift(transform, precise)
        index = ((self._recovered(transform, precise) - shift) / step).round()
        per_plane = []
        for k, q in zip(transform.planes(index), transform.planes(step[None]), strict=True):
            table = q[0, 0, 0]
            zeros = (k == 0).double().mean((1, 2))
            hidden = _zero_bin_variance(k, table, zeros)
            per_plane.append((zeros * hidden + (1 - zeros) * table**2 / 12).mean((1, 2)))
        variance = torch.stack(per_plane, 1)
        if variance.shape[1] == 3:
            variance = variance * (_table(_TO_RGB, variance) ** 2).mean(0)
        return variance.sum(1).sqrt().to(y.dtype)


def _zero_bin_variance(index: Tensor, table: Tensor, zeros: Tensor) -> Tensor:
    """Mean square of the coefficients that were quantised to 0, for each frequency, (B, 8, 8).

    Each frequency is Laplacian. Its standard deviation follows from its share of zeros where some coefficient
    is not zero. Where all are, it is extrapolated along 1 / radius, the amplitude law of natural images, from
    the frequencies that show, or from the spread of block means if none does.

    Args:
        index: Quantised coefficients (B, rows, columns, 8, 8) as whole numbers.
        table: Quantisation steps (8, 8).
        zeros: Share of zeros (B, 8, 8).

    Reference:
        Laplacian coefficients: Lam and Goodman (2000). Amplitude law: Field (1987).
    """
    count = index.shape[1] * index.shape[2]
    k = torch.arange(8, dtype=index.dtype, device=index.device)
    radius = torch.hypot(k[:, None], k)
    # A block mean stands for the frequencies below half a cycle per block.
    radius[0, 0] = 0.5
    # With rate r, zeros = 1 - exp(-u) for u = r q / 2, and the standard deviation is sqrt(2) / r.
    u = -torch.log1p(-zeros.clamp(0.5 / count, 1 - 0.5 / count))
    std = table / (math.sqrt(2) * u)
    shows = zeros < 1
    law = torch.where(shows, std * radius, torch.nan)
    law[:, 0, 0] = torch.nan
    level = law.flatten(1).nanmedian(1).values
    means = (index[..., 0, 0] * table[0, 0]).flatten(1).std(1, correction=0)
    level = torch.where(level.isnan(), means * radius[0, 0], level)
    std = torch.where(shows, std, torch.minimum(std, level.view(-1, 1, 1) / radius))
    # Mean square of a Laplacian variable inside (-q/2, q/2), by parts; beyond u = 700 exp(-u) is 0.
    u = (table / (math.sqrt(2) * std.clamp_min(1e-12))).clamp_max(700)
    return (table / (2 * u)) ** 2 * (2 - torch.exp(-u) * (u * u + 2 * u + 2)) / -torch.expm1(-u)
