"""How a run is carried out, the same for every training recipe; what is trained is the recipe's own Config.

Tested in ``tests/engine/training/test_command.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch

from gan_blocks.engine.base.checks import check_threads, require_at_least, require_positive
from gan_blocks.engine.base.command_line import UNSET
from gan_blocks.engine.base.errors import UserError

__all__ = [
    "RunOptions",
]

Precision = Literal["fp32", "bf16", "fp64"]


@dataclass(frozen=True)
class RunOptions:
    """How the run is carried out. These options may change when a run is resumed."""

    steps: Annotated[int | None, UNSET] = None
    """Stop when the run has this many steps in all (default: the preset's planned steps)."""

    minutes: Annotated[float | None, UNSET] = None
    """Stop after this many minutes of training in this session, if the steps are not done before."""

    run_dir: Annotated[Path | None, UNSET] = None
    """Folder of the run; continues the run that it already holds (default: a new runs/RECIPE-PRESET-TIME)."""

    resume: Annotated[Path | None, UNSET] = None
    """Continue the run in this folder from its newest checkpoint."""

    init_from: Annotated[Path | None, UNSET] = None
    """Start a new run from the weights of the run in this folder; its Config gives the other options' defaults."""

    precision: Precision = "fp32"
    """Arithmetic: fp32, bf16 (autocast; the weights stay in float32) or fp64 (for checks)."""

    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ... or auto (a GPU when there is one)."""

    threads: Annotated[int | None, UNSET] = None
    """CPU threads (default: torch's choice). Another number gives other last bits, so it is written to the log."""

    accumulate: int = 1
    """Split each batch into this many micro-batches and add up their gradients, to save memory."""

    checkpoint_activations: bool = False
    """Compute the activations of residual blocks again in the backward pass, to save memory: same bits, more time."""

    timeout: float = 600.0
    """Seconds that one of several processes waits for the others before it gives up and says who is missing."""

    compare_every: int = 100
    """Steps between checks that all processes hold the same weights and statistics, bit for bit (0: none)."""

    channels_last: bool = True
    """Keep images as NHWC in memory, which is faster here; the results agree up to rounding."""

    checkpoint_every: int = 500
    """Steps between checkpoints; one is also written at the end and on SIGINT or SIGTERM."""

    keep_last: int = 2
    """How many of the newest checkpoints to keep."""

    keep_every: int = 0
    """Keep each checkpoint whose step is a multiple of this for good (0: none)."""

    sample_every: int = 250
    """Steps between sample sheets (one row a class, the same latents every time); 0: only at the end."""

    log_every: int = 10
    """Steps between writes of log.jsonl, which has a line for every step, and updates of the progress bar's losses."""

    spectra_every: int = 0
    """Steps between measurements of the weights' largest singular values, logged and drawn (0: none)."""

    def __post_init__(self) -> None:
        """Check the values that can be checked without looking at the machine."""
        require_positive(
            self, "steps", "minutes", "accumulate", "checkpoint_every", "keep_last", "log_every", "timeout"
        )
        check_threads(self.threads)
        require_at_least(self, 0, "keep_every", "sample_every", "spectra_every", "compare_every")
        if self.run_dir is not None and self.resume is not None and self.run_dir != self.resume:
            raise UserError("--run-dir and --resume name two folders; give one of them.")
        if self.resume is not None and self.init_from is not None:
            raise UserError("--resume continues a run and --init-from starts one; give one of them.")

    def dtype(self) -> torch.dtype:
        """The type of the weights and images: float64 for fp64, else float32."""
        return torch.float64 if self.precision == "fp64" else torch.float32
