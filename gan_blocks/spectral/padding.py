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

__all__ = ["padded_rows", "padded_stack", "share_stacks", "unpadded", "unpadded_rows"]

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


def padded_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors read as matrices (first dimension, all others) in one stack ``(n, out, rest)``, padded with zeros."""
    size, views = _layout(tuple(tensor.shape for tensor in tensors))
    if is_transformed(*tensors) or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        matrices = [tensor.reshape(tensor.shape[0], -1) for tensor in tensors]  # batched gradients cannot flatten
        return torch.stack([F.pad(m, (0, size[1] - m.shape[1], 0, size[0] - m.shape[0])) for m in matrices])
    stack = tensors[0].new_zeros(len(tensors), *size)
    torch._foreach_copy_([stack.as_strided(*view) for view in views], list(tensors))
    return stack


def unpadded(stack: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """What :func:`padded_stack` has made a stack of, each a view of the shape of the tensor in its place."""
    if is_transformed(stack):
        parts = zip(stack.unbind(), like, strict=True)
        return [part.narrow(0, 0, len(each)).narrow(1, 0, each[0].numel()).reshape(each.shape) for part, each in parts]
    _, views = _layout(tuple(tensor.shape for tensor in like))
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


def padded_rows(rows: Sequence[Tensor]) -> Tensor:
    """Vectors ``(k, size)`` of different sizes in one stack ``(n, k, size)``, padded with zeros."""
    sizes = tuple(each.shape[1] for each in rows)
    largest, places = _places(sizes)
    packed = torch.cat(list(rows), dim=1)
    padded = packed.new_zeros(len(packed), len(sizes) * largest).index_copy_(1, places, packed)
    return padded.view(len(packed), len(sizes), largest).transpose(0, 1)


def unpadded_rows(stack: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """What :func:`padded_rows` has made a stack of."""
    sizes = tuple(each.shape[1] for each in like)
    _, places = _places(sizes)
    return list(stack.transpose(0, 1).flatten(1).index_select(1, places).split(sizes, dim=1))


@lru_cache(maxsize=256)
def _places(sizes: tuple[int, ...]) -> tuple[int, Tensor]:
    """The size of the vectors in a stack, and where there the elements of each are, one vector after the other."""
    largest = max(sizes)
    return largest, torch.cat([torch.arange(size) + number * largest for number, size in enumerate(sizes)])
