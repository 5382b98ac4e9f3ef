"""Slopes of a discriminator at its images, with a graph for the second derivatives of a penalty.

A slope is the gradient of the sum of a discriminator's logits by one of its images. Under float16 autocast, slopes are
computed some thousand times as large and divided again, since most would be less than the least number of float16.

Tested in ``tests/losses/test_slopes.py``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gan_blocks._checks import bad_kind, bad_shape
from gan_blocks._precision import wide_dtype
from gan_blocks._transforms import uncompiled

__all__ = ["Discriminator", "slopes_at", "slopes_of", "twice_differentiable"]

Discriminator: TypeAlias = Callable[[Tensor], Tensor]


def twice_differentiable() -> AbstractContextManager[None]:
    """Let attention take a kernel that has second derivatives, which the CPU's and CUDA's fastest have not.

    A context manager for the forward pass of a discriminator whose slopes are to be penalized:
    :class:`SelfAttention2d`, and whatever else calls :func:`torch.nn.functional.scaled_dot_product_attention`, takes
    the plain kernel inside. It is slower, so that a pass that needs no slopes is better made outside. Compiled models,
    which have first derivatives alone, run uncompiled inside.

    Returns:
        The context manager.

    Example:
        >>> from gan_blocks import SelfAttention2d, zero_centered_penalty
        >>> attention = SelfAttention2d(8)
        >>> images = torch.randn(2, 8, 4, 4, requires_grad=True)
        >>> with twice_differentiable():
        ...     logits = attention(images).sum((1, 2, 3))
        >>> zero_centered_penalty(images, logits).requires_grad
        True
    """
    return _plain_kernels()


@contextmanager
def _plain_kernels() -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH), uncompiled():
        yield


def slopes_at(owner: str, discriminator: Discriminator, images: Tensor) -> Tensor:
    """The slopes at images, from a forward pass of its own."""
    if isinstance(discriminator, type) or not callable(discriminator):
        raise bad_kind(owner, "discriminator", "a module or a function of images", discriminator)
    images = images.detach().requires_grad_()
    with torch.enable_grad(), twice_differentiable():
        logits = discriminator(images)
        return slopes_of(owner, images, [logits] if isinstance(logits, Tensor) else list(logits))


def slopes_of(owner: str, images: Tensor, logits: Sequence[Tensor]) -> Tensor:
    """The gradient of the sum of the logits by each image, one row each, with a graph for D's weights."""
    for scale in logits:
        if scale.shape[:1] != images.shape[:1]:
            raise bad_shape(owner, "logits", f"({len(images)}, ...)", scale, "Every image has its own.")
    if torch.is_inference_mode_enabled():
        raise RuntimeError(f"{owner}: slopes need autograd, which torch.inference_mode() takes away.")
    used = [scale for scale in logits if scale.requires_grad]
    slopes = None
    for factor in _factors(images, logits) if used else ():
        weights = [torch.full_like(scale, factor) for scale in used]
        (slopes,) = torch.autograd.grad(used, images, weights, create_graph=True, allow_unused=True)
        if slopes is None:
            break
        slopes = slopes.to(wide_dtype(slopes)) / factor
        if factor == 1 or slopes.isfinite().all():
            break
    if slopes is None:
        raise ValueError(
            f"{owner}: the logits must have been computed from these images, but they do not depend on them."
        )
    if _without_second_derivative(slopes):
        raise ValueError(
            f"{owner}: the logits must be twice differentiable, but an attention kernel on their way is not: compute "
            "them inside `with gan_blocks.twice_differentiable():`."
        )
    return slopes.flatten(1)


def _factors(images: Tensor, logits: Sequence[Tensor]) -> tuple[float, ...]:
    """By what to multiply slopes while they are computed: powers of 2, the next one where the last overflowed."""
    kind = images.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    narrow = autocast or any(tensor.dtype == torch.float16 for tensor in (images, *logits))
    narrow = narrow or any(node.name() == "ToCopyBackward0" for node in _graph(logits))  # a cast, perhaps from float16
    return (2.0**12, 2.0**4, 1.0) if narrow else (1.0,)


def _without_second_derivative(slopes: Tensor) -> bool:
    """Whether the graph of the slopes has a step that autograd cannot differentiate again."""
    return any(node.name().endswith("::NotImplemented") for node in _graph([slopes]))


def _graph(tensors: Iterable[Tensor]) -> Iterator[torch.autograd.graph.Node]:
    """The steps that tensors were computed by."""
    ahead, seen = [tensor.grad_fn for tensor in tensors], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        yield node
        seen.add(node)
        ahead += [following for following, _ in node.next_functions]
