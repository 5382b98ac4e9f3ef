"""What a network is made of: shape, parameters and multiply-adds of every layer, found without computing anything.

Tested in ``tests/engine/inspection/test_layer_table.py``.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from gan_blocks.engine.base.eval_mode import eval_mode
from gan_blocks.engine.inspection.dry_run import DryRun

__all__ = ["LayerRow", "format_table", "layer_table"]


class LayerRow(NamedTuple):
    """One layer of a network.

    Attributes:
        name: Qualified name, the prefix of its keys in the state dict; empty for the network itself.
        type: Class name, that of the plain class for a parametrized layer.
        output_shape: Shape of one image's output, without the batch axis; None for a layer that was not called.
        parameters: Elements of the parameters that the layer owns itself. A parameter that several layers share
            counts in the first one.
        multiply_adds: Multiplications with addition that the layer itself executes, per image.
    """

    name: str
    type: str
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int


class _Frame:
    """A running call: what was counted before it began, and what its children counted since."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.children = 0


class _Meter:
    """Hooks that give each multiplication to the innermost module in whose forward it happens."""

    def __init__(self, run: DryRun) -> None:
        self.run = run
        self.running: list[_Frame] = []
        self.flops: dict[nn.Module, int] = {}
        self.shapes: dict[nn.Module, tuple[int, ...]] = {}

    def enter(self, _module: nn.Module, _args: Any) -> None:
        self.running.append(_Frame(self.run.flops))

    def leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        frame = self.running.pop()
        whole = self.run.flops - frame.start
        self.flops[module] = self.flops.get(module, 0) + whole - frame.children
        self.shapes[module] = _first_shape(output)
        if self.running:
            self.running[-1].children += whole


def layer_table(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[LayerRow]:
    """List every layer that owns parameters or multiplies, in the order of the state dict.

    The network runs once, in eval mode, with its parameters, buffers and inputs replaced by tensors of the meta device:
    nothing is allocated or computed, and the network is left as it was, wherever it lives.

    The parameters of all rows add up to those of the network: a parametrized layer counts once, with the original
    weight, and what a container owns, such as the gain of an attention block, is a row of its own. Multiply-adds are
    those of convolutions, linear layers, matrix products and attention as executed on the meta device: a fast path
    that saves multiplications shows fewer, and padding for the sake of one device's kernel does not show. Biases,
    normalization and other elementwise work do not count, nor does what a parametrization does to a weight, which
    does not depend on the images.

    Args:
        module: The network, on any device.
        example_inputs: Its positional arguments; the first axis of the first one is the batch.

    Example:
        >>> layer_table(torch.nn.Linear(3, 5), (torch.empty(1, 3),))
        [LayerRow(name='', type='Linear', output_shape=(5,), parameters=20, multiply_adds=15)]
    """
    batch = example_inputs[0].shape[0]
    meter = _run_on_meta(module, example_inputs)
    rows = []
    counted: set[nn.Parameter] = set()
    for name, layer in _layers(module):
        own = set(_own_parameters(layer))
        if own or meter.flops.get(layer):
            shape = meter.shapes[layer][1:] if layer in meter.shapes else None
            parameters = sum(parameter.numel() for parameter in own - counted)
            multiply_adds = round(meter.flops.get(layer, 0) / 2 / batch)
            rows.append(LayerRow(name, type_before_parametrizations(layer).__name__, shape, parameters, multiply_adds))
            counted |= own
    return rows


def format_table(rows: list[LayerRow], title: str, *, width: int = 100) -> str:
    """Render rows as aligned plain text with totals, at most ``width`` columns wide.

    Names too long for the width lose their beginning; where even that is not enough, the table is wider.

    Example:
        >>> print(format_table([LayerRow("stem", "Linear", (5,), 20, 15)], "Generator"))
        Generator
        Layer  Type    Output  Parameters  Multiply-adds
        ------------------------------------------------
        stem   Linear  5               20             15
        ------------------------------------------------
        total                          20             15
    """
    cells = [("Layer", "Type", "Output", "Parameters", "Multiply-adds")]
    cells += [
        (row.name or "(itself)", row.type, _shape_text(row), f"{row.parameters:,}", f"{row.multiply_adds:,}")
        for row in rows
    ]
    totals = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    cells.append(("total", "", "", f"{totals[0]:,}", f"{totals[1]:,}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = min(widths[0], max(8, width - sum(widths[1:]) - 8))
    lines = [_line(row, widths) for row in cells]
    rule = "-" * (sum(widths) + 8)
    return "\n".join([title, lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _run_on_meta(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> _Meter:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    on_meta = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    inputs = tuple(value.detach().to("meta") for value in example_inputs)
    with DryRun() as run, ExitStack() as stack, torch.no_grad(), eval_mode(module):
        meter = _Meter(run)
        for layer in module.modules():
            stack.callback(layer.register_forward_pre_hook(meter.enter).remove)
            stack.callback(layer.register_forward_hook(meter.leave).remove)
        torch.func.functional_call(module, on_meta, inputs)
    return meter


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but those that parametrize a weight: they belong to the layer that has the weight."""
    hidden = {id(part) for layer in module.modules() if is_parametrized(layer) for part in _parametrizations(layer)}
    yield from ((name, layer) for name, layer in module.named_modules() if id(layer) not in hidden)


def _parametrizations(layer: nn.Module) -> Iterator[nn.Module]:
    yield from cast(nn.ModuleDict, layer.parametrizations).modules()


def _own_parameters(layer: nn.Module) -> Iterator[nn.Parameter]:
    yield from layer.parameters(recurse=False)
    if is_parametrized(layer):
        for part in _parametrizations(layer):
            yield from part.parameters(recurse=False)


def _first_shape(output: Any) -> tuple[int, ...]:
    if isinstance(output, Tensor):
        return tuple(output.shape)
    return next((tuple(part.shape) for part in output if isinstance(part, Tensor)), ())


def _shape_text(row: LayerRow) -> str:
    if row.output_shape is None:
        return "not called"
    return "x".join(map(str, row.output_shape)) or "scalar"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    name, kind, shape, *numbers = cells
    if len(name) > widths[0]:
        name = "..." + name[3 - widths[0] :]
    texts = [text.ljust(width) for text, width in zip((name, kind, shape), widths, strict=False)]
    texts += [text.rjust(width) for text, width in zip(numbers, widths[3:], strict=True)]
    return "  ".join(texts)
