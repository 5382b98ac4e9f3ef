"""Sheets of images: grids with a caption per row.

Tested in ``tests/engine/pictures/test_sheets.py`` and ``tests/engine/commands/test_sample.py``.
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replacing
from gan_blocks.engine.pictures.captions import caption_font, fitted

__all__ = ["ImageGrid", "image_grid", "save_picture", "save_sheet", "to_uint8", "with_captions"]

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


class ImageGrid:
    """A grid that images are put into row by row, a batch at a time.

    Args:
        count: How many images there will be.
        columns: Images in a row.
        shape: Of one image, (height, width, channels).
    """

    def __init__(self, count: int, columns: int, shape: Sequence[int]) -> None:
        self.height, self.width, channels = shape
        self._columns, self._placed = columns, 0
        size = (-(-count // columns) * (self.height + GAP) + GAP, columns * (self.width + GAP) + GAP)
        self._sheet = np.full((*size, channels), 255, dtype=np.uint8)

    def add(self, images: npt.NDArray[np.uint8]) -> None:
        """Put images (batch, height, width, channels) behind those that are there."""
        for number, image in enumerate(images, start=self._placed):
            top = number // self._columns * (self.height + GAP) + GAP
            left = number % self._columns * (self.width + GAP) + GAP
            self._sheet[top : top + self.height, left : left + self.width] = image
        self._placed += len(images)

    def picture(self, scale: int | None = None) -> Image.Image:
        """The sheet, each pixel enlarged to a square of ``scale``; None: so that images are about 64 pixels high."""
        picture = Image.fromarray(self._sheet[:, :, 0] if self._sheet.shape[2] == 1 else self._sheet)
        scale = max(1, 64 // self.height) if scale is None else scale
        size = (picture.width * scale, picture.height * scale)
        return picture if scale == 1 else picture.resize(size, Image.Resampling.NEAREST)


def image_grid(images: npt.NDArray[np.uint8], columns: int, scale: int | None = None) -> Image.Image:
    """Arrange images (batch, height, width, channels) row by row, enlarged as :meth:`ImageGrid.picture` says."""
    grid = ImageGrid(len(images), columns, images.shape[1:])
    grid.add(images)
    return grid.picture(scale)


def save_sheet(
    path: Path,
    *blocks: Tensor,
    columns: int,
    captions: Sequence[str] = (),
    headers: Sequence[str] = (),
    scale: int | None = None,
) -> None:
    """Write a PNG of images in [-1, 1]: blocks of rows side by side.

    Args:
        path: Where to.
        blocks: Images of each block, ``(images, channels, height, width)``, all of one shape.
        columns: Images in a row of a block.
        captions: One caption to the left of each row, if wanted.
        headers: One header above each block, if wanted.
        scale: How many times to enlarge each pixel; None: so that images are about 64 pixels high.

    Raises:
        UserError: If it cannot be written.
    """
    grids = [image_grid(to_uint8(images), columns, scale) for images in blocks]
    sheet = _side_by_side([_with_header(grid, header) for grid, header in zip_longest(grids, headers)])
    if captions:
        sheet = with_captions(sheet, captions, top=sheet.height - grids[0].height)
    save_picture(path, sheet)


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all, in a folder that is made when missing.

    Raises:
        UserError: If it cannot be written.
    """
    with replacing(path) as file:
        picture.save(file, format="PNG")


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


def with_captions(grid: Image.Image, captions: Sequence[str], top: int = 0) -> Image.Image:
    """The same with a caption to the left of each row, the first of which begins at ``top``."""
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
