"""Drawing from a trained generator."""

from gan_blocks.engine.sampling.converted import write_converted_run
from gan_blocks.engine.sampling.exported import load_for_export
from gan_blocks.engine.sampling.samples import check_truncation, sampling_generator, spread_classes, truncated
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_trained

__all__ = [
    "TrainedGenerator",
    "check_truncation",
    "load_for_export",
    "load_trained",
    "sampling_generator",
    "spread_classes",
    "truncated",
    "write_converted_run",
]
