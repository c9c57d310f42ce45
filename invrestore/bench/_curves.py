"""Line charts as SVG markup; colours and fonts come from the style sheet of the page that holds them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

__all__ = ["COLOURS", "Line", "chart", "key", "ticks"]

COLOURS = 10
"""Number of line colours that the style sheet defines, as ``--line-0`` and so on."""

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 22, 42

# Markers in a box from -4 to 4. With ten colours, lines that share a colour differ in marker.
_MARKERS = (
    "M-3.4-3.4H3.4V3.4H-3.4Z",
    "M0-4.6L4.4 3.4H-4.4Z",
    "M0-4.8L4.8 0L0 4.8L-4.8 0Z",
    "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
    "M0 4.6L4.4-3.4H-4.4Z",
    "M-1.6-4.4H1.6V-1.6H4.4V1.6H1.6V4.4H-1.6V1.6H-4.4V-1.6H-1.6Z",
    "M0-4.6L4.4-1.4L2.7 3.7H-2.7L-4.4-1.4Z",
)


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the benchmark in a chart.

    Attributes:
        number: Position of the row, which decides colour and marker.
        label: Its name.
        group: "input", "classical", "learned" or "peer": decides width and dashes.
        points: Level and score, in the order of the levels.
        errors: Half the length of the bar through each point; None for no bar. Empty for none at all.
    """

    number: int
    label: str
    group: str
    points: tuple[tuple[float, float], ...]
    errors: tuple[float | None, ...] = ()


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """At most ``count`` round numbers inside the interval: steps of 1, 2 or 5 times a power of ten.

    Example:
        >>> ticks(24.3, 31.9)
        [26.0, 28.0, 30.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * count >= high - low)
    digits = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def _classes(number: int, group: str) -> str:
    return f'class="line {escape(group)}" data-row="{number}" style="--ink: var(--line-{number % COLOURS})"'


def key(number: int, group: str) -> str:
    """The piece of line with its marker that stands beside the name in the legend."""
    return (
        f'<svg viewBox="0 0 30 12" width="30" height="12" aria-hidden="true"><g {_classes(number, group)}>'
        f'<path class="stroke" d="M1 6H29"/><path class="marker" transform="translate(15 6)" '
        f'd="{_MARKERS[number % len(_MARKERS)]}"/></g></svg>'
    )


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    axis: str,
    scores: str,
    digits: int,
    bounds: tuple[float, float],
    signed: bool = False,
) -> str:
    """Draw scores over levels; parts of lines outside the bounds are cut off.

    Args:
        lines: What to draw, the first one at the bottom.
        title: What the chart shows, for those who do not see it.
        axis: Label of the levels; they are spaced by their logarithms if the largest is 8 or more times the
            smallest.
        scores: Label of the scores.
        digits: Decimals of a score in the text shown over a point.
        bounds: Smallest and largest score to show; some room is added.
        signed: Whether scores are differences and written with their signs.
    """
    levels = sorted({level for line in lines for level, _ in line.points})
    logarithmic = levels[0] > 0 and levels[-1] >= 8 * levels[0]
    room = max(0.06 * (bounds[1] - bounds[0]), 10.0**-digits)
    low, high = bounds[0] - room, bounds[1] + room
    marks = ticks(low, high)
    sign = "+" if signed else ""

    def place(level: float) -> float:
        return math.log(level) if logarithmic else level

    margin = 0.04 * (place(levels[-1]) - place(levels[0])) or 1.0
    left, right = place(levels[0]) - margin, place(levels[-1]) + margin

    def x(level: float) -> float:
        return _LEFT + (place(level) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y(score: float) -> float:
        return _TOP + (high - score) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def number(score: float, decimals: int) -> str:
        return f"{score:{sign if score else ''}.{decimals}f}".replace("-", "\u2212")

    decimals = max(len(f"{mark:g}".partition(".")[2]) for mark in marks)
    bottom = _HEIGHT - _BOTTOM
    out = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for mark in marks:
        kind = "grid zero" if signed and mark == 0 else "grid"
        out.append(f'<path class="{kind}" d="M{_LEFT} {y(mark):.1f}H{_WIDTH - _RIGHT}"/>')
        out.append(f'<text class="end" x="{_LEFT - 7}" y="{y(mark) + 4:.1f}">{number(mark, decimals)}</text>')
    for level in levels:
        out.append(f'<path class="grid" d="M{x(level):.1f} {_TOP}V{bottom + 5}"/>')
        out.append(f'<text class="middle" x="{x(level):.1f}" y="{bottom + 18}">{level:g}</text>')
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    out.append(f'<text class="middle name" x="{middle:.0f}" y="{_HEIGHT - 5}">{escape(axis)}</text>')
    out.append(f'<text class="end name" x="{_LEFT - 7}" y="{_TOP - 8}">{escape(scores)}</text>')
    # A window of its own cuts lines at the bounds without an identifier that could clash between charts.
    out.append(f'<svg x="0" y="{_TOP}" width="{_WIDTH}" height="{bottom - _TOP}" overflow="hidden">')
    for line in lines:
        points = [(x(level), y(score) - _TOP) for level, score in line.points]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        out.append(f'<g {_classes(line.number, line.group)}><path class="stroke" d="M{path}"/>')
        for (px, _), (_, score), error in zip(points, line.points, line.errors, strict=False):
            if error is not None:
                top, end = y(score + error) - _TOP, y(score - error) - _TOP
                out.append(
                    f'<path class="error" d="M{px:.1f} {top:.1f}V{end:.1f}m-3 0h6M{px - 3:.1f} {top:.1f}h6"/>'
                )
        for (px, py), (level, score) in zip(points, line.points, strict=True):
            text = f"{line.label}, {axis} {level:g}: {number(score, digits)}"
            out.append(
                f'<path class="marker" transform="translate({px:.1f} {py:.1f})" '
                f'd="{_MARKERS[line.number % len(_MARKERS)]}"><title>{escape(text)}</title></path>'
            )
        out.append("</g>")
    out.append("</svg></svg>")
    return "".join(out)
