"""Sheets of images: grids with a caption per row.

Tested in ``tests/engine/pictures/test_sheets.py`` and ``tests/engine/commands/test_sample.py``.
"""

import io
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.pictures.captions import caption_font, fitted

__all__ = ["image_grid", "save_picture", "save_sheet", "to_uint8"]

GAP = 2
MARGIN = 6
WIDEST_CAPTION = 240  # pixels


def to_uint8(images: Tensor) -> npt.NDArray[np.uint8]:
    """Turn images in [-1, 1] into bytes, (batch, channels, height, width) into (batch, height, width, channels).

    Raises:
        UserError: If they hold values that are not finite.
    """
    if not images.isfinite().all():
        raise UserError("the images hold values that are not finite: the generator that made them has diverged.")
    bytes_ = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return rearrange(bytes_, "b c h w -> b h w c").cpu().numpy()


def image_grid(images: npt.NDArray[np.uint8], columns: int) -> Image.Image:
    """Arrange images (batch, height, width, channels) row by row; small ones are enlarged by whole pixels."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    step_y, step_x = height + GAP, width + GAP
    sheet = np.full((rows * step_y + GAP, columns * step_x + GAP, channels), 255, dtype=np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * step_y + GAP, number % columns * step_x + GAP
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    scale = max(1, 64 // height)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def save_sheet(
    path: Path, *blocks: Tensor, columns: int, captions: Sequence[str] = (), headers: Sequence[str] = ()
) -> None:
    """Write a PNG of images in [-1, 1]: blocks of rows side by side.

    Args:
        path: Where to.
        blocks: Images of each block, ``(images, channels, height, width)``, all of one shape.
        columns: Images in a row of a block.
        captions: One caption to the left of each row, if wanted.
        headers: One header above each block, if wanted.

    Raises:
        UserError: If it cannot be written.
    """
    grids = [image_grid(to_uint8(images), columns) for images in blocks]
    sheet = _side_by_side([_with_header(grid, header) for grid, header in zip_longest(grids, headers)])
    if captions:
        sheet = _with_captions(sheet, captions, top=sheet.height - grids[0].height)
    save_picture(path, sheet)


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all, in a folder that is made when missing.

    Raises:
        UserError: If it cannot be written.
    """
    data = io.BytesIO()
    picture.save(data, format="PNG")
    replace_durably(path, data.getvalue())


def _with_header(grid: Image.Image, header: str | None) -> Image.Image:
    if header is None:
        return grid
    font = caption_font(15)
    top = 16 + 2 * MARGIN
    width = max(grid.width, 2 * MARGIN + round(font.getlength(header)))
    picture = Image.new(grid.mode, (width, grid.height + top), "white")
    picture.paste(grid, (0, top))
    ImageDraw.Draw(picture).text((grid.width / 2, MARGIN + 8), header, fill="black", font=font, anchor="mm")
    return picture


def _side_by_side(grids: Sequence[Image.Image]) -> Image.Image:
    width = sum(grid.width for grid in grids) + 2 * MARGIN * (len(grids) - 1)
    picture = Image.new(grids[0].mode, (width, grids[0].height), "white")
    left = 0
    for grid in grids:
        picture.paste(grid, (left, 0))
        left += grid.width + 2 * MARGIN
    return picture


def _with_captions(grid: Image.Image, captions: Sequence[str], top: int) -> Image.Image:
    font = caption_font(15)
    captions = [fitted(caption, font, WIDEST_CAPTION) for caption in captions]
    left = MARGIN * 2 + round(max(font.getlength(caption) for caption in captions))
    picture = Image.new(grid.mode, (grid.width + left, grid.height), "white")
    picture.paste(grid, (left, 0))
    draw = ImageDraw.Draw(picture)
    row_height = (grid.height - top) / len(captions)
    for row, caption in enumerate(captions):
        draw.text((left - MARGIN, top + (row + 0.5) * row_height), caption, fill="black", font=font, anchor="rm")
    return picture
