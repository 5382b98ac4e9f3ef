"""Paths through the latent space and between classes, whose points a generator turns into pictures or films.

Tested in ``tests/engine/sampling/test_latent_paths.py``.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from gan_blocks import Prior
from gan_blocks.engine.base.errors import UserError

__all__ = ["PathKind", "interpolate_classes", "interpolate_latents", "latent_walk"]

PathKind = Literal["spherical", "linear"]


def interpolate_latents(start: Tensor, end: Tensor, steps: int, *, path: PathKind = "spherical") -> Tensor:
    r"""Latents at even distances from each start to its end, both included.

    With :math:`\theta` the angle between the directions :math:`\hat a, \hat b` of both ends, the spherical path is

    .. math:: z(t) = \big((1 - t)\lVert a\rVert + t\lVert b\rVert\big)\,
       \frac{\sin((1 - t)\theta)\,\hat a + \sin(t\theta)\,\hat b}{\sin\theta}

    and the linear one :math:`(1 - t)\,a + t\,b`. Two vectors of many independent normal components are almost
    orthogonal and of almost equal length, so halfway on the line the length is :math:`1/\sqrt2` of theirs: vectors that
    the prior hardly ever draws, whose pictures are blander, as with truncation. The spherical path keeps the length,
    which makes it the default. The line has its use where components are bounded, as in a uniform prior or a strongly
    truncated one: it stays within their bounds, and the great circle may not. The paper does not say which it took.

    Args:
        start: First latents, ``(paths, dim)``.
        end: Last latents, ``(paths, dim)``.
        steps: Number of points of a path, at least 2.
        path: Along a great circle or a straight line. Ends whose directions agree to 1e-6, are opposite, or that are
            zero have no great circle through them: for these it is the line.

    Returns:
        The points, ``(paths, steps, dim)`` in the dtype of ``start``; the first and the last are the ends exactly.
    """
    a, b = (rearrange(end_.double(), "path dim -> path 1 dim") for end_ in (start, end))
    t = rearrange(torch.linspace(0, 1, steps, dtype=torch.float64), "step -> 1 step 1")
    points = torch.lerp(a, b, t)
    if path == "spherical":
        length_a, length_b = (end_.norm(dim=-1, keepdim=True) for end_ in (a, b))
        cosine = ((a / length_a) * (b / length_b)).sum(dim=-1, keepdim=True).clamp(-1, 1)
        angle = torch.acos(cosine)
        arc = (torch.sin((1 - t) * angle) * a / length_a + torch.sin(t * angle) * b / length_b) / torch.sin(angle)
        # A comparison with the NaN of a zero vector is false, which leaves the line.
        points = torch.where(torch.sin(angle) > 1e-6, torch.lerp(length_a, length_b, t) * arc, points)
    return points.to(start.dtype)


def interpolate_classes(start: Tensor, end: Tensor, steps: int, *, num_classes: int) -> Tensor:
    r"""Class weights at even distances on the straight line from each start to its end, both included.

    A generator that looks up its classes in one shared table :math:`E` turns weights into
    :math:`\sum_k w_k E_k`, so this is the straight line between the classes' embeddings.

    Args:
        start: First classes, int64 of shape ``(paths,)``.
        end: Last classes, int64 of shape ``(paths,)``.
        steps: Number of points of a path, at least 2.
        num_classes: Number of classes of the generator.

    Returns:
        The weights, float32 of shape ``(paths, steps, num_classes)``: one-hot at the ends, each row's sum is 1.
    """
    a, b = (rearrange(F.one_hot(end_, num_classes).double(), "path k -> path 1 k") for end_ in (start, end))
    t = rearrange(torch.linspace(0, 1, steps, dtype=torch.float64), "step -> 1 step 1")
    return torch.lerp(a, b, t).float()


def latent_walk(prior: Prior, frames: int, *, sigma: float, generator: torch.Generator) -> Tensor:
    r"""A smooth, endless walk on the sphere of a prior: independent normal noise, blurred over the frames.

    .. math:: z_t = r\,\frac{y_t}{\lVert y_t\rVert}, \qquad
       y_t = \sum_s \exp\!\Big(-\frac{d(s, t)^2}{2\sigma^2}\Big)\,x_s, \qquad x_s \sim \mathcal{N}(0, I)

    The distance d between frames is taken around the ring of all frames, so that the last leads into the first and a
    film of them can be repeated without a jump. The radius r is the root of the mean square length of the prior's
    vectors: for a normal or spherical prior of d components of unit variance it is :math:`\sqrt d`.

    Args:
        prior: What the generator was trained with; it must have a mean of zero.
        frames: Number of frames of the ring, at least 1.
        sigma: Standard deviation of the blur in frames, greater than 0; the paper takes 45 at 60 frames a second.
        generator: Source of the noise.

    Returns:
        One latent a frame, ``(frames, dim)`` in float32.

    Raises:
        UserError: If the prior's mean is not zero, since the walk would leave what it draws from.

    References:
        Karras et al. 2018, section 6.3.
    """
    if prior.mean.any():
        raise UserError(f"a walk needs a prior around zero, such as a normal one, but {type(prior).__name__} is not.")
    noise = torch.randn(frames, prior.dim, generator=generator, dtype=torch.float64)
    number = torch.arange(frames, dtype=torch.float64)
    apart = (rearrange(number, "frame -> frame 1") - number).abs()
    weights = torch.exp(-(torch.minimum(apart, frames - apart) ** 2) / (2 * sigma**2))
    blurred: Tensor = einsum(weights, noise, "frame noise, noise dim -> frame dim")
    radius = math.sqrt(prior.variance.sum().item())
    on_sphere: Tensor = radius * blurred / blurred.norm(dim=1, keepdim=True)
    return on_sphere.float()
