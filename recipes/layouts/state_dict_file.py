"""Files of other code's weights: safetensors or pickled by torch, by their first bytes, whatever their names end with.

Nothing in a file is executed, and whatever else it is, is one line that says what.
"""

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gan_blocks.engine import UserError
from gan_blocks.engine.base import check_regular, other_content

__all__ = ["holds_json", "read_pickled_options", "read_state_dict"]

# What DataParallel and torch.compile put in front of every name.
_WRAPPERS = ("module.", "_orig_mod.")
_NAMED = 10
_MOST_HEADER = 100_000_000


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; what DataParallel or torch.compile have put in front of all names is taken off.

    Raises:
        UserError: If the file is missing, damaged or something else, or holds something else.
    """
    check_regular(path)
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib's raises for names that are too long
        raise UserError(f"there is no file {path}.")
    state = _load(path)
    if not _is_state_dict(state):
        raise UserError(f"{path} does not hold a state dict, which is tensors by name. {_holds(state)}")
    special = [name for name, value in state.items() if value.layout != torch.strided or _has_no_plain_values(value)]
    if special:
        raise UserError(f"{path} must hold plain tensors, but {special[0]:.60} is sparse, quantized or without values.")
    tensors = {name: value.detach() for name, value in state.items()}
    while prefix := next((each for each in _WRAPPERS if all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def holds_json(path: Path) -> bool:
    """Whether a file is none that torch has pickled.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return not file.read(2).startswith((b"PK", b"\x80"))


def read_pickled_options(path: Path) -> Mapping[str, Any]:
    """Read options that torch has pickled, such as BigGAN-PyTorch's ``state_dict.pth``.

    Beside plain values there may be a ReLU, which is how that code keeps its activations.

    Raises:
        UserError: If the file is damaged, or holds something else.
    """
    with torch.serialization.safe_globals([nn.ReLU]):
        found = _load(path)
    if not isinstance(found, Mapping) or _is_state_dict(found):
        raise UserError(
            f"--config {path} must hold options, such as a JSON object, but holds tensors or a single value."
        )
    return found


def _load(path: Path) -> Any:
    try:
        if _is_safetensors(path):
            return load_file(path)
        with path.open("rb") as file, warnings.catch_warnings():  # of a path torch would look at the suffix
            warnings.simplefilter("ignore")  # such as that the file may be code, which is an error here
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise UserError(f"{path} does not fit into memory.") from None
    except Exception as error:  # the unpickler of torch raises what the bytes happen to lead to
        what = other_content(path, "pickle", *(["zip archive"] if _is_of_torch(path) else []))
        # TorchScript is code, too; torch's text proposes to run it.
        if what is None and (isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error)):
            reason = "it could run code, and is not read"
            raise UserError(f"{path} is damaged or holds more than tensors: {reason}.") from None
        reason = _first_sentence(error) if what is None else f"it {what}"
        raise UserError(f"{path} is not a whole file of tensors: {reason}.") from None


def _is_safetensors(path: Path) -> bool:
    """Whether it begins with the length of a header, of which more than the format allows is none, and a brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _MOST_HEADER


def _is_of_torch(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception:
        return True  # if it is one, it is damaged


def _first_sentence(error: Exception) -> str:
    """What is wrong, if the error knows it; without torch's place in its code, and its advice."""
    if isinstance(error, EOFError):
        return "it is cut off"
    text = re.sub(r"^\[enforce fail [^\]]*\][ .]*", "", str(error)).partition("\n")[0].partition(". ")[0].rstrip(".")
    if isinstance(error, OSError | RuntimeError | SafetensorError) and text:
        return f"{text:.160}"
    return f"its bytes make no sense ({type(error).__name__})"


def _is_state_dict(state: Any) -> bool:
    return (
        isinstance(state, Mapping)
        and bool(state)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    )


def _has_no_plain_values(value: Tensor) -> bool:
    return value.is_quantized or value.is_meta


def _holds(state: Any) -> str:
    if not isinstance(state, Mapping):
        return f"It holds a {type(state).__name__}."
    listed = ", ".join(f"{name!s:.60}" for name in islice(state, _NAMED)) or "nothing"
    more = f" and {len(state) - _NAMED:,} more" if len(state) > _NAMED else ""
    inner = [name for name, value in state.items() if _is_state_dict(value)]
    advice = f" Save its {' or '.join(f'{name!s:.60}' for name in inner[:_NAMED])} in a file alone." if inner else ""
    return f"It holds {listed}{more}.{advice}"
