"""Files in the format of safetensors, written without a copy of all tensors in memory.

Byte for byte what ``safetensors.torch.save`` makes, which holds the whole file twice.

Tested in ``tests/engine/runs/test_safetensors_content.py``.
"""

import json
from collections.abc import Iterator, Mapping

import torch
from safetensors.torch import save
from torch import Tensor

from gan_blocks.engine.base.chunked_content import ChunkedContent

__all__ = ["safetensors_content"]

_CHUNK = 2**18  # bytes, which stay in the cache between hash and disk
# In the order in which the format has them: the widest first, so that all are aligned.
_DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = {dtype: place for place, dtype in enumerate(_DTYPES)}


def safetensors_content(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> ChunkedContent:
    """The content of a file; the tensors must not change until it has been written.

    Args:
        tensors: By name; of any device and memory format. Those that share memory are written in full.
        metadata: Text by name.
    """
    if any(tensor.dtype not in _DTYPES or tensor.layout != torch.strided for tensor in tensors.values()):
        data = save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, metadata)
        return ChunkedContent(len(data), lambda: iter([data]))
    ordered = sorted(tensors.items(), key=lambda item: (_ORDER[item[1].dtype], item[0]))
    header = _header(ordered, metadata)
    values = [tensor for _, tensor in ordered]

    def chunks() -> Iterator[bytes | memoryview]:
        yield header
        yield from _tensor_chunks(values)

    return ChunkedContent(len(header) + sum(value.nbytes for value in values), chunks)


def _header(tensors: list[tuple[str, Tensor]], metadata: dict[str, str]) -> bytes:
    """The length of a JSON text and the text, which spaces fill up to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": metadata}
    place = 0
    for name, tensor in tensors:
        end = place + tensor.nbytes
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _tensor_chunks(tensors: list[Tensor]) -> Iterator[memoryview]:
    # One piece of memory for all that lie as NHWC: to fill a fresh one takes three times as long.
    turned = [tensor for tensor in tensors if not _lies_as_written(tensor)]
    scratch = torch.empty(max((tensor.nbytes for tensor in turned), default=0), dtype=torch.uint8)
    for tensor in tensors:
        value = tensor.detach().cpu()
        if not _lies_as_written(value):
            value = scratch[: value.nbytes].view(value.dtype).view(value.shape).copy_(value)
        data = value.reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]


def _lies_as_written(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())
