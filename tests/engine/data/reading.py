"""Reading a source of images, for the tests of each kind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images

__all__ = ["cut", "error_of", "levels", "load", "random_bytes"]


def load(spec: str, **options: int | None) -> ImageSet:
    return load_images(spec, **{"resolution": 32, "channels": 3, "num_classes": None, **options})  # type: ignore[arg-type]


def one_line_error(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def error_of(spec: str, **options: int | None) -> str:
    message = one_line_error(lambda: load(spec, **options))
    start = f"--data {spec}: "
    assert message.startswith(start)
    return message.removeprefix(start)


def levels(images: ImageSet) -> np.ndarray:
    pixels = images.batch(torch.arange(len(images)))[0]
    return ((pixels.double() + 1) * 127.5).round().numpy().astype(np.uint8)


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
