"""A contact sheet: rows of pictures with captions, as one PNG."""

from __future__ import annotations

import dataclasses

from invrestore._types import Tensor

__all__ = ["Cell", "Row", "contact_sheet"]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One picture (1, C, H, W) in [0, 1] with the line under it; the best of a row has its line in colour."""

    picture: Tensor
    caption: str = ""
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """Heading and pictures of one row."""

    heading: str
    cells: tuple[Cell, ...]


_INK, _SOFT, _ACCENT, _PAPER = "#1d2430", "#5b6472", "#b3471d", "#fbfaf8"


def contact_sheet(columns: tuple[str, ...], rows: list[Row], *, side: int = 264, title: str = "") -> Tensor:
    """Draw the rows under column headings.

    Args:
        columns: Heading of each column.
        rows: As many cells each as there are columns.
        side: Width and height of each picture on the sheet; smaller ones are enlarged without smoothing.
        title: Line at the top.

    Shapes:
        Returns: (1, 3, H, W) in [0, 1].
    """
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    gap, line = 16, 26
    large, normal, small = (ImageFont.load_default(size) for size in (26, 17, 15))
    top = gap + 44 + line
    height = top + len(rows) * (line + side + line + gap) + gap
    width = gap + len(columns) * (side + gap)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), title, _INK, large)
    for column, heading in enumerate(columns):
        draw.text((gap + column * (side + gap), gap + 44), heading, _SOFT, normal)
    for number, row in enumerate(rows):
        y = top + number * (line + side + line + gap)
        draw.text((gap, y + 2), row.heading, _INK, normal)
        for column, cell in enumerate(row.cells):
            x = gap + column * (side + gap)
            samples = (cell.picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            picture = Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples).convert("RGB")
            if picture.size != (side, side):
                picture = picture.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (x, y + line))
            draw.text((x, y + line + side + 4), cell.caption, _ACCENT if cell.best else _SOFT, small)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)[None].float() / 255
