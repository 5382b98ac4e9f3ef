"""Published code in folders of the user's, imported without installing it."""

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["NAMES", "folder_of", "imported", "quietly"]

NAMES = {
    "BigGAN-PyTorch": ("ajbrock/BigGAN-PyTorch", "BigGANdeep.py"),
    "pytorch-pretrained-BigGAN": ("huggingface/pytorch-pretrained-BigGAN", "pytorch_pretrained_biggan/model.py"),
    "pytorch_GAN_zoo": ("facebookresearch/pytorch_GAN_zoo", "models/progressive_gan.py"),
    "mimicry": ("kwotsin/mimicry", "torch_mimicry/nets/cgan_pd/cgan_pd_32.py"),
}
"""What a peer's folder is called, the repository on GitHub that it is a checkout of, and a file that it has."""


def folder_of(peers: Path, name: str) -> Path:
    """The folder of one peer.

    Raises:
        FileNotFoundError: If it is not there, or is something else.
    """
    repository, file = NAMES[name]
    if not (peers / name / file).is_file():
        raise FileNotFoundError(f"{peers / name} must be a checkout of {repository} on GitHub, but has no {file}.")
    return peers / name


class _Anything(ModuleType):
    """A module that is not needed: whatever is asked of it is there, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what published code prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def imported(
    folder: Path, names: Sequence[str], *, unneeded: Sequence[str] = (), bare: Sequence[str] = ()
) -> list[Any]:
    """Import modules of a folder, and forget their names, which may be as common as ``utils``.

    Args:
        folder: Where the modules are.
        names: Of the modules.
        unneeded: Modules that they import and that do nothing here.
        bare: Packages of the folder whose own ``__init__`` is passed over, since it imports much else.
    """
    before = dict(sys.modules)
    for name in unneeded:
        sys.modules[name] = _Anything(name)
    for name in bare:
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package
    sys.path.insert(0, str(folder))
    try:
        with quietly():
            return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))
        ours = [name for name, module in sys.modules.items() if _lies_in(module, folder) or name in (*unneeded, *bare)]
        for name in ours:
            del sys.modules[name]
            if name in before:
                sys.modules[name] = before[name]


def _lies_in(module: Any, folder: Path) -> bool:
    file: str | None = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder)
