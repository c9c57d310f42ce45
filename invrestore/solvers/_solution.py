"""What ``solve`` returns."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from invrestore._types import Tensor
from invrestore.errors import CapabilityError, ImageFileError
from invrestore.io import check_free, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Solution", "Status"]


class Status(enum.Enum):
    """How a solve ended; the worst of its images."""

    CONVERGED = "converged"
    """Every image met the tolerance, or the method is direct."""
    MAX_STEPS = "stopped at max_steps"
    """The step limit came first; early stopping is a method, not an error."""
    STOPPED = "stopped by the callback"
    """The callback asked for it."""
    DIVERGED = "diverged"
    """An iterate was not finite; the last finite one is kept."""


_ADVICE = {
    Status.CONVERGED: "",
    Status.MAX_STEPS: "Raise max_steps or tol if the history still falls.",
    Status.STOPPED: "",
    Status.DIVERGED: "Check the operator with testing.check_operator, or take another method.",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """A restored batch and how it came about.

    Attributes:
        x: Restored images, (B, C, H, W).
        status: How the solve ended; the worst of the batch.
        method: Name of the solver that ran.
        lam: Weight of the prior for each image, (B,), or None where the prior has none.
        sigma: Noise standard deviation of each image, (B,), given or estimated.
        steps: Steps taken for each image, (B,).
        converged: Which images met the tolerance, (B,).
        history: Name to (steps, B): "step", "update" (relative change of the iterate), "misfit" (root mean square
            of A x - y), "objective" where the prior has a value that costs no inner iterations, "psnr" where the
            truth was given. One row for each step in "step", but "psnr" for every step from 1 on.
        seconds: Wall time.
        choices: One sentence for each thing ``solve`` chose, with its reason.
        z: Latent vectors, for latent priors.
        losses: Data loss of every restart of a latent search, (B, R).
        stages: Images after each part, name to (B, C, H, W). Of a latent search: "raw" is what the generator makes of
            ``z``; "adapted", "consistent", "blended" and "averaged" are there where that part ran. Of a restorer:
            "first" is what the first network of a cascade hands to the second, "restored" its answer before
            ``refine=True`` projected it onto the images that fit the measurement.
        spread: Standard deviation of the good restarts of a latent search in each pixel and channel, (B, C, H, W);
            None with one restart, which tells nothing of others.
        samples: Posterior samples, (B, S, C, H, W), where ``solve`` was asked for them; ``x`` is then their mean.
    """

    x: Tensor
    status: Status
    method: str
    lam: Tensor | None
    sigma: Tensor
    steps: Tensor
    converged: Tensor
    history: dict[str, Tensor]
    seconds: float
    choices: tuple[str, ...] = ()
    z: Tensor | None = None
    losses: Tensor | None = None
    stages: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    spread: Tensor | None = None
    samples: Tensor | None = None

    @property
    def std(self) -> Tensor | None:
        """Standard deviation of the samples in each pixel and channel, (B, C, H, W); None without samples."""
        return None if self.samples is None else self.samples.std(1)

    def __str__(self) -> str:
        lines = [
            f"{self.x.shape[0]} image(s) of {tuple(self.x.shape[1:])}: {self.status.value} "
            f"with {self.method} after {_span(self.steps)} steps in {self.seconds:.2f} s."
        ]
        if self.status is Status.MAX_STEPS and self.method == "latent":
            lines.append("More steps fit the data better; what the data do not tell, they may make worse.")
        elif _ADVICE[self.status]:
            lines.append(_ADVICE[self.status])
        lines.append(
            f"sigma = {_span(self.sigma)}" + ("" if self.lam is None else f", lam = {_span(self.lam)}")
        )
        if "misfit" in self.history and len(self.history["misfit"]):
            lines.append(f"misfit |A x - y| (rms) = {_span(self.history['misfit'][-1])}")
        if "psnr" in self.history and len(self.history["psnr"]):
            lines.append(f"PSNR = {_span(self.history['psnr'][-1])} dB")
        if self.samples is not None:
            spread = self.samples.var(1).flatten(1).mean(1).sqrt()
            lines.append(f"{self.samples.shape[1]} samples, standard deviation (rms) = {_span(spread)}")
        lines.extend(f"- {choice}" for choice in self.choices)
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write images, history and choices to one ``.safetensors`` file, whole or not at all.

        Args:
            path: File to write.
            force: Replace an existing file.

        Raises:
            ImageFileError: The file exists and ``force`` is False, or it cannot be written.
        """
        from safetensors.torch import save

        check_free(path, force=force)
        tensors = {"x": self.x, "sigma": self.sigma, "steps": self.steps, "converged": self.converged}
        tensors |= {f"history.{k}": v for k, v in self.history.items()}
        if self.lam is not None:
            tensors["lam"] = self.lam
        tensors |= {f"stages.{k}": v for k, v in self.stages.items()}
        for name in ("z", "losses", "spread"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        if self.samples is not None:
            tensors["samples"] = self.samples
        meta = {
            "status": self.status.name,
            "method": self.method,
            "seconds": str(self.seconds),
            "choices": json.dumps(self.choices),
        }
        # Cloned: batch rows may share storage, which the format refuses.
        own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        write_bytes(path, save(own, meta), force=force)

    def plot(self, path: str | os.PathLike[str] | None = None, *, force: bool = False) -> Figure:
        """Draw the recorded curves, one panel for each, one line for each image.

        Args:
            path: File to write, in a format of matplotlib (.png, .pdf, .svg); None writes none.
            force: Replace an existing file.

        Raises:
            CapabilityError: matplotlib is not installed, or nothing was recorded.
            ImageFileError: The file exists and ``force`` is False, its ending names no format, or it cannot be written.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise CapabilityError(
                "Solution.plot",
                expected="matplotlib",
                found="no such package",
                remedy="pip install invrestore[bench]",
            ) from error
        if path is not None:
            check_free(path, force=force)
            formats = FigureCanvasAgg.get_supported_filetypes()
            if Path(path).suffix[1:].lower() not in formats:
                raise ImageFileError(
                    "Solution.plot",
                    expected=f"a name that ends in .{', .'.join(sorted(formats))}",
                    found=str(path),
                )
        names = [
            n for n in ("objective", "misfit", "update", "psnr") if n in self.history and len(self.history[n])
        ]
        if not names:
            raise CapabilityError(
                "Solution.plot", expected="a recorded history", found=f"none ({self.method} is direct)"
            )
        figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            values, steps = self.history[name].detach().cpu(), self.history["step"].cpu()
            if len(values) != len(steps):
                # PSNR is recorded at every step, the others at checks.
                steps = torch.arange(1, len(values) + 1)
            axes.plot(steps, values)
            axes.set(xlabel="step", title=name)
            if name in ("update", "misfit"):
                axes.set_yscale("log")
            axes.grid(alpha=0.3)
        if path is not None:
            drawn = io.BytesIO()
            figure.savefig(drawn, dpi=120, format=Path(path).suffix[1:].lower())
            write_bytes(path, drawn.getvalue(), force=force)
        return figure


def _span(values: Any) -> str:
    """``0.1`` for one value, ``0.1 to 0.3`` for several."""
    flat = (
        values.detach().flatten().to(torch.float64)
        if isinstance(values, torch.Tensor)
        else torch.tensor([values])
    )
    low, high = float(flat.min()), float(flat.max())
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"
