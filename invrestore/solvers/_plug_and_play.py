"""Which schedule half-quadratic splitting takes for a network: the results of tuning, as data in one place.

``benchmarks/quality/tune_plug_and_play.py`` prints the figures behind each entry, ``restoration_prior.py`` beside it
those behind the entries of restorers, from training images only.
"""

from __future__ import annotations

import dataclasses

from invrestore.fidelity import Interval
from invrestore.operators import Downsample, Mask
from invrestore.priors import Restoration
from invrestore.solvers._hqs import HQS, tells_levels
from invrestore.solvers._problem import Problem

__all__ = ["SCHEDULES", "schedule"]

SCHEDULES: dict[str, HQS] = {
    # DPIR's own.
    "noisy data": HQS(first=49 / 255, steps=8, weight=0.23),
    # The denoiser meets each noisy pixel in every one of many steps, and needs less than its noise level in the last.
    "noisy pixels": HQS(first=49 / 255, steps=12, momentum=0.5, weight=0.1, scale=0.6),
    # An operator that multiplies or adds without sharpening does not raise noise, which then may be fitted closer.
    "noisy small image": HQS(first=70 / 255, steps=8, momentum=0.5, weight=0.1),
    # Missing data are filled from their borders inwards, which takes more steps than sharpening does, or momentum.
    "exact data": HQS(first=70 / 255, floor=4 / 255, steps=16, momentum=0.5),
    "exact pixels": HQS(first=30 / 255, floor=2 / 255, steps=18, momentum=0.5),
    # A denoiser that is told which pixels are known may begin at a higher strength, and end where little is left to do.
    "exact pixels, told": HQS(first=75 / 255, floor=1 / 255, steps=24),
    "noisy pixels, told": HQS(first=75 / 255, steps=24, weight=0.1, scale=0.3),
    # In units of the rounding error.
    "interval": HQS(first=0.8, last=0.15, steps=6, momentum=0.3, relative=True),
    # A restorer goes from harsh to mild degradations by itself.
    "restorer, noisy data": HQS(first=17 / 255, steps=12),
    # In units of the restorer's strength: three quarters of each image stay.
    "restorer, exact data": HQS(first=0.6, last=0.6, steps=40),
}
"""Kind of problem to schedule."""


def schedule(problem: Problem, max_steps: int | None = None) -> HQS:
    """The tuned schedule for a problem, spread over ``max_steps`` if given."""
    kind = _kind(problem)
    found = SCHEDULES[kind]
    if kind == "restorer, exact data":
        assert found.last is not None
        assert isinstance(problem.prior, Restoration)
        unit = problem.prior.strength
        found = dataclasses.replace(
            found, first=min(found.first * unit, 1.0), last=min(found.last * unit, 1.0)
        )
    return found if max_steps is None else dataclasses.replace(found, steps=max_steps)


def _kind(problem: Problem) -> str:
    if isinstance(problem.fidelity, Interval):
        return "interval"
    if isinstance(problem.prior, Restoration):
        return "restorer, exact data" if problem.exact else "restorer, noisy data"
    if isinstance(problem.operator, Mask):
        told = ", told" if tells_levels(problem) else ""
        return f"{'exact' if problem.exact else 'noisy'} pixels{told}"
    if problem.exact:
        return "exact data"
    return "noisy small image" if isinstance(problem.operator, Downsample) else "noisy data"
