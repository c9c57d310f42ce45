"""Where tables are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["wide_console"]


def wide_console() -> Console:
    """The terminal; a file or a pipe, which has no width to keep to, gets 200 columns."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 200
    return console
