"""What the tests of ``recipes.convert`` write and type."""

from pathlib import Path

import torch

BIGGAN_PYTORCH = ["--from", "biggan-pytorch"]


HUGGINGFACE = ["--from", "huggingface-biggan-deep"]


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


PLAIN = {"x": torch.zeros(2)}
