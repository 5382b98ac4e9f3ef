"""A network that images are looked at by, with what makes its scores comparable: its name, its side, how images get in.

Tested in ``tests/engine/evaluation/features/test_networks.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from gan_blocks.engine.base.errors import UserError

__all__ = ["FeatureNetwork", "answered", "as_saved", "resized"]

CPU = torch.device("cpu")
LIMIT = 1e20  # of features: the variance of the kernel distance has the twelfth power of them, in float64

Look = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """What makes features of images, and perhaps logits.

    Attributes:
        name: Network and side of its input, such as ``efflite0-128``; part of every score's name.
        look: Gives features ``(batch, num_features)``, followed by the logits where there are some and no ``head``;
            in eval mode and without gradients.
        num_features: Features of an image.
        side: Height and width of what it looks at; None: those of the images.
        in_color: Whether gray images are shown as RGB.
        head: Makes logits of features.
        digest: Of its weights; features are cached by it. Empty: they are not.
        device: Where it computes.
        frechet_name: What to call its distance, where that is not "FD-" and the name.
    """

    name: str
    look: Look
    num_features: int
    side: int | None = None
    in_color: bool = True
    head: Look | None = None
    digest: str = ""
    device: torch.device = CPU
    frechet_name: str = ""

    @property
    def distance_name(self) -> str:
        """What a Fréchet distance of its features is called."""
        return self.frechet_name or f"FD-{self.name}"

    def rows(self, images: Tensor) -> Tensor:
        """What ``look`` gives for images in [-1, 1] of any size, as they would be saved: float32, on the CPU.

        Raises:
            UserError: If a value is not finite, or larger than any metric can do with.
        """
        seen = as_saved(images.to(self.device))
        if self.in_color and seen.shape[1] == 1:
            seen = repeat(seen, "image 1 height width -> image 3 height width")
        if self.side is not None:
            seen = resized(seen, self.side)
        rows = self.look(seen).float().cpu()
        if not (fine := rows.abs() < LIMIT).all():  # which no NaN is
            wrong = f"{int((~fine).sum()):,} of {rows.numel():,} values of a batch"
            raise UserError(f"--features {self.name}: {wrong} are not finite, or are {LIMIT:.0e} and larger.")
        return rows

    def features(self, rows: Tensor) -> Tensor:
        """The features in what :meth:`rows` gave."""
        return rows[:, : self.num_features]

    def logits(self, rows: Tensor) -> Tensor | None:
        """The logits, computed where they were not kept; None where the network has none."""
        if self.head is not None:
            return self.head(self.features(rows).to(self.device)).float().cpu()
        return rows[:, self.num_features :] if rows.shape[1] > self.num_features else None


def as_saved(images: Tensor) -> Tensor:
    """Images in [-1, 1] with the 256 levels of a file, as ``to_uint8`` rounds them."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def resized(images: Tensor, side: int) -> Tensor:
    """Square images of another side by the bicubic filter, which is widened to shrink images without aliasing."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def answered(look: Callable[[Tensor], object], images: Tensor) -> tuple[Tensor, int]:
    """What a network of the user's gives for images, features and logits side by side, and the number of features.

    Raises:
        TypeError: If it is neither a matrix of features with a row for each image nor a pair of these and logits.
    """
    answer = look(images)
    parts = list(answer) if isinstance(answer, tuple | list) else [answer]
    matrices = [part for part in parts if isinstance(part, Tensor) and _is_real_matrix(part, len(images))]
    if len(matrices) != len(parts) or len(parts) not in (1, 2) or matrices[0].shape[1] == 0:
        wanted = f"features ({len(images)}, features), or these and logits"
        raise TypeError(f"it must return {wanted}, but returned {', '.join(map(_described, parts[:3]))}")
    return torch.cat([matrix.float() for matrix in matrices], dim=1), matrices[0].shape[1]


def _is_real_matrix(part: Tensor, rows: int) -> bool:
    return part.dim() == 2 and len(part) == rows and not part.is_complex()


def _described(part: object) -> str:
    if not isinstance(part, Tensor):
        return type(part).__name__
    return f"{tuple(part.shape)}{' of complex numbers' if part.is_complex() else ''}"
