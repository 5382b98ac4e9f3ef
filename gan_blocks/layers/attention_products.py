"""Softmax attention on a CPU by batched matrix products: queries need not be padded to the width of the values.

Tested in ``tests/layers/test_attention_products.py``.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_blocks._precision import full_precision, wide_dtype
from gan_blocks._transforms import is_traced, is_transformed

__all__ = ["attend_by_products", "gather_in_blocks", "gradients_in_blocks", "products_are_faster"]

# From here on the products take less time than torch's kernel: two thirds to one third of it.
_FEWEST_SCORES = 2**18  # of an image, as maps of 32x32 pixels have
_FEWEST_CHANNELS = {torch.bfloat16: 32, torch.float32: 64}  # of the values

_BLOCK_BYTES = 2**21  # of an image's scores at a time: what a core keeps in its cache
_ALIGNED = 16  # channels: fewer take as long


def products_are_faster(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether :func:`attend_by_products` can take these operands, and less time than torch's kernel."""
    return (
        not torch.compiler.is_compiling()
        and all(type(operand) is Tensor and operand.device.type == "cpu" for operand in (query, key, value))
        and query.dtype == key.dtype == value.dtype
        and value.shape[2] >= _FEWEST_CHANNELS.get(query.dtype, math.inf)
        and query.shape[1] * key.shape[1] >= _FEWEST_SCORES
        and torch.backends.cuda.flash_sdp_enabled()  # the CPU's kernel, too; off where second derivatives are wanted
        and not is_transformed(query, key, value)
        and not is_traced()
    )


def attend_by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    r"""Let every query gather values, :math:`\operatorname{softmax}(q k^\top) v`.

    Some queries are taken at a time, so that their scores stay in the cache and never fill the memory. In bfloat16 the
    scores are rounded as well, as they are by two products with a softmax between them; torch's kernel keeps them in
    float32. Second derivatives hold all scores in memory at once.

    Shape:
        - query: ``(batch, queries, channels)``
        - key: ``(batch, keys, channels)``
        - value: ``(batch, keys, value_channels)``
        - returns: ``(batch, queries, value_channels)``
    """
    # Softmax does not see what all keys share, and its rows add up to 1: without the means less is lost by rounding.
    center = _center(value)
    gathered: Tensor = _apply(query, key - _center(key), value - center)
    return gathered + center


def _center(operand: Tensor) -> Tensor:
    """The mean over the pixels; 0 where it is infinite or nan, since subtracting it would spoil the other pixels."""
    return operand.detach().mean(1, keepdim=True).to(operand.dtype).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with full_precision(query):
            gathered = gather_in_blocks(query, key, value)
        ctx.save_for_backward(query, key, value, gathered)
        return gathered

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, gathered = ctx.saved_tensors
        with full_precision(query):
            if torch.is_grad_enabled() or is_transformed(grad) or is_traced():
                return _gradients(query, key, value, grad)
            return gradients_in_blocks(query, key, value, gathered, grad)


_apply: Callable[..., Any] = _Attention.apply


def gather_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute the forward pass, block by block."""
    gathered = query.new_empty(*query.shape[:2], value.shape[2])
    keys, memory = _across(key), _block_memory(query, key)
    for images, rows in _blocks(query, key):
        attention = _attention(query[images, rows], keys[images], memory)
        gathered[images, rows] = attention @ value[images]
    return gathered


def gradients_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, gathered: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Compute the backward pass, block by block; the scores are computed again.

    With :math:`a` the attention and :math:`s = g v^\top` the slopes of the loss along it, the scores have the
    gradients :math:`a (s - m)`, where the mean of a row is :math:`m = \sum_j a_j s_j = g \cdot (a v)`.
    """
    wide = wide_dtype(grad)
    grad_query = torch.empty_like(query)
    grad_key, grad_value = (torch.zeros_like(operand.mT, dtype=wide) for operand in (key, value))
    # The product subtracts the means from the slopes, since it adds before it rounds: [g, -m] [v, 1]^T. The mean comes
    # in two parts, itself rounded and what is then missing, which in bfloat16 is much.
    mean = (grad.to(wide) * gathered.to(wide)).sum(-1, keepdim=True)
    part = mean.to(grad.dtype)
    grad_and_mean = torch.cat([grad, -part, (part - mean).to(grad.dtype)], -1)
    keys, values_and_ones = _across(key), _across(F.pad(value, (0, 2), value=1.0))
    aligned_key = F.pad(key, (0, -key.shape[2] % _ALIGNED))
    memory, memory_of_slopes = _block_memory(query, key), _block_memory(query, key)
    for images, rows in _blocks(query, key):
        attention = _attention(query[images, rows], keys[images], memory)
        grad_value[images] += grad[images, rows].mT @ attention
        grad_scores = _product(grad_and_mean[images, rows], values_and_ones[images], memory_of_slopes).mul_(attention)
        grad_key[images] += query[images, rows].mT @ grad_scores
        grad_query[images, rows] = (grad_scores @ aligned_key[images])[..., : key.shape[2]]
    return grad_query, grad_key.mT.to(key.dtype), grad_value.mT.to(value.dtype)


def _gradients(query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the backward pass for all scores at once, by operations that have derivatives themselves."""
    attention = torch.softmax(query @ key.mT, -1)
    slopes = grad @ value.mT
    grad_scores = attention * (slopes - (attention * slopes).sum(-1, keepdim=True))
    return grad_scores @ key, grad_scores.mT @ query, attention.mT @ grad


def _attention(query: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """How much each query takes of each value, in rows that add up to 1."""
    scores = _product(query, keys, memory)
    return torch.softmax(scores, -1, out=scores)


def _across(operand: Tensor) -> Tensor:
    """Transposed in memory, too: the right factor of a product is read faster so."""
    return operand.mT.contiguous()


def _product(left: Tensor, right: Tensor, memory: Tensor) -> Tensor:
    shape = (*left.shape[:2], right.shape[2])
    return torch.bmm(left, right, out=memory[: math.prod(shape)].view(shape))


def _blocks(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice]]:
    """The images and queries that are taken at a time."""
    images, rows = _block_size(query, key)
    for first_image in range(0, len(query), images):
        for first_row in range(0, query.shape[1], rows):
            yield slice(first_image, first_image + images), slice(first_row, first_row + rows)


def _block_memory(query: Tensor, key: Tensor) -> Tensor:
    return query.new_empty(math.prod(_block_size(query, key)) * key.shape[1])


def _block_size(query: Tensor, key: Tensor) -> tuple[int, int]:
    """An image for each thread, so that none waits for what another has in its cache, and some of its queries."""
    rows = _BLOCK_BYTES // (key.shape[1] * query.element_size())
    return min(torch.get_num_threads(), max(len(query), 1)), min(max(rows, 1), query.shape[1])
