"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

__all__ = ["Debug", "Device", "Force", "Operators", "Quiet"]

Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]
Device: TypeAlias = Annotated[
    str | None,
    typer.Option(help="cpu, cuda or cuda:N; default: the first GPU if there is one.", metavar="NAME"),
]
Operators: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--operator",
        help="What happened to the picture, as NAME or NAME:KEY=VALUE,... ; repeat it for what came next. "
        "Names: identity, blur, motion, downsample, jpeg, quantize, grayscale, value, sparse.",
        metavar="SPEC",
    ),
]
