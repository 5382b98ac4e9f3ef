"""Tables of many trainings that a stop does not lose."""

from gan_blocks.engine.studies.runs import StudyStoppedError, train_for, train_ok, train_quietly, train_run
from gan_blocks.engine.studies.study import (
    Result,
    Study,
    StudyTask,
    carry_out_side_by_side,
    markdown_table,
    mean_and_deviation,
    print_continuation,
    study_command,
)

__all__ = [
    "Result",
    "Study",
    "StudyStoppedError",
    "StudyTask",
    "carry_out_side_by_side",
    "markdown_table",
    "mean_and_deviation",
    "print_continuation",
    "study_command",
    "train_for",
    "train_ok",
    "train_quietly",
    "train_run",
]
