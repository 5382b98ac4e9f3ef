import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from gan_blocks.engine.runs.safetensors_content import safetensors_content

DTYPES = [
    *(torch.uint64, torch.int64, torch.float64, torch.complex64, torch.float32, torch.uint32, torch.int32),
    *(torch.bfloat16, torch.float16, torch.uint16, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def written(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    content = safetensors_content(tensors, metadata)
    data = b"".join(bytes(chunk) for chunk in content)
    assert len(data) == len(content)
    return data


@given(
    named=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4)),
        max_size=6,
    ),
    text=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_the_bytes_are_those_of_the_library(named: dict[str, tuple[torch.dtype, list[int]]], text: str):
    tensors = {name: (torch.rand(shape) * 100).to(dtype) for name, (dtype, shape) in named.items() if name[:2] != "__"}
    assert written(tensors, {"gan_blocks": text}) == save(tensors, {"gan_blocks": text})


def test_another_layout_of_memory_gives_the_same_bytes():
    image = torch.rand(7, 5, 3, 3)
    parts = torch.rand(4, 6, dtype=torch.complex64)
    views = {
        "nhwc": image.to(memory_format=torch.channels_last),
        "transposed": image.transpose(0, 1),
        "slice": image[2:4, :, 1],
        "expanded": torch.ones(1).expand(3),
        "conjugated": parts.conj(),
        "negative": parts.conj().imag,
        "large": torch.rand(300_001),
        "parameter": torch.nn.Parameter(image[0]),
    }
    plain = {name: value.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
             for name, value in views.items()}  # fmt: skip
    assert written(views, {"a": "b"}) == save(plain, {"a": "b"})


def test_tensors_that_share_memory_are_written_in_full():
    shared = torch.arange(6.0)
    loaded = load(written({"a": shared, "b": shared, "c": shared[2:4]}, {}))
    assert [loaded[name].tolist() for name in "abc"] == [shared.tolist(), shared.tolist(), [2.0, 3.0]]


def test_what_the_format_has_beside_is_left_to_the_library():
    tensors = {"rare": torch.ones(3).to(torch.float8_e4m3fn), "usual": torch.ones(2)}
    assert written(tensors, {"a": "b"}) == save(tensors, {"a": "b"})
