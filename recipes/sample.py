"""Draw samples from a trained generator, with its moving average and standing statistics (Appendix C.1).

A sample is a function of --seed, its number, its class and --truncation: the same in any batch, on any call. --out
chooses the form: a .png is a grid, a .npz holds `images` (uint8, NHWC) and `labels`, and a folder gets one PNG each.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from recipes._engine.command_line import parse_options, run_command
from recipes._engine.errors import UserError
from recipes._engine.options import torch_device
from recipes._engine.sampling import check_truncation, draw_samples
from recipes._engine.sheets import image_grid, to_uint8
from recipes._engine.trained import load_trained

__all__ = ["Options", "main"]


@dataclass(frozen=True)
class Options:
    """What to draw, and where to put it."""

    run: Path | None = None
    """Folder of a run; its newest checkpoint is used."""

    weights: Path | None = None
    """One weights file (ema.safetensors of a checkpoint), instead of --run."""

    num: int = 100
    """How many samples."""

    classes: tuple[int, ...] = ()
    """Classes to draw, each equally often and in this order (default: all)."""

    truncation: float | None = None
    """Resample every component of z beyond this many standard deviations: smaller is better looking and less varied."""

    seed: int = 0
    """Seed of the latents."""

    out: Path = Path("samples.png")
    """A .png (grid), a .npz (arrays) or a folder (one PNG a sample)."""

    batch_size: int = 64
    """Images generated at once; the samples do not depend on it."""

    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ... or auto."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("num", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, but got {getattr(self, name)}.")
        check_truncation(self.truncation)
        if self.out.suffix not in (".png", ".npz", ""):
            raise UserError(f"--out must end in .png or .npz or be a folder, but got {self.out}.")


def draw(options: Options) -> None:
    """Draw the samples and write them."""
    device = torch_device(options.device)
    trained = load_trained(run=options.run, weights=options.weights, device=device)
    for note in trained.notes:
        print(note)
    num_classes = trained.config.num_classes
    for label in options.classes:
        if not 0 <= label < num_classes:
            raise UserError(f"--classes must lie in 0 to {num_classes - 1}, but got {label}.")
    images, labels = draw_samples(
        trained,
        options.num,
        seed=options.seed,
        classes=options.classes,
        truncation=options.truncation,
        batch_size=options.batch_size,
    )
    write(options.out, images, labels)
    print(f"{options.num} samples from {trained.source}: {options.out}")


def write(out: Path, images: Tensor, labels: Tensor) -> None:
    """Write images in [-1, 1] in the form that the name asks for."""
    pictures = to_uint8(images)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".png":
            image_grid(pictures, columns=_columns(labels)).save(out)
        elif out.suffix == ".npz":
            np.savez(out, images=pictures, labels=labels.numpy())
        else:
            out.mkdir(parents=True, exist_ok=True)
            named = zip(pictures, labels.tolist(), strict=True)
            for number, (picture, label) in enumerate(tqdm(named, total=len(pictures), unit="image", delay=2)):
                pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
                Image.fromarray(pixels).save(out / f"{number:06d}_class_{label}.png")
    except OSError as error:
        raise UserError(f"cannot write --out {out}: {error.strerror}.") from None


def _columns(labels: Tensor) -> int:
    """One row a class where all classes are equally many and a row is of sensible length, else about a square."""
    counts: list[int] = list(Counter(labels.tolist()).values())
    if 2 <= counts[0] <= 32 and counts == [counts[0]] * len(counts):
        return counts[0]
    return math.ceil(math.sqrt(len(labels)))


def main(argv: Sequence[str] | None = None) -> int:
    """Draw samples; see ``python -m recipes.sample --help``."""

    def command() -> int:
        draw(parse_options(Options, prog="python -m recipes.sample", description=__doc__ or "", args=argv))
        return 0

    return run_command("sample", command)


if __name__ == "__main__":
    raise SystemExit(main())
