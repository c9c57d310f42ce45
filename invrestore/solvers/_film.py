"""A solve, filmed: images every few steps, written as an animation or a contact sheet."""

from __future__ import annotations

import dataclasses
import io
import os

import torch
import torch.nn.functional as F

from invrestore._checks import check_count
from invrestore._types import Tensor
from invrestore.errors import CapabilityError, ImageFileError
from invrestore.io import check_free, save_image, write_bytes

__all__ = ["Film"]


@dataclasses.dataclass(eq=False)
class Film:
    """A callback of ``solve`` that keeps the images of every few steps, for any method.

    The first frame is that of the first step. Frames are kept on the CPU.

    Args:
        every: Steps between two frames.

    Attributes:
        steps: Step of each frame.
        frames: Images (B, C, H, W) of each frame.

    Example:
        >>> import invrestore as ir
        >>> film = Film(every=20)
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> blur = ir.operators.Blur(ir.kernels.gaussian(1.0))
        >>> _ = ir.solve(y, blur, ir.priors.TV(0.1), sigma=0.1, tol=0.0, max_steps=40, callback=film)
        >>> film.steps
        [1, 20, 40]
    """

    every: int = 10
    steps: list[int] = dataclasses.field(default_factory=list, init=False)
    frames: list[Tensor] = dataclasses.field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        check_count("Film", "every", self.every)

    def __call__(self, step: int, x: Tensor) -> None:
        """Keep the images if it is their turn; never stops the solve."""
        if step == 1 or step % self.every == 0:
            self.steps.append(step)
            self.frames.append(x.detach().cpu().clone())

    def add(self, x: Tensor) -> None:
        """Append images of the same shape as a last frame, such as the answer after post-processing."""
        self.steps.append(self.steps[-1] + 1 if self.steps else 0)
        self.frames.append(x.detach().cpu().clone())

    def _pictures(self, where: str, side: int | None) -> list[Tensor]:
        if not self.frames:
            raise CapabilityError(
                where, expected="at least one frame", found="none", remedy="solve(..., callback=film) films."
            )
        if self.frames[0].shape[1] not in (1, 3):
            raise CapabilityError(
                where, expected="gray or RGB frames", found=str(tuple(self.frames[0].shape))
            )
        factor = max(1, round(side / self.frames[0].shape[-1])) if side else 1
        shown = [f.float().clamp(0, 1) for f in self.frames]
        return [F.interpolate(f, scale_factor=factor, mode="nearest") if factor > 1 else f for f in shown]

    def sheet(
        self,
        path: str | os.PathLike[str],
        *,
        columns: int = 8,
        side: int | None = None,
        force: bool = False,
    ) -> Tensor:
        """Write one picture with a row for each image and a column for each of some evenly chosen frames.

        Args:
            path: Picture file; its ending decides the format.
            columns: Most frames shown; the first and the last always are.
            side: Width in pixels each image is enlarged to, without smoothing; None leaves the size.
            force: Replace an existing file.

        Returns:
            The picture, (1, C, B H, columns W).

        Raises:
            CapabilityError: There are no frames, or they are neither gray nor RGB.
            ImageFileError: The file exists, cannot be written or has an unknown ending.
            RangeError: ``columns`` < 2.
        """
        check_count("Film.sheet", "columns", columns, least=2)
        pictures = self._pictures("Film.sheet", side)
        count = min(columns, len(pictures))
        chosen = [pictures[round(i * (len(pictures) - 1) / max(count - 1, 1))] for i in range(count)]
        rows = [torch.cat(list(row), -1) for row in zip(*chosen, strict=True)]
        picture = torch.cat(rows, -2)[None]
        save_image(picture, path, force=force)
        return picture

    def gif(
        self,
        path: str | os.PathLike[str],
        *,
        seconds: float = 4.0,
        side: int | None = None,
        force: bool = False,
    ) -> None:
        """Write an animation with the images side by side that holds its last frame for a second.

        Args:
            path: File ending in ``.gif``.
            seconds: Duration of all frames but the last.
            side: Width in pixels each image is enlarged to, without smoothing; None leaves the size.
            force: Replace an existing file.

        Raises:
            CapabilityError: There are no frames, or they are neither gray nor RGB.
            ImageFileError: The file exists, cannot be written or does not end in ``.gif``.
        """
        from PIL import Image

        if not os.fspath(path).lower().endswith(".gif"):
            raise ImageFileError("Film.gif", expected="a file name ending in .gif", found=str(path))
        check_free(path, force=force)
        pictures = [torch.cat(list(f), -1) for f in self._pictures("Film.gif", side)]
        arrays = [(p * 255).round().byte().permute(1, 2, 0).numpy() for p in pictures]
        images = [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in arrays]
        # The format counts in hundredths of a second, and viewers slow down what is shorter than two.
        each = max(20, round(1000 * seconds / max(len(images) - 1, 1) / 10) * 10)
        buffer = io.BytesIO()
        images[0].save(
            buffer,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=[each] * (len(images) - 1) + [1000],
            loop=0,
        )
        write_bytes(path, buffer.getvalue(), force=force)
