"""Where the time of a training step goes, by the kind of its operations.

Kinds are told by the names of torch's operations: spectral norm is in "matrix products" and "other operations" (what it
costs in all is measured with and without it, see ``benchmarks.run``), and "Python" is what lies between operations.
"""

import re
import time
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

__all__ = ["shares_of_step"]

KINDS = {
    "convolutions": r"conv",
    "attention": r"attention|flash",
    "batch normalization": r"batch_norm|var_mean",
    "optimizers and averages": r"[Oo]ptimizer|_fused_|_foreach|lerp",
    "matrix products": r"::(add|b)?(mm|mv)\b|::dot|::bmm|::baddbmm|linear|einsum|matmul",
    "resampling and pooling": r"upsample|pool|interpolate",
    "copies and conversions": r"copy|contiguous|::cat\b|clone|::to\b|::pad|constant_pad|::fill|zero",
}
REST = "other operations"
PYTHON = "Python"


def kind_of(name: str) -> str:
    """Of an operation, by its name in a profile."""
    if not name.startswith("aten::") and not re.search("[Oo]ptimizer", name):
        return PYTHON  # nodes of autograd and marks, whose own time is between operations
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), REST)


def shares_of_step(train: Callable[[int], object], *, steps: int = 2) -> dict[str, float]:
    """The share of each kind in the wall time of some steps, largest first.

    The profiler makes small operations slower: of a small network's step, "Python" is more than without it.
    """
    train(1)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        began = time.perf_counter()
        for number in range(steps):
            train(number + 2)
        wall = time.perf_counter() - began
    seconds = dict.fromkeys([*KINDS, REST], 0.0)
    for event in profiled.key_averages():
        kind = kind_of(event.key)
        if kind != PYTHON:
            seconds[kind] += event.self_cpu_time_total / 1e6
    seconds[PYTHON] = max(0.0, wall - sum(seconds.values()))
    return {kind: spent / wall for kind, spent in sorted(seconds.items(), key=lambda item: -item[1])}
