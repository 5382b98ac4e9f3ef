"""Weights files: safetensors that say which recipe and Config built the network they belong to.

Tested in ``tests/engine/runs/test_weights.py``.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gan_blocks.engine.base.chunked_content import ChunkedContent
from gan_blocks.engine.base.contents import other_content
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import open_regular, replace_durably
from gan_blocks.engine.base.json_values import DamagedJsonError, is_object, is_text, parse_object
from gan_blocks.engine.runs.manifest import find_file_damage
from gan_blocks.engine.runs.safetensors_content import safetensors_content

__all__ = [
    "METADATA_KEY",
    "check_finite",
    "encode_weights",
    "first_not_finite",
    "load_weights",
    "mismatch_error",
    "read_verified_weights",
    "read_weights",
    "weights_content",
    "write_weights",
]

# All metadata is JSON under this one key: safetensors writes several keys in an order that differs between processes,
# and then equal weights would not give equal files.
METADATA_KEY = "gan_blocks"
SHOWN = 10
"""How many names of a kind an error lists."""
_LONGEST = 100  # letters of each


def first_not_finite(parts: Mapping[str, Mapping[str, Tensor]]) -> str | None:
    """Say which of the tensors in state dicts is the first with NaN or infinite values; None where there is none.

    A recipe's own tensors, of the part ``extra``, may hold anything.
    """
    for part, tensors in parts.items():
        for name, tensor in tensors.items() if part != "extra" else ():
            if not _is_finite(tensor):
                wrong = tensor.numel() - int(tensor.isfinite().sum())
                return f"{wrong:,} of {tensor.numel():,} values of {name} in {part} are not finite"
    return None


def _is_finite(tensor: Tensor) -> bool:
    # NaN and infinity reach the sum, which takes a tenth of the time; one that overflows says nothing.
    if tensor.is_floating_point() and bool(tensor.sum().isfinite()):
        return True
    return bool(tensor.isfinite().all())


def check_finite(parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse state dicts with NaN or infinite values.

    Raises:
        UserError: The first such tensor is named.
    """
    if (problem := first_not_finite(parts)) is not None:
        raise UserError(f"{problem}: the training that made it has diverged.")


def encode_weights(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """The content of a weights file. Equal tensors and metadata give equal bytes, whatever the memory format."""
    return weights_content(tensors, metadata)[:]


def weights_content(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> ChunkedContent:
    """The same, for a file that is written before the tensors change."""
    return safetensors_content(tensors, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a weights file in one step; ``load_trained(weights=...)`` reads it.

    Args:
        path: The file; its folder must exist.
        tensors: State dict.
        metadata: JSON values: ``recipe``, ``preset`` and ``config``, as ``RunFolder.metadata()`` gives them, with
            ``part`` (``"ema"``, ``"generator"`` or ``"discriminator"``).

    Raises:
        UserError: If the file cannot be written, or a value is not finite.
    """
    check_finite({str(metadata.get("part", path.stem)): tensors})
    replace_durably(path, weights_content(tensors, metadata))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a weights file; in a checkpoint's folder it is first compared with the manifest there.

    The tensors are mapped from the file, not yet in memory: copy them into a network (:func:`load_weights`) before
    the file changes.

    Returns:
        The state dict, on the CPU, and the metadata: ``recipe``, ``preset``, ``config``, ``part``, ``step``.

    Raises:
        UserError: If the file is missing, damaged or not a weights file of a recipe, or a value in it is not finite.
    """
    if not path.is_file():
        raise UserError(f"there is no weights file {path}.")
    damage = find_file_damage(path)
    if damage is not None:
        raise UserError(f"{path} is damaged: {damage}.")
    tensors, metadata = read_verified_weights(path)
    check_finite({str(path): tensors})
    return tensors, metadata


def read_verified_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same, for a file that has been compared with its manifest already."""
    try:
        with open_regular(path) as opened:
            place = _utf8_path(path, opened.fileno())
            with safe_open(place, framework="pt") as file:
                text = (file.metadata() or {}).get(METADATA_KEY)
            tensors = load_file(place)
    except (SafetensorError, OSError) as error:
        what = other_content(path)
        reason = error if what is None else f"it {what}"
        raise UserError(f"{path} is not a whole safetensors file: {reason}.") from None
    return tensors, _decode_metadata(path, text)


def _utf8_path(path: Path, descriptor: int) -> Path:
    """The path, or another of the open file where safetensors, which takes UTF-8 alone, cannot take it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return Path(f"/dev/fd/{descriptor}")
    return path


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into a module, whose dtype, device and memory format stay as they are.

    Args:
        module: Network of the architecture that the tensors come from.
        tensors: State dict.
        source: What the tensors are, for the error.

    Raises:
        UserError: If keys are missing or unexpected or shapes differ; the first ten of each kind are named.
    """
    expected = module.state_dict()
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    shapes += [
        f"{name} in {tensors[name].dtype} instead of {expected[name].dtype}"
        for name in sorted(expected.keys() & tensors.keys())
        if _kind(tensors[name]) != _kind(expected[name])
    ]
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or unexpected or shapes:
        raise mismatch_error(source, missing, unexpected, shapes, fitting=expected.keys() & tensors.keys())
    module.load_state_dict(dict(tensors))


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    """What a conversion between dtypes keeps: numbers with a fraction, and with an imaginary part."""
    return tensor.is_floating_point(), tensor.is_complex()


def mismatch_error(
    source: str,
    missing: Collection[str],
    unexpected: Collection[str],
    shapes: Collection[str],
    *,
    fitting: Collection[str] = (),
) -> UserError:
    """Name what keeps saved tensors from fitting; of each kind the first ten, and how many there are.

    Where names are many it is said what they have in common and none of the ``fitting`` ones has.
    """
    listed, lacking, others = _pattern(set(missing), set(unexpected))
    listed += [
        f"all {len(names):,} keys {common} are {kind}"
        for kind, names in (("missing", lacking), ("unexpected", others))
        if len(names) > SHOWN and (common := _in_common(names, fitting))
    ]
    kinds = {"missing keys": sorted(lacking), "unexpected keys": sorted(others), "wrong shapes": list(shapes)}
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            listed.append(f"{kind}: {', '.join(map(_shortened, names[:SHOWN]))}{more}")
    return UserError(f"{source} does not fit the network it is loaded into; {'; '.join(listed)}.")


def _pattern(missing: set[str], unexpected: set[str]) -> tuple[list[str], set[str], set[str]]:
    """Say what all names have in front, or lack, if that is the difference; also which names it does not explain."""
    if (prefix := _prefix(missing, unexpected)) is not None:
        said = f"{len(missing):,} keys have {_shortened(prefix)} in front, such as {_shortened(prefix + min(missing))}"
        return [said], set(), unexpected - {prefix + name for name in missing}
    if (prefix := _prefix(unexpected, missing)) is not None:
        said = f"{len(unexpected):,} keys lack {_shortened(prefix)} in front, such as {_shortened(min(unexpected))}"
        return [said], missing - {prefix + name for name in unexpected}, set()
    return [], missing, unexpected


def _in_common(names: Collection[str], others: Collection[str]) -> str | None:
    """The part of a network that all names are of, or their common ending, if no other name has it."""
    for words, step in (("of", 1), ("that end with", -1)):
        paths, strangers = ([name.split(".")[::step] for name in some] for some in (names, others))
        shared = _shared(paths)
        if shared and not any(_begins(path, shared) for path in strangers):
            return f"{words} {_shortened('.'.join(shared[::step]))}"
    return None


def _shared(paths: Collection[list[str]]) -> list[str]:
    """The beginning that all paths have, with ``*`` for numbers that differ."""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1 and not all(part.isdecimal() or part == "*" for part in parts):
            break
        shared.append(parts[0] if len(set(parts)) == 1 else "*")
    while shared and shared[-1] == "*":  # which says nothing more
        shared.pop()
    return shared


def _begins(path: list[str], shared: list[str]) -> bool:
    return len(path) >= len(shared) and all(
        part == wanted or (wanted == "*" and part.isdecimal()) for part, wanted in zip(path, shared, strict=False)
    )


def _prefix(names: set[str], longer: set[str]) -> str | None:
    """What stands in front of each of the names where it is among the longer ones; None if nothing does."""
    if len(names) < 3:  # which may be chance
        return None
    sample = max(names, key=len)
    prefixes = sorted(name.removesuffix(sample) for name in longer if name.endswith(f".{sample}"))
    return next((prefix for prefix in prefixes if all(prefix + name in longer for name in names)), None)


def _shortened(name: str) -> str:
    return name[:_LONGEST]


def _decode_metadata(path: Path, text: str | None) -> dict[str, Any]:
    try:
        return parse_object(text or "", {"recipe": is_text, "config": is_object})
    except DamagedJsonError:
        raise UserError(
            f"{path} was not written by a recipe: it does not say which recipe and Config it belongs to."
        ) from None
