"""The convolutions and the attention of a training step, alone: no step can take less with this arithmetic.

A step is taken once while every such operation, forward and backward, is written down with its shapes, strides and
types; they are then replayed in their order on noise. What is left out is all the rest: normalization, activations,
weights, optimizers, Python. The floor of the fused arithmetic is that of a step as the recipe takes it, the floor of
the plain arithmetic that of a step with a plain 3x3 convolution beside each change of resolution.

``python -m benchmarks.steps.floors [SYSTEM]`` times both in turn with the step and says where the rest goes.
Tested in ``tests/benchmarks/steps/test_floors.py``.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from benchmarks.results import Ratio, Table, render_table, table
from benchmarks.steps.profile import shares_of_step
from benchmarks.steps.training_steps import SYSTEMS, changed, plain_trainer, trainer, unfused
from benchmarks.suite import Turn
from benchmarks.timing import add_clock_option, clock_of, machine, timed_in_turn
from gan_blocks.engine import Recipe, TrainingConfig
from gan_blocks.engine.base.devices import cpu_has_bf16
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.layers import attention_products

__all__ = ["floor_of", "floor_table"]

COUNTED = ("convolution", "attention")
"""What the names of operations that count contain."""


class _Like:
    """A tensor that was there, without its values."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.stride, self.dtype = tuple(tensor.shape), tensor.stride(), tensor.dtype

    def key(self, position: int) -> tuple[Any, ...]:
        return (self.shape, self.stride, self.dtype, position)

    def make(self) -> Tensor:
        # Strides may be 0, where a gradient was expanded: what lies behind them is filled, not what is seen.
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))
        behind = torch.zeros(last + 1, dtype=self.dtype)
        if self.dtype.is_floating_point:
            behind.normal_(std=0.1)
        return behind.as_strided(self.shape, self.stride)


class _Recorder(TorchDispatchMode):
    """Writes down the operations that count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in func.name() for word in COUNTED):
            self.calls.append(tree_map(_described, (func, args, kwargs or {})))
        return func(*args, **(kwargs or {}))

    def writing(self, name: str) -> Callable[..., Any]:
        """A function of ``attention_products`` that counts as one operation."""
        function = getattr(attention_products, name)

        def call(*args: Tensor) -> Any:
            self.calls.append(tree_map(_described, (function, args, {})))
            return function(*args)

        return call


def _described(value: Any) -> Any:
    return _Like(value) if isinstance(value, Tensor) else value


def floor_of(train: Callable[[int], object]) -> Callable[[int], None]:
    """What replays the convolutions and the attention of a step; the step is taken once."""
    recorder = _Recorder()
    with recorder, ExitStack() as stack:
        for name in ("gather_in_blocks", "gradients_in_blocks"):
            stack.enter_context(patch.object(attention_products, name, recorder.writing(name)))
        train(1)
    tensors: dict[tuple[Any, ...], Tensor] = {}

    def made(position: int, argument: Any) -> Any:
        if not isinstance(argument, _Like):
            return argument
        key = argument.key(position)
        if key not in tensors:
            tensors[key] = argument.make()
        return tensors[key]

    calls = [(func, [made(*each) for each in enumerate(args)], kwargs) for func, args, kwargs in recorder.calls]

    @torch.no_grad()
    def replay(_number: int) -> None:
        for func, args, kwargs in calls:
            func(*args, **kwargs)

    return replay


def floor_table(
    name: str,
    recipe: Recipe[Any],
    config: TrainingConfig,
    turn: Turn,
    *,
    others: Mapping[str, Callable[[int], object]] | None = None,
) -> Table:
    """A system's step in turn with its floors and the plain way to take it, and where its time goes.

    Args:
        name: What the system is called.
        recipe: Builds it.
        config: Its Config.
        turn: How to measure.
        others: More ways to take the step, each compared with ours.
    """
    step = trainer(recipe, config)
    cases: dict[str, Callable[[int], object]] = {
        "ours, float32": step,
        "plain way": plain_trainer(recipe, config),
        "floor, plain arithmetic": floor_of(trainer(changed(recipe, unfused), config)),
        "floor, fused arithmetic": floor_of(step),
        **(others or {}),
    }
    ratios = [Ratio(other, "ours, float32") for other in ("plain way", *(others or {}))]
    ratios += [Ratio("ours, float32", f"floor, {arithmetic} arithmetic") for arithmetic in ("plain", "fused")]
    if cpu_has_bf16():
        half = trainer(recipe, config, options=RunOptions(precision="bf16"))
        cases |= {"ours, bfloat16": half, "floor, fused arithmetic, bfloat16": floor_of(half)}
        ratios += [Ratio("ours, float32", "ours, bfloat16"), Ratio("plain way", "ours, bfloat16")]
        ratios += [Ratio("ours, bfloat16", "floor, fused arithmetic, bfloat16")]
    measured = timed_in_turn(cases, turn.rounds, turn.clock, seconds=turn.seconds)
    shares = shares_of_step(step, steps=1)
    goes = "Where the float32 step goes: " + ", ".join(f"{part} {share:.1%}" for part, share in shares.items()) + "."
    batch, updates = config.batch_size, config.discriminator_steps
    return table(f"Training step of {name}, batch {batch}, D updated {updates}x", measured, ratios, notes=[goes])


def main() -> None:
    """Measure one system or all, and print it."""
    parser = argparse.ArgumentParser(description="Steps over the floors of their convolutions and attention.")
    parser.add_argument("systems", nargs="*", choices=[[], *SYSTEMS], help="which (default: BigGAN-128)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    print(machine())
    for name in options.systems or ["BigGAN-128"]:
        found = floor_table(name, *SYSTEMS[name], Turn(clock_of(options), options.rounds, math.inf))
        print(f"\n{render_table(found)}", flush=True)


if __name__ == "__main__":
    main()
