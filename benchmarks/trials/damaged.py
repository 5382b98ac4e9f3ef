"""Damage the folders of runs in every way that comes to mind, and see what the commands make of it.

    python -m benchmarks.trials.damaged [--trials 500] [--seed 0]

Each trial copies the folder of a run, damages one or two of its files, and trains on, draws samples or evaluates. The
command must say in one line what is wrong, or do without what was damaged; it must not end in a traceback, hang,
execute anything, or touch a file outside the folder. Where training went on to its end, every weight and moment of its
last checkpoint must be that of a run which nobody disturbed.
"""

import json
import os
import pickle
import random
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from benchmarks.trials.children import RECIPES, report, run_in_child
from benchmarks.trials.killed import last_files
from benchmarks.trials.tiny_data import write_data
from gan_blocks.engine import run_console_command
from gan_blocks.engine.runs.manifest import MANIFEST_NAME, encode_manifest, manifest_entry

BEGUN, WHOLE = 8, 12  # steps
VALUES = [None, True, -1, 0, 1.5, 10**30, "", "x", "\udcff\n\x1b[31m", [], [1], {}, {"a": 1}, float("nan")]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the trials out; the exit status is 1 if one went wrong."""
    verdict = "{count} damaged folders led to a traceback, a hang or a wrong result"
    return report(trials, argv, about=__doc__, count=500, verdict=verdict)


def trials(folder: Path, count: int, seed: int) -> Iterator[tuple[str, int | None, str | None]]:
    """Carry out so many trials; gives for each what was done, the exit status, and what is wrong with that."""
    rng = random.Random(seed)
    data = write_data(folder / "data.npz")
    victim = folder / "victim.txt"
    wanted: dict[str, dict[str, bytes]] = {}
    for number in range(count):
        name = list(RECIPES)[number % len(RECIPES)]
        recipe, options = RECIPES[name]
        if name not in wanted:
            args = [*options, "--data", f"npz:{data}", "--checkpoint-every", "4", "--run-dir"]
            for kind, steps in (("begun", BEGUN), ("whole", WHOLE)):
                outcome = run_in_child(recipe.main, [*args, f"{folder / name}-{kind}", "--steps", str(steps)], folder)
                if outcome.status != 0:
                    raise RuntimeError(f"{name} does not train: {outcome.said}")
            wanted[name] = last_files(folder / f"{name}-whole")
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / f"{name}-begun", run)
        victim.write_text("precious")
        done = [damage(run, rng, victim) for _ in range(rng.choice([1, 1, 2]))]
        action = rng.choice(["resume", "resume", "resume", "same", "sample", "evaluate"])
        if action in ("sample", "evaluate"):
            more = ["--num", "8", "--out", str(folder / "out.npz")] if action == "sample" else ["--num", "20"]
            words = [action, "--run", str(run), *more]
            outcome = run_in_child(_console, words, folder)
        else:
            words = [f"--{'resume' if action == 'resume' else 'run-dir'}", str(run), "--steps", str(WHOLE)]
            given = (
                [*options, "--data", f"npz:{data}"] if action == "same" else ["--threads", "1", "--sample-every", "0"]
            )
            outcome = run_in_child(recipe.main, [*given, *words, "--checkpoint-every", "4"], folder)
        fault = outcome.fault()
        if not victim.exists() or victim.read_text() != "precious":
            fault = "a file outside the folder was written"
        if (folder / "executed").exists():
            fault = "code from a file was executed"
        if fault is None and outcome.status == 0 and action in ("resume", "same"):
            fault = _differences(last_files(run), wanted[name])
        yield f"{number}: {name}, {action}, {' and '.join(done)}", outcome.status, fault


def _console(args: Sequence[str]) -> int:
    return run_console_command(args[0], args[1:], prog=f"gan-blocks {args[0]}")


def _differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> str | None:
    names = [name for name in wanted if name.endswith(".safetensors") and found.get(name) != wanted[name]]
    return f"trained on without a word to other bytes: {', '.join(names)}" if names else None


def damage(run: Path, rng: random.Random, victim: Path) -> str:
    """Damage one file of a run; says which, and how."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    kinds = sorted({(path.parent.name if path.parent != run else "", path.name) for path in files})
    newest = max((run / "checkpoints").glob("step_*"), default=run).name
    of_newest = [kind for kind in kinds if kind[0] == newest]
    parent, name = rng.choice(of_newest if of_newest and rng.random() < 0.5 else kinds)
    path = next(path for path in files if path.name == name and parent in ("", path.parent.name))
    how = rng.choice(list(HARMS))
    HARMS[how](path, rng, victim)
    # A flipped bit of a weight that the manifest agrees with is a weight like any other.
    unseen = (_flip, _change_json) if path.suffix == ".safetensors" else ()
    if rng.random() < 0.4 and HARMS[how] not in unseen:
        _let_manifest_agree(path)
        how += ", with a manifest that agrees"
    return f"{path.relative_to(run)} {how}"


def _let_manifest_agree(path: Path) -> None:
    manifest = path.parent / MANIFEST_NAME
    if path.name == MANIFEST_NAME or not manifest.is_file() or not path.is_file() or path.is_symlink():
        return
    try:
        files = json.loads(manifest.read_bytes())["files"]
        manifest.write_bytes(encode_manifest({**files, path.name: manifest_entry(path.read_bytes())}))
    except (ValueError, KeyError, TypeError):
        return


def _cut(path: Path, rng: random.Random, _victim: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def _flip(path: Path, rng: random.Random, _victim: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _append(path: Path, rng: random.Random, _victim: Path) -> None:
    path.write_bytes(path.read_bytes() + rng.choice([b"\0" * 4096, b"\n{}\n", b"x", rng.randbytes(100)]))


def _replace_text(path: Path, rng: random.Random, _victim: Path) -> None:
    texts = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"a": ' * 5000,
        b"0",
        b"<!DOCTYPE html>",
        b"\0" * 64,
    ]
    path.write_bytes(rng.choice(texts))


def _change_json(path: Path, rng: random.Random, victim: Path) -> None:
    """Put another value, or none, somewhere into a JSON object, or into a line of them."""
    try:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        place = rng.randrange(len(lines))
        values = json.loads(lines[place])
        inside = values
        while isinstance(inside, dict) and inside:
            key = rng.choice(sorted(inside))
            if isinstance(inside[key], dict) and inside[key] and rng.random() < 0.8:
                inside = inside[key]
                continue
            if rng.random() < 0.2:
                del inside[key]
            else:
                inside[key] = rng.choice(VALUES)
            break
        lines[place] = json.dumps(values)
        path.write_text("\n".join(lines) + "\n")
    except (ValueError, UnicodeError):
        _flip(path, rng, victim)


def _spoil_values(path: Path, rng: random.Random, victim: Path) -> None:
    """Put a value that is not finite, or another shape or dtype, into a file of tensors."""
    if path.suffix != ".safetensors":
        return _change_json(path, rng, victim)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    header = path.read_bytes()
    length = struct.unpack("<Q", header[:8])[0]
    metadata = json.loads(header[8 : 8 + length]).get("__metadata__")
    if tensors:
        name = rng.choice(sorted(tensors))
        value = tensors[name]
        how = rng.randrange(5)
        if how < 2 and value.is_floating_point() and value.numel():
            value.view(-1)[0] = rng.choice([float("nan"), float("inf")])
        elif how == 2:
            tensors[name] = torch.zeros((*value.shape, 2))
        elif how == 3:
            tensors[name] = value.to(rng.choice([torch.int32, torch.bool, torch.complex64]))
        else:
            del tensors[name]
    path.write_bytes(save(tensors, metadata))
    return None


class _Executes:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("touch executed",)


def _pickle(path: Path, _rng: random.Random, _victim: Path) -> None:
    path.write_bytes(pickle.dumps(_Executes()))


def _remove(path: Path, _rng: random.Random, _victim: Path) -> None:
    path.unlink()


def _pipe(path: Path, _rng: random.Random, _victim: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path, _rng: random.Random, _victim: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, rng: random.Random, victim: Path) -> None:
    path.unlink()
    path.symlink_to(rng.choice([Path("/dev/zero"), Path("/dev/null"), victim, path, path.parent, Path("/nowhere")]))


def _hidden_link(path: Path, _rng: random.Random, victim: Path) -> None:
    """A link where the next write of a file would put its temporary one."""
    with suppress(FileExistsError):
        path.with_name(f".{path.name}.tmp").symlink_to(victim)


def _swap(path: Path, rng: random.Random, _victim: Path) -> None:
    """Put another file of the folder into the place of this one."""
    others = sorted(other for other in path.parent.iterdir() if other.is_file() and other != path)
    if others:
        shutil.copy(rng.choice(others), path)


def _twist_folder(path: Path, rng: random.Random, victim: Path) -> None:
    """Do something to the checkpoints, whichever file was chosen."""
    run = next(folder for folder in path.parents if (folder / "checkpoints").exists())
    checkpoints = [path for path in (run / "checkpoints").glob("step_*") if path.is_dir() and path.suffix == ""]
    if not checkpoints:
        return
    newest = max(checkpoints)
    how = rng.randrange(6)
    if how == 0:
        shutil.rmtree(newest)
        newest.write_text("a file")
    elif how == 1:
        newest.rename(newest.with_name("step_000099"))
    elif how == 2:
        newest.with_suffix(".tmp").write_text("a file")
    elif how == 3:
        with suppress(FileExistsError):
            (newest.parent / "step_000012.tmp").symlink_to(victim.parent)
    elif how == 4:
        (newest.parent / "step_000777").mkdir(exist_ok=True)
    else:
        for file in newest.iterdir():
            if file.is_file() and not file.is_symlink():
                file.write_bytes(b"")


HARMS: dict[str, Callable[[Path, random.Random, Path], None]] = {
    "cut off": _cut,
    "with a flipped bit": _flip,
    "with more at its end": _append,
    "with other text": _replace_text,
    "with another value": _change_json,
    "with spoiled values": _spoil_values,
    "as a pickle": _pickle,
    "removed": _remove,
    "as a pipe": _pipe,
    "as a folder": _folder,
    "as a link": _link,
    "with a link in the place of its temporary file": _hidden_link,
    "with the content of another": _swap,
    "and its checkpoints' folders": _twist_folder,
}


if __name__ == "__main__":
    sys.exit(main())
