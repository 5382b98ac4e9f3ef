"""Small matrices of different sizes as one stack, padded with zeros: products of a stack cost little more than of one.

Rows and columns of zeros change no singular value, and the vectors of the others have zeros there.

Tested in ``tests/spectral/test_padding.py``.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_blocks._transforms import is_transformed

__all__ = ["PaddedStack", "padded_stack", "share_stacks", "unpadded"]

Size = tuple[int, int]  # of a matrix: (out, rest)

# Elements of padding that cost as much as the calls of one more stack. Measured on two CPU cores: some 20 calls of
# 5 us, and 4 passes of 1 ns an element.
_WORTH_A_STACK = 24_576


@lru_cache(maxsize=256)
def share_stacks(sizes: tuple[Size, ...]) -> tuple[tuple[int, ...], ...]:
    """Divide matrices into few stacks with little padding; returns the positions of those in each."""
    equal: dict[Size, tuple[int, ...]] = {}
    for position, size in enumerate(sizes):
        equal[size] = (*equal.get(size, ()), position)
    stacks = list(equal.items())
    while len(stacks) > 1:
        first, second = min(combinations(stacks, 2), key=_padding)
        if _padding((first, second)) > _WORTH_A_STACK:
            break
        stacks = [stack for stack in stacks if stack is not first and stack is not second]
        stacks.append((_common(first[0], second[0]), (*first[1], *second[1])))
    return tuple(members for _, members in stacks)


def _padding(pair: tuple[tuple[Size, tuple[int, ...]], ...]) -> int:
    """How many elements of padding two stacks need to become one."""
    out, rest = _common(*(size for size, _ in pair))
    return sum(len(members) * (out * rest - size[0] * size[1]) for size, members in pair)


def _common(first: Size, second: Size) -> Size:
    return max(first[0], second[0]), max(first[1], second[1])


class PaddedStack:
    """Memory for tensors of certain shapes, read as matrices (first dimension, all others), padded with zeros.

    All are written, and read, in one call. Whoever holds it uses it again and again: what is computed from it is to be
    used up, or copied, before.

    Args:
        shapes: Of the tensors, each with at least one dimension.
        like: A tensor of the dtype and device.

    Attributes:
        stack: All matrices, ``(n, out, rest)``.
        parts: Views of it of the shapes of the tensors.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], like: Tensor) -> None:
        size, views = _layout(tuple(map(tuple, shapes)))
        with torch.inference_mode(False):  # it may be used in training later
            self.stack = torch.zeros(len(shapes), *size, dtype=like.dtype, device=like.device)
            self.parts = [self.stack.as_strided(*view) for view in views]

    def filled(self, tensors: Sequence[Tensor]) -> Tensor:
        """Write the tensors and return the stack, for use without autograd."""
        torch._foreach_copy_(self.parts, list(tensors))
        return self.stack


def padded_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors, read as matrices, as one new stack ``(n, out, rest)`` that is padded with zeros."""
    (out, rest), _ = _layout(tuple(tuple(tensor.shape) for tensor in tensors))
    matrices = [tensor.reshape(tensor.shape[0], -1) for tensor in tensors]  # batched gradients cannot flatten
    return torch.stack([F.pad(m, (0, rest - m.shape[1], 0, out - m.shape[0])) for m in matrices])


def unpadded(stack: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo :func:`padded_stack`: views of the shape of the tensor in each place."""
    if is_transformed(stack):
        parts = zip(stack.unbind(), like, strict=True)
        return [part.narrow(0, 0, len(each)).narrow(1, 0, each[0].numel()).reshape(each.shape) for part, each in parts]
    _, views = _layout(tuple(tuple(tensor.shape) for tensor in like))
    return [stack.as_strided(*view) for view in views]


@lru_cache(maxsize=256)
def _layout(shapes: tuple[tuple[int, ...], ...]) -> tuple[Size, list[tuple[tuple[int, ...], tuple[int, ...], int]]]:
    """The size of the matrices in a stack, and shape, strides and offset of each of the tensors there."""
    out = max(shape[0] for shape in shapes)
    rest = max(math.prod(shape[1:]) for shape in shapes)
    views = []
    for number, shape in enumerate(shapes):
        inner = [math.prod(shape[axis + 1 :]) for axis in range(1, len(shape))]
        views.append((shape, (rest, *inner), number * out * rest))
    return (out, rest), views
