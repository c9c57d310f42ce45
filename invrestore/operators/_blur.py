"""Convolution with a known kernel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from invrestore._checks import check_choice, check_device, check_finite, check_shape, check_tensor, expand
from invrestore._types import PerImage, Shape, Tensor
from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.operators._base import DataStep, LinearOperator
from invrestore.operators._borders import extend_both, fold
from invrestore.operators._spectra import fast_size, filtered, image_of, spectrum_of

__all__ = ["Blur", "check_kernel"]

PADDINGS = ("circular", "reflect", "replicate", "valid", "zero")

_DIRECT_TAPS = 12
"""Kernels up to this many taps are summed shift by shift; above, the FFT is faster (measured on CPU at
3x256x256 and 3x1024x1024, where both cost the same between 9 and 16 taps)."""


def check_kernel(where: str, kernel: object) -> Tensor:
    """Return a blur kernel as a tensor with four axes (B or 1, C or 1, kh, kw).

    Raises:
        DTypeError: It is not a real floating-point tensor.
        ShapeError: It has neither 2 nor 4 axes, or is empty.
        RangeError: It holds NaN or an infinity, or sums to 0.
    """
    kernel = check_tensor(where, "kernel", kernel)
    if kernel.is_complex():
        raise DTypeError(
            where, expected="a real kernel", found=str(kernel.dtype), remedy="Take its real part."
        )
    if kernel.ndim not in (2, 4):
        raise ShapeError(
            where,
            expected="a kernel of shape (kh, kw), (1, 1, kh, kw), (B, 1, kh, kw) or (1, C, kh, kw)",
            found=str(tuple(kernel.shape)),
            remedy="kernel[:, None] adds the channel axis of per-image kernels." if kernel.ndim == 3 else "",
        )
    if kernel.numel() == 0:
        raise ShapeError(where, expected="a kernel with at least one tap", found=str(tuple(kernel.shape)))
    check_finite(where, "kernel", kernel.detach())
    kernel = kernel[None, None] if kernel.ndim == 2 else kernel
    plain = kernel.detach().double()
    total = plain.sum((-2, -1)).abs()
    if bool((total <= 1e-6 * plain.abs().sum((-2, -1))).any()):
        raise RangeError(
            where,
            expected="a kernel with a sum other than 0",
            found=f"a sum of {float(plain.sum((-2, -1)).abs().min()):.1e}",
            remedy="An edge filter is not a blur: it removes the mean of the picture for good.",
        )
    return kernel


def _both_parts(apply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A real linear map applied to real and imaginary part."""
    return torch.complex(apply(x.real), apply(x.imag))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Everything about one convolution that follows from sizes: borders, output and FFT sizes.

    Along each axis the extended input starts ``before`` samples early, and sample i of the output is
    sum_j k[j] input[i + start - j].
    """

    before: tuple[int, int]
    after: tuple[int, int]
    start: tuple[int, int]
    padded: tuple[int, int]
    output: tuple[int, int]
    grid: tuple[int, int]


def _is_host_number(value: Tensor) -> bool:
    """Whether ``value`` is one constant whose reading costs no synchronisation."""
    return value.numel() == 1 and value.device.type == "cpu" and not value.requires_grad


@dataclasses.dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    """Convolution ``y = k * x``, true to the word: the kernel is flipped, and centred at (kh // 2, kw // 2).

        y[i] = sum_j k[j] x[i + n // 2 - j]        along each axis, n the kernel side.

    Computed shift by shift for kernels of up to 12 taps and by FFT above, to rounding the same; float16 and
    bfloat16 images are blurred in float32 and converted back.

    Args:
        kernel: (kh, kw) or (1, 1, kh, kw) for all images, (B, 1, kh, kw) one for each image, (1, C, kh, kw)
            one for each channel, or (B, C, kh, kw). Used as it is: a sum of 1 keeps the brightness.
            Gradients flow to it.
        padding: What lies outside the image: "circular" (the image repeats; the cheapest, with closed-form
            ``prox`` and ``pinv``), "reflect" (mirrored about the outer pixels), "replicate" (outer pixels
            repeated), "zero", or "valid" (unknown: only pixels whose whole neighbourhood is inside are
            measured, so y is smaller by the kernel side less 1). A kernel may be larger than the image
            except with "valid": wraps and reflections are then repeated as often as needed.

    Shapes:
        x: (B, C, H, W). y: the same, or (B, C, H - kh + 1, W - kw + 1) with "valid".

    Raises:
        DTypeError: The kernel is not a real floating-point tensor.
        ShapeError: The kernel has a wrong number of axes or is empty; on use: it has one entry for each
            image or channel of another number, or is larger than the image with "valid".
        RangeError: The kernel is not finite, or sums to 0.
        UnknownNameError: No such padding.

    Example:
        >>> blur = Blur(torch.full((3, 3), 1 / 9))
        >>> y = blur(torch.eye(5)[None, None])
        >>> round(float(y[0, 0, 2, 2]), 4)
        0.3333
    """

    kernel: Tensor
    padding: str = "circular"

    def __post_init__(self) -> None:
        check_choice(self.name, "padding", self.padding, PADDINGS)
        object.__setattr__(self, "kernel", check_kernel(self.name, self.kernel))

    # Sizes and checks.

    @property
    def _sides(self) -> tuple[int, int]:
        return self.kernel.shape[-2], self.kernel.shape[-1]

    def _check_fit(self, where: str, name: str, x: Tensor) -> None:
        check_shape(where, name, x, (None, None, None))
        check_device(where, **{name: x, "kernel": self.kernel})
        images, channels = self.kernel.shape[:2]
        if images not in (1, x.shape[0]):
            raise ShapeError(
                where,
                expected=f"a batch of {images}, one image for each kernel of {tuple(self.kernel.shape)}",
                found=f"{name} of shape {tuple(x.shape)}",
                remedy="One kernel (1, 1, kh, kw) fits any batch.",
            )
        if channels not in (1, x.shape[1]):
            raise ShapeError(
                where,
                expected=f"{channels} channels, one for each kernel of {tuple(self.kernel.shape)}",
                found=f"{name} of shape {tuple(x.shape)}",
                remedy="One kernel (1, 1, kh, kw) fits any number of channels.",
            )

    def _check_input(self, x: object, where: str = "") -> Tensor:
        where = where or self.name
        x = check_tensor(where, "x", x)
        self._check_fit(where, "x", x)
        self.output_shape_of(tuple(x.shape[1:]))
        return x

    def _check_output(self, y: object, where: str) -> Tensor:
        y = check_tensor(where, "y", y)
        self._check_fit(where, "y", y)
        return y

    def output_shape_of(self, input_shape: Shape) -> Shape:
        """The image shape, with "valid" less the kernel sides plus 1.

        Raises:
            ShapeError: With "valid", the kernel is larger than the image.
        """
        if self.padding != "valid":
            return input_shape
        (kh, kw), (height, width) = self._sides, input_shape[-2:]
        if kh > height or kw > width:
            raise ShapeError(
                self.name,
                expected=f"an image at least as large as the kernel, {kh} x {kw}, for padding='valid'",
                found=f"{height} x {width}",
                remedy="Another padding accepts kernels larger than the image.",
            )
        return (*input_shape[:-2], height - kh + 1, width - kw + 1)

    def input_shape_of(self, output_shape: Shape) -> Shape:
        """The measurement's shape, with "valid" plus the kernel sides less 1."""
        if self.padding != "valid":
            return output_shape
        (kh, kw), (height, width) = self._sides, output_shape[-2:]
        return (*output_shape[:-2], height + kh - 1, width + kw - 1)

    @property
    def _reach(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels above and left of its own that a blurred pixel sees, and pixels below and right."""
        kh, kw = self._sides
        half = (kh // 2, kw // 2)
        return (kh - 1 - half[0], kw - 1 - half[1]), half

    def _plan(self, size: tuple[int, int]) -> _Plan:
        kh, kw = self._sides
        before, half = self._reach
        if self.padding == "circular":
            return _Plan((0, 0), (0, 0), half, size, size, size)
        output = self.output_shape_of(size)
        out = (output[0], output[1])
        if self.padding == "zero":
            # No explicit border: the FFT grid only has to keep the wrapped ends out of the output.
            grid = [n + max(h, k - 1 - h) for n, h, k in zip(size, half, (kh, kw), strict=True)]
            return _Plan((0, 0), (0, 0), half, size, out, (fast_size(grid[0]), fast_size(grid[1])))
        after = half
        if self.padding == "valid":
            before = after = (0, 0)
        padded = (size[0] + before[0] + after[0], size[1] + before[1] + after[1])
        grid_size = (fast_size(padded[0]), fast_size(padded[1]))
        return _Plan(before, after, (kh - 1, kw - 1), padded, out, grid_size)

    # The two products.

    def _transfer(self, plan: _Plan, dtype: torch.dtype) -> Tensor:
        """Transfer function on the FFT grid, (B or 1, C or 1, grid height, grid width // 2 + 1)."""

        def make() -> Tensor:
            kernel = self.kernel.to(dtype)
            for axis, n in ((-2, plan.grid[0]), (-1, plan.grid[1])):
                # A kernel longer than the grid wraps around it: exact for the circular case, the only one
                # where it happens.
                side = kernel.shape[axis]
                turns = -(-side // n)
                missing = turns * n - side
                kernel = F.pad(kernel, (0, 0, 0, missing) if axis == -2 else (0, missing))
                kernel = torch.stack(torch.split(kernel, n, axis)).sum(0)
            kernel = kernel.roll((-plan.start[0], -plan.start[1]), (-2, -1))
            return spectrum_of(kernel, plan.grid)

        return self._memo(("transfer", plan, dtype), make)  # type: ignore[no-any-return]

    def _transfer_back(self, plan: _Plan, dtype: torch.dtype) -> Tensor:
        """Complex conjugate of the transfer function, as numbers of its own."""

        def make() -> Tensor:
            return self._transfer(plan, dtype).conj().resolve_conj()

        return self._memo(("transfer back", plan, dtype), make)  # type: ignore[no-any-return]

    @property
    def _is_direct(self) -> bool:
        return math.prod(self._sides) <= _DIRECT_TAPS

    def _taps(self, dtype: torch.dtype) -> list[tuple[int, int, Tensor]]:
        kernel = self.kernel.to(dtype)
        kh, kw = self._sides
        return [(a, b, kernel[..., a : a + 1, b : b + 1]) for a in range(kh) for b in range(kw)]

    def _shift_sum(self, padded: Tensor, size: tuple[int, int], flip: bool) -> Tensor:
        """Sum of tap (a, b) times the window of ``padded`` that starts at (a, b), or at its mirror image."""
        kh, kw = self._sides
        total: Tensor | None = None
        for a, b, tap in self._taps(padded.dtype):
            top, left = (kh - 1 - a, kw - 1 - b) if flip else (a, b)
            window = padded[..., top : top + size[0], left : left + size[1]]
            total = window * tap if total is None else torch.addcmul(total, window, tap)
        assert total is not None
        return total

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return _both_parts(self._apply, x)
        if x.dtype in (torch.bfloat16, torch.float16):
            return self._apply(x.float()).to(x.dtype)
        plan = self._plan((x.shape[-2], x.shape[-1]))
        if self._is_direct:
            (kh, kw), (top, left) = self._sides, plan.start
            if self.padding in ("circular", "zero"):
                x = extend_both(x, (kh - 1 - top, kw - 1 - left), (top, left), self.padding)
            else:
                x = self._extend(x, plan)
            return self._shift_sum(x, plan.output, flip=True)
        spectrum = spectrum_of(self._extend(x, plan), plan.grid)
        return image_of(filtered(spectrum, self._transfer(plan, x.dtype)), plan.grid, plan.output)

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return _both_parts(self._adjoint, y)
        if y.dtype in (torch.bfloat16, torch.float16):
            return self._adjoint(y.float()).to(y.dtype)
        shape = self.input_shape_of(tuple(y.shape))
        plan = self._plan((shape[-2], shape[-1]))
        if self._is_direct:
            (kh, kw), (top, left) = self._sides, plan.start
            padding = "circular" if self.padding == "circular" else "zero"
            # Correlation: x[m] = sum_j k[j] y[m + j - start].
            more = (plan.padded[0] - plan.output[0], plan.padded[1] - plan.output[1])
            y = extend_both(y, plan.start, (more[0] + kh - 1 - top, more[1] + kw - 1 - left), padding)
            return self._fold(self._shift_sum(y, plan.padded, flip=False), plan)
        spectrum = filtered(spectrum_of(y, plan.grid), self._transfer_back(plan, y.dtype))
        return self._fold(image_of(spectrum, plan.grid, plan.padded), plan)

    def _extend(self, x: Tensor, plan: _Plan) -> Tensor:
        return extend_both(x, plan.before, plan.after, self.padding)

    def _fold(self, x: Tensor, plan: _Plan) -> Tensor:
        for i, axis in ((1, -1), (0, -2)):
            x = fold(x, axis, plan.before[i], plan.after[i], self.padding)
        return x

    def initial(self, y: Tensor, input_shape: Shape) -> Tensor:
        """``y``; with "valid", its outer pixels repeated up to the size of the image."""
        if self.padding != "valid":
            return super().initial(y, input_shape)
        return extend_both(y, *self._reach, "replicate")

    # Closed forms and bounds.

    def norm(self, input_shape: Shape | None = None) -> Tensor:
        """Upper bound on the spectral norm, shape () or (B,) with one kernel for each image.

        Circular: the largest |transfer function|, exact up to rounding. Other paddings: power iteration on
        ``|A|^T |A|`` from a positive start, where the largest quotient (G v)_i / v_i bounds the largest
        eigenvalue from above at every step (Collatz and Wielandt); within a few per cent for kernels >= 0.
        Without a size, circular, zero and valid answer with sum |k|.

        Args:
            input_shape: (C, H, W); needed for reflect and replicate, whose borders weigh more in small
            images.

        Raises:
            ShapeError: ``input_shape`` is needed and missing.
        """
        if input_shape is None and self.padding in ("reflect", "replicate"):
            raise ShapeError(
                f"{self.name}.norm",
                expected="input_shape=(C, H, W)",
                found="None",
                remedy="The operator fits any size.",
            )
        size = None if input_shape is None else (input_shape[-2], input_shape[-1])
        bound: Tensor = self._memo(("norm", size), lambda: self._norm_bound(size))
        return bound.squeeze(0) if bound.shape[0] == 1 else bound

    @torch.no_grad()
    def _norm_bound(self, size: tuple[int, int] | None) -> Tensor:
        kernel = self.kernel.detach().double()
        if size is None:
            bound = kernel.abs().sum((-2, -1))
        elif self.padding == "circular":
            exact = dataclasses.replace(self, kernel=kernel)
            bound = exact._transfer(exact._plan(size), torch.float64).abs().amax((-2, -1))
        else:
            magnitude = dataclasses.replace(self, kernel=kernel.abs())
            v = kernel.new_ones(*kernel.shape[:2], *size)
            squares = []
            for _ in range(24):
                w = magnitude._adjoint(magnitude._apply(v))
                squares.append((w / v).amax((-2, -1)))
                # Any positive v gives a bound; the floor keeps FFT rounding out of the quotients.
                v = (w / w.amax((-2, -1), keepdim=True)).clamp_min(1e-6)
            bound = torch.stack(squares).amin(0).sqrt()
        eps = torch.finfo(self.kernel.dtype).eps
        return (bound.amax(1) * (1 + 1e-9 + 8 * eps)).to(self.kernel.dtype)

    @property
    def has_closed_form(self) -> bool:
        """True for circular padding."""
        return self.padding == "circular"

    def data_step(self, y: Tensor) -> DataStep:
        """``prox`` for a fixed ``y``; for circular padding a division in the Fourier domain.

        With K the transfer function, Z and Y the spectra of z and y:

            x = F^-1 [ (Z + step conj(K) Y) / (1 + step |K|^2) ].
        """
        if self.padding != "circular" or y.is_complex() or y.dtype in (torch.bfloat16, torch.float16):
            return super().data_step(y)
        size = (y.shape[-2], y.shape[-1])
        plan = self._plan(size)
        transfer = self._transfer(plan, y.dtype)
        back = filtered(spectrum_of(y, size), self._transfer_back(plan, y.dtype))
        power = transfer.real.square() + transfer.imag.square()
        differentiable = back.requires_grad

        def step_from(z: Tensor, step: PerImage) -> Tensor:
            spectrum = spectrum_of(z, size)
            s = float(step) if isinstance(step, torch.Tensor) and _is_host_number(step) else expand(step, z)
            if differentiable or spectrum.requires_grad or (isinstance(s, torch.Tensor) and s.requires_grad):
                spectrum = (spectrum + s * back) / (1 + s * power)
            else:
                # In place on the fresh spectrum: new memory costs more here than the arithmetic.
                if isinstance(s, torch.Tensor):
                    spectrum.addcmul_(back, s.to(spectrum.dtype))
                else:
                    spectrum.add_(back, alpha=s)
                spectrum.mul_((s * power).add_(1).reciprocal_())
            return image_of(spectrum, size, size)

        return step_from

    def pinv(self, y: Tensor) -> Tensor:
        """Minimum-norm least-squares solution; for circular padding ``F^-1 [conj(K) Y / |K|^2]``.

        Frequencies with |K| up to rcond times its largest value count as lost and stay 0; rcond is
        10 max(H, W) eps of the computing type: 3e-4 at 256 pixels in float32, 6e-13 in float64. Other
        paddings use the general version.
        """
        if self.padding != "circular":
            return super().pinv(y)
        y = self._check_output(y, f"{self.name}.pinv")
        if y.is_complex():
            return _both_parts(self.pinv, y)
        if y.dtype in (torch.bfloat16, torch.float16):
            return self.pinv(y.float()).to(y.dtype)
        size = (y.shape[-2], y.shape[-1])

        def make() -> Tensor:
            transfer = self._transfer(self._plan(size), y.dtype)
            power = transfer.real.square() + transfer.imag.square()
            rcond = 10 * max(size) * torch.finfo(y.dtype).eps
            kept = power > rcond**2 * power.amax((-2, -1), keepdim=True)
            return torch.where(kept, transfer.conj() / torch.where(kept, power, 1.0), 0.0)

        inverse = self._memo(("inverse", size, y.dtype), make)
        return image_of(filtered(spectrum_of(y, size), inverse), size, size)

    def smooth_inverse(self, y: Tensor, weight: PerImage) -> Tensor:
        """Smooth image that fits ``y``; for circular padding ``F^-1 [conj(K) Y / (|K|^2 + weight |D|^2)]``.

        D is then the transfer function of circular differences.
        """
        if self.padding != "circular":
            return super().smooth_inverse(y, weight)
        y = self._check_smooth_inverse(y, weight)
        if y.is_complex():
            return _both_parts(lambda part: self.smooth_inverse(part, weight), y)
        if y.dtype in (torch.bfloat16, torch.float16):
            return self.smooth_inverse(y.float(), weight).to(y.dtype)
        size = (y.shape[-2], y.shape[-1])
        plan = self._plan(size)
        transfer = self._transfer(plan, y.dtype)
        power = transfer.real.square() + transfer.imag.square()
        down, right = (
            4 * torch.sin(torch.arange(count, dtype=y.dtype, device=y.device) * (math.pi / side)).square()
            for side, count in ((size[0], size[0]), (size[1], size[1] // 2 + 1))
        )
        damped = power + expand(weight, y) * (down[:, None] + right)
        spectrum = filtered(spectrum_of(y, size), self._transfer_back(plan, y.dtype))
        return image_of(spectrum * damped.reciprocal(), size, size)
