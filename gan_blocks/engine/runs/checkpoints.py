"""Checkpoints that a kill, a full disk or a damaged file cannot take away.

A checkpoint is a folder ``step_000500`` of safetensors and JSON files. It is written under another name, flushed to the
disk and only then renamed, so that a folder with the final name is whole; MANIFEST.json tells damage that came later.

Tested in ``tests/engine/runs/test_checkpoints.py``.
"""

import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gan_blocks.engine.base.chunked_content import ChunkedContent
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import sync_directory, write_durably, writing
from gan_blocks.engine.base.json_values import is_count, read_object
from gan_blocks.engine.runs.manifest import MANIFEST_NAME, encode_manifest, find_damage, manifest_entry
from gan_blocks.engine.runs.weights import first_not_finite, read_verified_weights, weights_content

__all__ = [
    "Checkpoint",
    "MissingPartError",
    "list_checkpoints",
    "load_latest_checkpoint",
    "prune_checkpoints",
    "remove_stale_temporaries",
    "save_checkpoint",
    "step_of",
]

STATE_NAME = "state.json"


class MissingPartError(UserError):
    """A checkpoint was saved without a part that is asked for."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, read from the disk."""

    step: int
    path: Path
    tensors: dict[str, dict[str, Tensor]]
    """State dicts by part (``generator``, ``optimizer_g`` ...), mapped from the files: copy them, do not keep them."""
    metadata: dict[str, Any]
    """What its files say of the run: ``recipe``, ``preset``, ``config`` and what else was saved with them."""
    notes: tuple[str, ...]
    """A sentence for each newer checkpoint that was passed over because it is damaged, to show to the user."""


def save_checkpoint(
    checkpoints_dir: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, Any],
    *,
    keep_last: int,
    keep_every: int = 0,
) -> Path:
    """Write a checkpoint, and remove those that need not be kept once it is safe.

    Equal arguments give equal files, byte for byte. Checkpoints of later steps are removed too: they were damaged, or
    training would have continued from them.

    Args:
        checkpoints_dir: Where checkpoints go; made when missing.
        step: Steps done so far.
        tensors: State dicts by part, which is also the name of its file.
        metadata: JSON values that every safetensors file carries, beside its own ``part`` and ``step``:
            ``recipe``, ``preset`` and ``config``, as :meth:`RunFolder.metadata` gives them.
        keep_last: How many of the newest checkpoints to keep, at least 1.
        keep_every: Steps divisible by this are kept for good; 0: none.

    Returns:
        The folder of the new checkpoint.

    Raises:
        UserError: If it could not be written; the checkpoints before it are whole, and nothing is left of it.
        ValueError: If ``keep_last`` is less than 1 or ``keep_every`` is negative.
    """
    if keep_last < 1 or keep_every < 0:
        raise ValueError(
            "save_checkpoint: `keep_last` must be at least 1 and `keep_every` at least 0, "
            f"but got keep_last={keep_last!r} and keep_every={keep_every!r}."
        )
    final = checkpoints_dir / f"step_{step:06d}"
    needed = sum(tensor.nbytes for state_dict in tensors.values() for tensor in state_dict.values())
    with writing(final, needed=needed, remedy="The checkpoints before it are untouched."):
        _write_whole(final, _encode_files(step, tensors, metadata))
    _remove_superseded(checkpoints_dir, step, keep_last, keep_every)
    return final


def load_latest_checkpoint(
    checkpoints_dir: Path, only: Collection[str] | None = None, *, finite: bool = False, step: int | None = None
) -> Checkpoint:
    """Read the newest whole checkpoint. Nothing is changed on the disk, so a run in progress may be read.

    Args:
        checkpoints_dir: Where the checkpoints are.
        only: Parts to check and read, such as ``("ema",)``; None: all of them.
        finite: Pass over one that holds NaN or infinite values, as one that is damaged.
        step: Take that of this step or none.

    Raises:
        MissingPartError: If the newest was saved without one of the parts.
        UserError: If there is none, and what is wrong with each is said; or one cannot be read just now, so that nobody
            knows whether it is whole.
    """
    damages: list[str] = []
    named = _named_as_checkpoints(checkpoints_dir) if list_checkpoints(checkpoints_dir) else []
    for path in reversed([path for path in named if step is None or step_of(path) == step]):
        notes = tuple(f"{damage}; taking the one before it." for damage in damages)
        try:
            return _read_checkpoint(path, only, notes, finite=finite)
        except MissingPartError:
            raise
        except UserError as error:
            damages.append(f"checkpoint {path.name} is damaged: {str(error).rstrip('.')}")
        except OSError as error:
            remedy = f"Try again; to take the checkpoint before it, remove {path}"
            raise UserError(f"{error.filename or path} cannot be read: {error.strerror}. {remedy}.") from None
    of_step = "" if step is None else f" of step {step}"
    if not damages:
        raise UserError(f"there is no checkpoint{of_step} in {checkpoints_dir}.")
    raise UserError(f"there is no whole checkpoint{of_step} in {checkpoints_dir}: {'; '.join(damages)}.")


def list_checkpoints(checkpoints_dir: Path) -> list[Path]:
    """The folders of all checkpoints, damaged ones included, oldest first; none when there is no such folder."""
    if not checkpoints_dir.is_dir():
        return []
    return [path for path in _named_as_checkpoints(checkpoints_dir) if path.is_dir()]


def _named_as_checkpoints(checkpoints_dir: Path) -> list[Path]:
    return sorted((path for path in checkpoints_dir.iterdir() if re.fullmatch(r"step_\d+", path.name)), key=step_of)


def prune_checkpoints(checkpoints_dir: Path) -> None:
    """Remove all checkpoints but the newest, which were kept to be looked at."""
    if checkpoints := list_checkpoints(checkpoints_dir):
        _remove_superseded(checkpoints_dir, step_of(checkpoints[-1]), keep_last=1, keep_every=0)


def remove_stale_temporaries(checkpoints_dir: Path) -> None:
    """Clear away what a killed run left half done. Only for the process that writes here, before it begins."""
    for replaced in checkpoints_dir.glob("step_*.replaced"):
        final = replaced.with_suffix("")
        if final.exists():
            _remove(replaced)
        else:
            replaced.rename(final)
    for temporary in checkpoints_dir.glob("step_*.tmp"):
        _remove(temporary)


def _remove(path: Path) -> None:
    """Remove a folder, or what lies in its place; what cannot be removed stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _encode_files(
    step: int, tensors: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, Any]
) -> Iterator[tuple[str, bytes | ChunkedContent]]:
    for part, state_dict in tensors.items():
        yield f"{part}.safetensors", weights_content(state_dict, {**metadata, "part": part, "step": step})
    text = json.dumps({"step": step, "parts": list(tensors)}, indent=2, sort_keys=True)
    yield STATE_NAME, text.encode() + b"\n"


def _write_whole(final: Path, files: Iterable[tuple[str, bytes | ChunkedContent]]) -> None:
    """Make the folder ``final`` with these files and a manifest, or nothing."""
    temporary, replaced = final.with_name(f"{final.name}.tmp"), final.with_name(f"{final.name}.replaced")
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(final.parent)
    try:
        _write_files(temporary, files)
        if final.exists():  # a damaged one, or a repeated save: a folder cannot be renamed onto another
            final.rename(replaced)
        temporary.rename(final)
        sync_directory(final.parent)
    finally:
        remove_stale_temporaries(final.parent)


def _write_files(folder: Path, files: Iterable[tuple[str, bytes | ChunkedContent]]) -> None:
    folder.mkdir()
    entries = {}
    for name, data in files:
        write_durably(folder / name, data)
        entries[name] = manifest_entry(data)
    write_durably(folder / MANIFEST_NAME, encode_manifest(entries))
    sync_directory(folder)


def _remove_superseded(checkpoints_dir: Path, newest: int, keep_last: int, keep_every: int) -> None:
    checkpoints = {step_of(path): path for path in list_checkpoints(checkpoints_dir)}
    kept = set(sorted(step for step in checkpoints if step <= newest)[-keep_last:])
    if keep_every:
        kept |= {step for step in checkpoints if step <= newest and step % keep_every == 0}
    for step in checkpoints.keys() - kept:
        # Renamed first, so that one whose removal is interrupted is not taken for a damaged one. One that cannot be
        # removed is no reason to stop training.
        doomed = checkpoints[step].with_name(f"{checkpoints[step].name}.tmp")
        with suppress(OSError):
            _remove(checkpoints[step].rename(doomed))


def _read_checkpoint(path: Path, only: Collection[str] | None, notes: tuple[str, ...], *, finite: bool) -> Checkpoint:
    """Read a checkpoint, or parts of it, once it is sure that they are whole.

    Raises:
        MissingPartError: If it was saved without one of the parts.
        UserError: If it is damaged.
        OSError: If a file cannot be read just now.
    """
    if not path.is_dir():
        raise UserError("it is no folder")
    _check_files(path, None if only is None else [STATE_NAME])
    saved = read_object(path / STATE_NAME, {"step": is_count, "parts": _are_parts})
    if saved["step"] != step_of(path):
        raise UserError(f"{path / STATE_NAME} is that of step {saved['step']}.")
    parts = saved["parts"] if only is None else only
    if missing := [part for part in parts if part not in saved["parts"]]:
        raise MissingPartError(f"{path.parent.parent} holds no {missing[0]}.")
    _check_files(path, [] if only is None else [f"{part}.safetensors" for part in parts])
    files = {part: read_verified_weights(path / f"{part}.safetensors") for part in parts}
    for part, (_, about) in files.items():
        if (about.get("part"), about.get("step")) != (part, saved["step"]):
            said = f"the {about.get('part')} of step {about.get('step')}"
            raise UserError(f"{path / part}.safetensors says that it is {said}.")
    tensors = {part: tensors for part, (tensors, _) in files.items()}
    if finite and (problem := first_not_finite(tensors)) is not None:
        raise UserError(problem)
    metadata = next((metadata for _, metadata in files.values()), {})
    return Checkpoint(step=saved["step"], path=path, tensors=tensors, metadata=metadata, notes=notes)


def _check_files(path: Path, names: Collection[str] | None) -> None:
    """Compare files of a checkpoint, by default all, with its manifest."""
    if (damage := find_damage(path, names)) is not None:
        raise UserError(damage)


def _are_parts(value: Any) -> bool:
    """Whether they are names of files beside, and not of files elsewhere."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, str) and re.fullmatch(r"[\w-]+", part) for part in value)
    )


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder, or of a sample sheet."""
    return int(path.stem.removeprefix("step_"))
