"""A progress line on standard error for work that takes a while; nothing where nobody watches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

__all__ = ["Callback", "Start", "progress"]

Callback: TypeAlias = Callable[[int, object], None]
"""``callback(step, x)`` for ``solve``."""

Start: TypeAlias = Callable[[str, float], Callback | None]
"""``start(description, share)``: name the work in hand, and the share of the whole that is done."""


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Start]:
    """Context whose value announces pieces of work and gives the callback that counts the steps of each.

    Args:
        quiet: Show nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda description, share: None
        return
    columns = (
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("step {task.fields[step]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0, step=0)

        def start(description: str, share: float) -> Callback:
            bar.update(task, description=description, completed=share, step=0)
            return lambda step, _: bar.update(task, step=step)

        yield start
