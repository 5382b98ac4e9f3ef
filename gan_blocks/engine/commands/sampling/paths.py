"""The two words of ``gan-blocks sample`` that draw paths: interpolation and walk.

Tested in ``tests/engine/commands/sampling/test_paths.py``.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.commands.sampling.options import OutPath, SampleOptions, TruncatedOptions, cycle
from gan_blocks.engine.pictures.animations import SUFFIXES, check_frames_per_second, save_animation
from gan_blocks.engine.pictures.sheets import image_grid, save_sheet, to_uint8
from gan_blocks.engine.sampling.latent_paths import PathKind, interpolate_classes, interpolate_latents, latent_walk
from gan_blocks.engine.sampling.samples import draw_latents, generate, ready_generator
from gan_blocks.engine.sampling.trained import TrainedGenerator

__all__ = ["Interpolation", "Walk"]

FRAMES_PER_SECOND = 20.0
MOST_FRAMES = 10_000  # the blur of a walk takes memory by their square


@dataclass(frozen=True)
class Interpolation(TruncatedOptions):
    """Samples on the way from one image to another, as in the paper's Figures 8 and 9: a sheet or a film.

    Row r goes from latent 2r and class r to latent 2r + 1 and class r + 1 (of --classes, over and over). Classes are
    mixed in the embedding that all layers share.
    """

    out: OutPath = Path("interpolation.png")
    """A .png is a sheet, one row a path; a .gif (256 colors) or .apng (lossless) is a film, there and back."""

    vary: Literal["both", "classes", "latents"] = "both"
    """What changes: z and class (Figure 8), the class alone (Figure 9) or z alone; what does not is the start's."""

    path: PathKind | None = None
    """How z moves: spherical keeps its length as the prior does (default); linear is shorter halfway, and blander."""

    rows: int = 8
    """How many paths."""

    steps: int | None = None
    """Images of a path, both ends included (default: 9 in a sheet, 30 in a film)."""

    fps: float | None = None
    """Frames a second of a film, from 1 to 50 (default: 20)."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("rows")
        self.check_suffix(".png", *SUFFIXES)
        if self.steps is not None and self.steps < 2:
            raise UserError(f"--steps must be at least 2, but got {self.steps}.")
        if self.fps is not None:
            check_frames_per_second(self.fps)
            if self.form == ".png":
                raise UserError(f"--fps is for a film (.gif or .apng), but --out is {self.out}.")
        if self.path is not None and self.vary == "classes":
            raise UserError(f"--path {self.path} is the path of z, but --vary classes holds z constant.")
        if self.vary != "latents" and len(set(self.classes)) == 1:
            raise UserError(f"--vary {self.vary} needs two classes or more, but --classes is {self.classes[0]} alone.")

    def draw(self, trained: TrainedGenerator) -> str:
        """Draw the paths and write them."""
        num_classes, film = trained.config.num_classes, self.form in SUFFIXES
        if self.vary != "latents" and num_classes == 1:
            raise UserError(f"--vary {self.vary} needs two classes or more, but the run has 1: take --vary latents.")
        steps = self.steps or (30 if film else 9)
        self.check_memory(trained, "--steps", steps)
        self.check_memory(trained, "--rows", self.rows, copies=steps)
        ends = draw_latents(trained.prior, 2 * self.rows, seed=self.seed)
        start, end = ends[::2], ends[1::2]
        z = interpolate_latents(start, start if self.vary == "classes" else end, steps, path=self.path or "spherical")
        labels = torch.tensor(cycle(self.labels(trained) or range(num_classes), self.rows + 1))
        classes = repeat(labels[:-1], "path -> path step", step=steps)
        if self.vary != "latents":
            classes = interpolate_classes(labels[:-1], labels[1:], steps, num_classes=num_classes)
        generator = ready_generator(trained)
        if self.vary != "latents":
            _check_mixes_classes(generator, z[0, :1], classes[0, :1])
        images = generate(
            generator,
            rearrange(z, "path step dim -> (path step) dim"),
            classes.flatten(0, 1),
            batch_size=self.batch_size,
        )
        if film:
            frames = _frames(images, self.rows, self.scale)
            save_animation(self.out, [*frames, *frames[-2:0:-1]], fps=self.fps or FRAMES_PER_SECOND)
        else:
            to_next = "" if self.vary == "latents" else " to {}"
            names = [trained.name_of(label) for label in labels.tolist()]
            pairs = pairwise(names)
            save_sheet(
                self.out,
                images,
                columns=steps,
                captions=[f"{a}{to_next.format(b)}" for a, b in pairs],
                scale=self.scale,
            )
        return f"{self.rows} paths of {steps} images"


def _check_mixes_classes(generator: nn.Module, z: Tensor, classes: Tensor) -> None:
    """Try a generator on a row of weights over the classes, in place of a label."""
    try:
        generate(generator, z, classes)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        remedy = "its forward has to take labels as rows of weights, (batch, num_classes), too; or take --vary latents"
        raise UserError(f"this generator cannot mix classes: {remedy} ({error}).") from error


@dataclass(frozen=True)
class Walk(SampleOptions):
    """A film of a smooth walk through the latent space that ends where it started (ProGAN, section 6.3).

    Noise drawn for every frame is blurred over time by a Gaussian and put back onto the sphere of the prior. Each
    image of the frame keeps its class.
    """

    out: OutPath = Path("walk.gif")
    """A .gif (256 colors a frame) or an .apng (lossless)."""

    num: int = 16
    """Walks shown side by side."""

    seconds: float = 10.0
    """Length of the film."""

    fps: float = FRAMES_PER_SECOND
    """Frames a second, from 1 to 50."""

    smoothing: float = 0.75
    """Standard deviation of the blur in seconds: more is slower. The paper's is 45 frames at 60 a second."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("num")
        self.check_suffix(*SUFFIXES)
        check_frames_per_second(self.fps)
        if not 0 < self.seconds * self.fps <= MOST_FRAMES:
            rule = f"greater than 0, for a film of at most {MOST_FRAMES:,} frames"
            raise UserError(f"--seconds must be {rule}, but got {self.seconds:g} at {self.fps:g} frames a second.")
        if not 0 < self.smoothing <= self.seconds / 4:
            raise UserError(
                f"--smoothing must be greater than 0 and at most a quarter of --seconds, or hardly anything moves, "
                f"but got --smoothing {self.smoothing:g} and --seconds {self.seconds:g}."
            )

    def draw(self, trained: TrainedGenerator) -> str:
        """Draw the frames and write the film."""
        frames = max(1, round(self.seconds * self.fps))
        self.check_memory(trained, "--num", self.num, copies=frames)
        z = torch.cat(
            [
                latent_walk(
                    trained.prior,
                    frames,
                    sigma=self.smoothing * self.fps,
                    generator=random_stream(self.seed, "walk", number),
                )
                for number in range(self.num)
            ]
        )
        labels = torch.tensor(cycle(self.labels(trained) or range(trained.config.num_classes), self.num))
        classes = labels.repeat_interleave(frames)
        images = generate(ready_generator(trained), z, classes, batch_size=self.batch_size)
        save_animation(self.out, _frames(images, self.num, self.scale), fps=self.fps)
        return f"{self.num} walks of {frames} frames"


def _frames(images: Tensor, paths: int, scale: int | None) -> list[Image.Image]:
    """One grid a step of images (path step) c h w, about square."""
    steps = rearrange(to_uint8(images), "(path step) h w c -> step path h w c", path=paths)
    columns = math.ceil(math.sqrt(paths))
    return [
        image_grid(step, columns, scale) for step in Progress(steps, desc="frames", unit="frame", delay=2, leave=False)
    ]
