"""What single things add to a training step: spectral norm, classes; each by steps with and without it, in turn.

``python -m benchmarks.steps.costs spectral-norm``, ``... classes``. ``python -m benchmarks.run`` measures them too.
"""

import argparse
import math
from dataclasses import replace

from benchmarks.results import Ratio, Table, render_table, table
from benchmarks.steps.training_steps import (
    SYSTEMS,
    System,
    changed,
    trainer,
    with_torch_spectral_norm,
    without_spectral_norm,
)
from benchmarks.suite import Turn
from benchmarks.timing import add_clock_option, clock_of, machine, timed_in_turn

__all__ = ["class_costs", "spectral_norm_costs"]

MANY, FEW = 18_000, 10


def spectral_norm_costs(name: str, system: System, turn: Turn) -> Table:
    """The library's spectral norm, torch's and none."""
    recipe, config = system
    cases = {
        "ours": trainer(recipe, config),
        "torch's": trainer(changed(recipe, with_torch_spectral_norm), config),
        "none": trainer(changed(recipe, without_spectral_norm), config),
    }
    measured = timed_in_turn(cases, turn.rounds, turn.clock, seconds=turn.seconds)
    ratios = [Ratio("ours", "none"), Ratio("torch's", "none"), Ratio("torch's", "ours")]
    return table(f"Spectral norm in the training step of {name}", measured, ratios)


def class_costs(name: str, system: System, turn: Turn) -> Table:
    """A step with many classes over one with few."""
    recipe, config = system
    cases = {f"{count:,} classes": trainer(recipe, replace(config, num_classes=count)) for count in (MANY, FEW)}
    measured = timed_in_turn(cases, turn.rounds, turn.clock, seconds=turn.seconds)
    return table(f"Classes in the training step of {name}", measured, [Ratio(*cases)])


COSTS = {"spectral-norm": spectral_norm_costs, "classes": class_costs}


def main() -> None:
    """Measure and print one of them."""
    parser = argparse.ArgumentParser(description="What single things add to a training step.")
    parser.add_argument("cost", choices=COSTS, help="which")
    parser.add_argument("--system", choices=SYSTEMS, default="BigGAN-128", help="whose step")
    parser.add_argument("--rounds", type=int, default=15, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    print(machine())
    measure = COSTS[options.cost]
    turn = Turn(clock_of(options), options.rounds, math.inf)
    print(render_table(measure(options.system, SYSTEMS[options.system], turn)))


if __name__ == "__main__":
    main()
