import copy
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.flop_counter import FlopCounterMode

from gan_blocks.engine.inspection.layer_table import LayerRow, format_table, layer_table
from recipes import biggan_deep
from recipes.biggan_deep import Discriminator, Generator


class Attention(nn.Module):
    """Owns a gain, multiplies matrices itself, and has layers inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = spectral_norm(nn.Conv2d(channels, channels // 8, 1, bias=False))
        self.phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        pooled = (F.max_pool2d(layer(x), 2).flatten(2).mT for layer in (self.phi, self.g))
        attended = F.scaled_dot_product_attention(self.theta(x).flatten(2).mT, *pooled, scale=1.0)
        return x + self.gamma * self.out(attended.mT.unflatten(2, x.shape[2:]))


class Parts(NamedTuple):
    features: Tensor
    score: Tensor


class Critic(nn.Module):
    """A bit of everything: shared layer, layer used by its weight alone, tied weight, tuple output, raw parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = spectral_norm(nn.Conv2d(3, 16, 3, stride=2, padding=1))
        self.norm = nn.BatchNorm2d(16)
        self.act = nn.ReLU()
        self.attention = Attention(16)
        self.twice = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.embedding = spectral_norm(nn.Embedding(10, 8))
        self.linear = nn.Linear(8, 1)
        self.tied = nn.Linear(8, 1)
        self.tied.weight = self.linear.weight
        self.unused = nn.Linear(8, 7)
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor, y: Tensor) -> Parts:
        h = self.attention(self.act(self.norm(self.stem(x))))
        h = self.up(self.twice(self.twice(h))).sum(dim=(2, 3))
        score = self.linear(h)[:, 0] + self.tied(h)[:, 0] + (self.embedding(y) * h).sum(dim=1)
        return Parts(h, score + F.linear(h, self.unused.weight).sum(dim=1))


@pytest.fixture
def critic() -> Critic:
    return Critic()


def inputs(batch: int = 2, size: int = 16) -> tuple[Tensor, Tensor]:
    return torch.empty(batch, 3, size, size, device="meta"), torch.empty(batch, dtype=torch.long, device="meta")


def by_name(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> dict[str, LayerRow]:
    return {row.name: row for row in layer_table(module, example_inputs)}


def test_rows_are_exactly_the_layers_that_own_parameters_or_multiply(critic: Critic):
    names = [
        *("", "stem", "norm", "attention", "attention.theta", "attention.phi", "attention.g", "attention.out"),
        *("twice", "up", "embedding", "linear", "tied", "unused"),
    ]
    assert [row.name for row in layer_table(critic, inputs())] == names


def test_parameters_add_up_to_those_of_the_network(critic: Critic):
    rows = by_name(critic, inputs())
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in critic.parameters())
    assert rows["stem"].parameters == 3 * 16 * 9 + 16
    assert rows["attention"].parameters == 1
    assert rows[""].parameters == 5
    assert rows["embedding"].parameters == 80
    assert rows["linear"].parameters == 9
    assert rows["tied"].parameters == 1  # its weight counts in the row above


def test_a_parametrized_layer_has_the_name_of_the_plain_class(critic: Critic):
    rows = by_name(critic, inputs())
    assert [rows[name].type for name in ("stem", "attention.theta", "embedding", "attention", "")] == [
        "Conv2d",
        "Conv2d",
        "Embedding",
        "Attention",
        "Critic",
    ]


def test_output_shapes_are_those_of_one_image(critic: Critic):
    rows = by_name(critic, inputs(batch=6))
    assert rows["stem"].output_shape == (16, 8, 8)
    assert rows["up"].output_shape == (8, 16, 16)
    assert rows["linear"].output_shape == (1,)
    assert rows[""].output_shape == (8,)  # the first tensor of the tuple
    assert rows["unused"].output_shape is None


def test_multiply_adds_follow_from_the_shapes(critic: Critic):
    rows = by_name(critic, inputs())
    expected = {
        "": 8 * 7,  # F.linear with the weight of a layer that is never called belongs to the caller
        "stem": 8 * 8 * 16 * 3 * 9,
        "norm": 0,
        "attention": 64 * 16 * (2 + 8),  # 64 queries, 16 pooled keys, 2 channels of keys and 8 of values
        "attention.theta": 64 * 16 * 2,
        "attention.phi": 64 * 16 * 2,
        "attention.g": 64 * 16 * 8,
        "attention.out": 64 * 8 * 16,
        "twice": 2 * 64 * 16 * (16 // 4) * 9,
        "up": 64 * 16 * 8 * 16,  # every input pixel meets the 4x4 kernel
        "embedding": 0,
        "linear": 8,
        "tied": 8,
        "unused": 0,
    }
    assert {name: row.multiply_adds for name, row in rows.items()} == expected


@given(
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    size=st.integers(4, 9),
    batch=st.integers(1, 3),
)
def test_a_convolution_multiplies_once_per_weight_and_output_pixel(
    channels: tuple[int, int], kernel: int, stride: int, size: int, batch: int
):
    conv = nn.Conv2d(*channels, kernel, stride=stride)
    (row,) = layer_table(conv, (torch.empty(batch, channels[0], size, size),))
    multiplications = 0
    for _row in range(0, size - kernel + 1, stride):
        for _column in range(0, size - kernel + 1, stride):
            multiplications += conv.weight.numel()
    assert row.multiply_adds == multiplications
    assert row.output_shape == (channels[1], *2 * [(size - kernel) // stride + 1])


@pytest.mark.parametrize("batch", [1, 4])
def test_the_total_is_what_torch_counts_on_real_tensors(batch: int):
    plain = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3, stride=2), nn.Flatten(), nn.Linear(72, 5))
    x = torch.zeros(batch, 3, 9, 9)
    with FlopCounterMode(display=False) as counter:
        plain(x)
    assert sum(row.multiply_adds for row in layer_table(plain, (x,))) * 2 * batch == counter.get_total_flops()


class Merging(nn.Module):
    """Multiplies over every arrangement of the images: merged with pixels, as heads, and a product of two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.per_pixel = nn.Linear(3, 8)
        self.over_pixels = nn.Linear(16, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up = spectral_norm(nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        pixels = self.per_pixel(x.permute(0, 2, 3, 1).reshape(-1, channels)).view(batch, height * width, 8)
        pixels = pixels + self.attention(pixels, pixels, pixels)[0]
        gram = torch.einsum("npc,npd->ncd", pixels, pixels) @ pixels.mT
        h = self.over_pixels(gram).sum(dim=(1, 2)).view(-1, 1, 1, 1) + pixels.mT.unflatten(2, (height, width))
        return self.up(h)


def counted_by_torch(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> dict[str, int]:
    """Flops of every module with its children, by torch's own counter."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*example_inputs)
    counts = {name: sum(per_operator.values()) for name, per_operator in counter.get_flop_counts().items()}
    root, hidden = type(module).__name__ + ".", ".parametrizations"
    return {
        name.removeprefix(root) if name.startswith(root) else "": flops
        for name, flops in counts.items()
        if name != "Global" and hidden not in name
    }


def assert_counts_are_those_of_torch(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
    batch = example_inputs[0].shape[0]
    expected = counted_by_torch(module, example_inputs)
    rows = {row.name: row.multiply_adds for row in layer_table(module, example_inputs)}
    for part, flops in expected.items():
        inside = [count for name, count in rows.items() if not part or f"{name}.".startswith(f"{part}.")]
        assert (part, 2 * batch * sum(inside)) == (part, flops)
    assert sum(rows.values()) > 0


@pytest.mark.parametrize("kind", [Critic, Merging])
def test_every_row_counts_what_torch_counts(kind: type[nn.Module]):
    with torch.device("meta"):
        module = kind()
    assert_counts_are_those_of_torch(module, inputs(size=4)[: 1 if kind is Merging else 2])


@pytest.mark.parametrize("preset", ["mnist5k-32", "cifar10-32", "imagenet-128"])
def test_every_row_of_the_presets_counts_what_torch_counts(preset: str):
    config = biggan_deep.PRESETS[preset]()
    with torch.device("meta"):
        labels = torch.zeros(1, dtype=torch.long)
        z = torch.empty(1, config.latent_dim)
        images = torch.empty(1, config.image_channels, config.resolution, config.resolution)
        generator, discriminator = Generator(config), Discriminator(config)
    assert_counts_are_those_of_torch(generator, (z, labels))
    assert_counts_are_those_of_torch(discriminator, (images, labels))


def test_the_work_of_a_parametrization_is_no_work_per_image():
    layer = nn.Linear(6, 4)
    assert layer_table(layer, (torch.empty(1, 6),)) == layer_table(spectral_norm(layer), (torch.empty(1, 6),))

    class Product(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight @ weight.mT @ weight

    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Product())
    (row,) = layer_table(layer, (torch.empty(1, 6),))
    assert row == LayerRow("", "Linear", (4,), 28, 24)


def test_the_network_is_left_as_it_was(critic: Critic):
    critic.norm.eval()
    before = copy.deepcopy(critic.state_dict())
    modes = [part.training for part in critic.modules()]
    parameters = list(critic.parameters())
    layer_table(critic, inputs())
    assert all(value.equal(before[key]) for key, value in critic.state_dict().items())
    assert [part.training for part in critic.modules()] == modes
    assert all(a is b for a, b in zip(critic.parameters(), parameters, strict=True))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in critic.modules())


def test_the_network_is_left_as_it_was_when_it_refuses_the_inputs(critic: Critic):
    with pytest.raises(RuntimeError):
        layer_table(critic, (torch.empty(1, 4, 8, 8), torch.zeros(1, dtype=torch.long)))
    assert all(part.training for part in critic.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in critic.modules())
    assert critic.stem.bias is not None
    assert critic.stem.bias.device.type == "cpu"


def test_a_network_without_memory_has_the_same_table(critic: Critic):
    with torch.device("meta"):
        weightless = Critic()
    assert layer_table(weightless, inputs()) == layer_table(critic, inputs())


def test_the_mode_does_not_change_the_table(critic: Critic):
    assert layer_table(critic.eval(), inputs()) == layer_table(critic.train(), inputs())


def test_a_network_of_many_parameters_is_described_without_allocating_them():
    with torch.device("meta"):
        huge = nn.Sequential(*(spectral_norm(nn.Conv2d(2**15, 2**15, 3)) for _ in range(4)))
    rows = layer_table(huge, (torch.empty(1, 2**15, 64, 64, device="meta"),))
    assert sum(row.parameters for row in rows) == 4 * (2**30 * 9 + 2**15)  # 144 GiB in float32
    assert rows[0].multiply_adds == 62 * 62 * 2**30 * 9


# Text


def test_the_text_is_aligned_and_ends_with_the_totals(critic: Critic):
    rows = layer_table(critic, inputs())
    title, header, rule, *body, last_rule, total = format_table(rows, "Discriminator").splitlines()
    assert title == "Discriminator"
    assert header.split() == ["Layer", "Type", "Output", "Parameters", "Multiply-adds"]
    assert rule == last_rule == "-" * len(header)
    assert {len(line) for line in (*body, total)} == {len(header)}
    assert body[1].split() == ["stem", "Conv2d", "16x8x8", "448", "27,648"]
    assert body[0].startswith("(itself)")
    assert "not called" in body[-1]
    parameters = sum(p.numel() for p in critic.parameters())
    assert total.split() == ["total", f"{parameters:,}", f"{sum(row.multiply_adds for row in rows):,}"]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_long_names_give_way_so_that_the_table_fits_the_console(width: int):
    name = "blocks.12.generator_bottleneck." + "conditional_batch_norm." * 6 + "gain"
    rows = [LayerRow(name, "ConditionalBatchNorm2d", (1536, 128, 128), 70_433_988, 12_345_678_901)]
    lines = format_table(rows, "Generator", width=width).splitlines()
    assert max(map(len, lines)) <= width
    row = lines[3]
    assert row.startswith("...")
    assert row.split()[0].removeprefix("...") in name
    assert "70,433,988  12,345,678,901" in row


def test_a_score_per_image_is_called_a_scalar():
    assert "scalar" in format_table([LayerRow("head", "Head", (), 1, 1)], "D")


def test_numbers_that_add_up_to_nothing_are_still_a_table():
    assert layer_table(nn.ReLU(), (torch.zeros(2, 3),)) == []
    assert format_table([], "Empty").splitlines()[-1].split() == ["total", "0", "0"]


def test_the_element_count_of_the_shapes_and_the_parameters_agree_for_a_linear_layer():
    (row,) = layer_table(nn.Linear(7, 11, bias=False), (torch.zeros(1, 7),))
    assert row.multiply_adds == row.parameters == 7 * math.prod(row.output_shape or ())
