"""One HTML file with before/after sliders; pictures, style and script are inside it."""

from __future__ import annotations

import base64
import dataclasses
import html
import string
from importlib import resources

__all__ = ["Comparison", "View", "page"]


@dataclasses.dataclass(frozen=True)
class View:
    """One picture that can stand on the right of the slider.

    Attributes:
        label: Name on its button.
        png: The picture as a PNG file.
        note: What is known about it, as a score.
    """

    label: str
    png: bytes
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A degraded picture against one or several others.

    Attributes:
        title: Heading.
        text: A sentence or more under the heading; line breaks are kept.
        before: The picture on the left.
        after: Pictures on the right, the first one shown first.
    """

    title: str
    text: str
    before: View
    after: tuple[View, ...]


_HIDDEN = " hidden"


def page(title: str, intro: str, comparisons: list[Comparison], footer: str = "") -> str:
    """The whole HTML document.

    Args:
        title: Heading and window title.
        intro: Text under the heading; line breaks are kept.
        comparisons: One card each.
        footer: Small print.
    """
    template = string.Template(resources.files("invrestore.cli").joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=html.escape(title),
        intro=html.escape(intro),
        layout="cards one" if len(comparisons) == 1 else "cards",
        cards="\n".join(map(_card, comparisons)),
        footer=html.escape(footer),
    )


def _source(view: View) -> str:
    return "data:image/png;base64," + base64.b64encode(view.png).decode()


def _card(comparison: Comparison) -> str:
    before, first = comparison.before, comparison.after[0]
    views = "".join(
        f'<img class="after" alt="{html.escape(v.label)}" src="{_source(v)}"{_HIDDEN * (v is not first)}>\n'
        for v in comparison.after
    )
    buttons = "".join(
        f'<button type="button" data-label="{html.escape(v.label)}" aria-pressed="{str(v is first).lower()}">'
        f"{html.escape(v.label)}{f'<small>{html.escape(v.note)}</small>' if v.note else ''}</button>"
        for v in comparison.after
    )
    return f"""<article>
<h2>{html.escape(comparison.title)}</h2>
<p>{html.escape(comparison.text)}</p>
<div class="pair">
<img alt="{html.escape(before.label)}" src="{_source(before)}">
{views}<div class="bar"></div>
<span class="tag left">{html.escape(before.label)}</span>
<span class="tag right">{html.escape(first.label)}</span>
<input type="range" min="0" max="100" value="50" step="0.1" aria-label="Share of the picture shown as before">
</div>
<div class="views">{buttons if len(comparison.after) > 1 else ""}</div>
</article>"""
