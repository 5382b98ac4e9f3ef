"""What everything else stands on: errors, files, randomness, threads and processes, the command line."""

from gan_blocks.engine.base.checks import check_threads
from gan_blocks.engine.base.contents import check_regular, other_content
from gan_blocks.engine.base.devices import use_threads
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.interrupts import StopRequest
from gan_blocks.engine.base.json_values import DamagedJsonError, parse_object
from gan_blocks.engine.base.memory import keep_freed_memory
from gan_blocks.engine.base.parallel.workers import worker_pool
from gan_blocks.engine.base.randomness import random_stream, seeded_construction
from gan_blocks.engine.base.terminal.command_line import parse_options, run_command
from gan_blocks.engine.base.terminal.console import Progress

__all__ = [
    "DamagedJsonError",
    "Progress",
    "StopRequest",
    "check_regular",
    "check_threads",
    "keep_freed_memory",
    "other_content",
    "parse_object",
    "parse_options",
    "random_stream",
    "replace_durably",
    "run_command",
    "seeded_construction",
    "use_threads",
    "worker_pool",
]
