"""Drawing from a trained generator."""

from gan_blocks.engine.sampling.converted import write_converted_run
from gan_blocks.engine.sampling.exported import load_for_export
from gan_blocks.engine.sampling.samples import check_truncation, sampling_generator, spread_classes, truncated

__all__ = [
    "check_truncation",
    "load_for_export",
    "sampling_generator",
    "spread_classes",
    "truncated",
    "write_converted_run",
]
