"""How a run is carried out, the same for every training recipe; what is trained is the recipe's own Config.

Tested in ``tests/engine/training/test_command.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from gan_blocks.engine.base.checks import check_threads, require_annotated, require_at_least, require_positive
from gan_blocks.engine.base.errors import UserError

__all__ = [
    "RunOptions",
]

Precision = Literal["fp32", "bf16", "fp64"]


@dataclass(frozen=True)
class MonitoringOptions:
    """What a run writes down, and when."""

    help_group: ClassVar[str] = "monitoring"

    checkpoint_every: int = 500
    """Steps between checkpoints; also at the end."""

    keep_last: int = 2
    """How many of the newest checkpoints to keep."""

    keep_every: int = 0
    """Keep each multiple of this step, too; 0: none."""

    sample_every: int = 250
    """Steps between sample sheets; 0: only at the end.

    A sheet has one row a class, and the same latents every time.
    """

    evaluate_every: int = 0
    """Steps between small evaluations, logged and drawn; 0: none.

    What D calls real, and a distance of 500 samples in features of a classifier of the images, where these have
    classes.
    """

    log_every: int = 10
    """Steps between writes of log.jsonl."""

    spectra_every: int = 0
    """Steps between plots of all layers' sigmas; 0: none.

    The largest singular values of all weights are measured, logged and drawn.
    """


@dataclass(frozen=True)
class RunOptions(MonitoringOptions):
    """How the run is carried out. These options may change when a run is resumed."""

    help_group: ClassVar[str] = "run"

    steps: int | None = None
    """Stop at this step (default: the planned steps)."""

    minutes: float | None = None
    """Stop after this many minutes at the latest."""

    run_dir: Path | None = None
    """Folder of the run; continues a run that is there (default: a new runs/RECIPE-PRESET-TIME)."""

    resume: Path | None = None
    """Continue the run in this folder."""

    init_from: Path | None = None
    """Start from the weights of the run in this folder; its Config gives the other options' defaults."""

    config: Path | None = None
    """Start from this config.json of a run, not a preset."""

    precision: Precision = "fp32"
    """fp32, bf16 (weights stay float32) or fp64 (checks)."""

    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto (a GPU if any)."""

    threads: int | None = None
    """CPU threads (default: torch's choice); a different number changes the last bits."""

    accumulate: int = 1
    """Micro-batches of a batch, to save memory."""

    checkpoint_activations: bool = False
    """Compute blocks again in the backward pass, to save memory: same bits, more time."""

    compile: bool = False
    """Compile G and D, for GPUs: minutes at first.

    The results agree up to rounding.
    """

    timeout: float = 600.0
    """Seconds that a process waits for the others."""

    compare_every: int = 100
    """Steps between checks that processes agree; 0: none.

    They compare weights and statistics bit for bit.
    """

    channels_last: bool = True
    """Keep images as NHWC in memory, which is faster.

    The results agree up to rounding.
    """

    def __post_init__(self) -> None:
        """Check the values that can be checked without looking at the machine."""
        require_annotated(self)
        require_positive(
            self, "steps", "minutes", "accumulate", "checkpoint_every", "keep_last", "log_every", "timeout"
        )
        check_threads(self.threads)
        require_at_least(self, 0, "keep_every", "sample_every", "evaluate_every", "spectra_every", "compare_every")
        if self.run_dir is not None and self.resume is not None and self.run_dir != self.resume:
            raise UserError("--run-dir and --resume name two folders; give one of them.")
        if self.resume is not None and self.init_from is not None:
            raise UserError("--resume continues a run and --init-from starts one; give one of them.")
        if self.config is not None and (self.resume or self.init_from) is not None:
            rule = "--config starts a run; --resume and --init-from take the options of the run that they name"
            raise UserError(f"{rule}: give one of them.")

    def dtype(self) -> torch.dtype:
        """The type of the weights and images: float64 for fp64, else float32."""
        return torch.float64 if self.precision == "fp64" else torch.float32
