"""The sheet of ``gan-blocks neighbors``: samples on the left, what is nearest to each on the right.

Tested in ``tests/engine/commands/test_neighbors.py``.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from gan_blocks.engine.data.image_set import ImageSet, class_name
from gan_blocks.engine.evaluation.neighbors import Neighbors
from gan_blocks.engine.pictures.captions import caption_font, fitted
from gan_blocks.engine.pictures.sheets import to_uint8

__all__ = ["cell_bytes", "neighbors_sheet"]

SMALLEST = 72  # pixels that a cell needs for its caption
MARGIN = 6
CAPTION = 40  # height of three lines
HEADER = 28


def cell_bytes(images: ImageSet, scale: int | None = None) -> int:
    """Memory that a picture of the sheet takes with its caption."""
    size = images.resolution * (scale or _scale(images))
    return (size + MARGIN) * (size + CAPTION) * (1 if images.channels == 1 else 4)


def _scale(images: ImageSet) -> int:
    return max(1, -(-SMALLEST // images.resolution))


def neighbors_sheet(
    queries: Tensor,
    labels: Tensor,
    images: ImageSet,
    found: Sequence[tuple[str, Neighbors]],
    scale: int | None = None,
) -> Image.Image:
    """Draw one block a measure, side by side, with the queries once on the left of all.

    Args:
        queries: Images in [-1, 1].
        labels: Their classes.
        images: The training images, which name the classes.
        found: Title and neighbors of each measure.
        scale: How many times to enlarge each pixel; None: so that a caption has room.
    """
    size = images.resolution * (scale or _scale(images))
    across, down = size + MARGIN, size + CAPTION
    columns = [neighbors.numbers.shape[1] for _, neighbors in found]
    width = MARGIN + across + sum(3 * MARGIN + count * across for count in columns)
    sheet = Image.new("L" if images.channels == 1 else "RGB", (width, HEADER + len(queries) * down), "white")
    draw = ImageDraw.Draw(sheet)
    small, large = caption_font(10), caption_font(14)

    def cell(left: int, row: int, pixels: Tensor, *lines: str) -> None:
        picture = to_uint8(rearrange(pixels, "c h w -> 1 c h w"))[0]
        image = Image.fromarray(picture[:, :, 0] if images.channels == 1 else picture)
        top = HEADER + row * down
        sheet.paste(image.resize((size, size), Image.Resampling.NEAREST), (left, top))
        caption = "\n".join(fitted(line, small, size) for line in lines)
        draw.multiline_text((left + size / 2, top + size + 1), caption, "black", small, "ma", spacing=1, align="center")

    draw.text((MARGIN + size / 2, HEADER / 2), "sample", "black", large, "mm")
    for row, (query, label) in enumerate(zip(queries, labels.tolist(), strict=True)):
        cell(MARGIN, row, query, class_name(images.class_names, label))
    start = MARGIN + across
    for title, neighbors in found:
        start += 3 * MARGIN
        count = neighbors.numbers.shape[1]
        draw.text((start + (count * across - MARGIN) / 2, HEADER / 2), title, "black", large, "mm")
        for row in range(len(queries)):
            pixels, classes = images.batch(neighbors.numbers[row])
            for column, distance in enumerate(neighbors.distances[row].tolist()):
                if distance == torch.inf:
                    continue
                number = int(neighbors.numbers[row, column])
                name = class_name(images.class_names, int(classes[column]))
                cell(start + column * across, row, pixels[column], name, f"no. {number}", f"{distance:.3g}")
        start += count * across
    return sheet
