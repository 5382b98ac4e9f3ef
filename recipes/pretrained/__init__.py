"""Small trained generators that come with the recipes, each of less than 2 MB.

They are averages of G, rounded to bfloat16; ``python -m recipes.pretrained`` lists them, gives the path of each for
commands, and makes one of a run. Tested in ``tests/recipes/test_pretrained.py``.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from gan_blocks import Prior
from gan_blocks.engine import RunFolder, UserError, load_trained
from gan_blocks.engine.runs import write_weights
from gan_blocks.engine.sampling import sampling_generator

__all__ = ["NAMES", "Pretrained", "load_generator", "make_weights", "weights_path"]

NAMES = {
    "clothes": "the ten classes of Fashion-MNIST by `biggan`, preset fashion-mnist-32",
    "digits": "the ten digits of MNIST by `biggan_deep`, preset mnist5k-32",
}
"""What each has learned, and from which recipe."""


class Pretrained(NamedTuple):
    """A generator that is ready to draw, and what it draws from."""

    generator: nn.Module
    """Takes z, float32, ``(batch, latent)``, and classes, int64, ``(batch,)``; gives images in [-1, 1]."""
    prior: Prior
    """Gives z."""


def weights_path(name: str) -> Path:
    """The weights file, for ``--weights`` of commands.

    Raises:
        UserError: If there is none of this name.
    """
    if name not in NAMES:
        raise UserError(f"there is no pretrained generator {name}; the names are {', '.join(NAMES)}.")
    return Path(__file__).with_name(f"{name}.safetensors")


def load_generator(name: str) -> Pretrained:
    """Load one as ``gan-blocks sample`` does: spectral norms folded into the weights, with standing statistics.

    Args:
        name: One of ``NAMES``.

    Raises:
        UserError: If there is none of this name.

    Example:
        >>> from recipes.pretrained import load_generator
        >>> digits = load_generator("digits")
        >>> digits.generator(digits.prior.sample(2), torch.tensor([3, 7])).shape
        torch.Size([2, 1, 32, 32])
    """
    trained = load_trained(run=None, weights=weights_path(name), device=torch.device("cpu"))
    generator = sampling_generator(trained.average, trained.prior, trained.config)
    return Pretrained(generator, trained.prior)


def make_weights(run: Path, path: Path) -> None:
    """Write the averaged generator of a run, rounded to bfloat16.

    Args:
        run: Folder of the run.
        path: The file.

    Raises:
        UserError: If there is no such run, it has no sound checkpoint, or the file cannot be written.
    """
    folder = RunFolder.open(run)
    checkpoint = folder.newest_checkpoint(only=("ema",))
    average = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.tensors["ema"].items()
    }
    write_weights(path, average, {**checkpoint.metadata, "part": "ema", "step": checkpoint.step})
