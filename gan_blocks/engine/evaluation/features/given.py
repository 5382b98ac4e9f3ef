"""Feature networks that the user gives: a TorchScript file, or a function of a module.

Both are shown RGB images, float32 in [-1, 1], ``(batch, 3, side, side)``, and return features ``(batch, features)``, or
a pair of these and logits. The published TorchScript of the Inception network of FID is known by its content, and is
shown what it was made for.

Tested in ``tests/engine/evaluation/features/test_networks.py``.
"""

import hashlib
import importlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from gan_blocks.engine.base.code_files import import_error, load_code_file
from gan_blocks.engine.base.contents import ZIP, first_bytes, other_content
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import read_regular
from gan_blocks.engine.evaluation.features.network import FeatureNetwork, answered

__all__ = ["FID_SHA256", "function_network", "script_network"]

# Of inception-2015-12-05.pt, as NVIDIA publishes it with StyleGAN2-ADA and clean-fid fetches it.
FID_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
FID_SIDE = 299
EXPECTED = (
    "a TorchScript network (torch.jit.save) from RGB images in [-1, 1], (batch, 3, side, side), to features "
    "(batch, features), or a pair of these and logits, is expected"
)


def script_network(spec: str, side: int | None, images_side: int, device: torch.device) -> FeatureNetwork:
    """Load a TorchScript file and try it on blank images.

    Args:
        spec: Its path.
        side: Of the images that it is to see; None: they keep theirs.
        images_side: That of the images.
        device: Where it computes.

    Raises:
        UserError: If it is none, or does not return features.
    """
    path = Path(spec)
    try:
        digest = hashlib.sha256(read_regular(path)).hexdigest()
    except OSError as error:
        raise UserError(f"--features {path} cannot be read: {error.strerror}; {EXPECTED}.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of torch call the format old, which files of it stay
            module = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = _other_archive(path) or other_content(path, "zip") or f"does not load ({_first_line(error)})"
        raise UserError(f"--features {path} {reason}; {EXPECTED}.") from None
    if digest == FID_SHA256:
        return _fid_network(path, module, side, digest, device)
    return _tried(f"--features {path}", path.stem, module, side or images_side, digest, device)


def function_network(spec: str, side: int | None, images_side: int, device: torch.device) -> FeatureNetwork:
    """Import ``module:function`` or ``file.py:function`` and try it on blank images; see :func:`script_network`.

    Raises:
        UserError: If it is not there, or does not return features.
    """
    place, _, name = spec.rpartition(":")
    module = _module(spec, place)
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"--features {spec}: {place} has no function {name}.")
    if isinstance(function, nn.Module):
        function = function.to(device).eval()
    # What it computes may depend on anything, so that nothing is kept of it.
    return _tried(f"--features {spec}", name, function, side or images_side, "", device)


def _module(spec: str, place: str) -> ModuleType:
    try:
        if place.endswith(".py"):
            return load_code_file(Path(place), what="Python file")
        return importlib.import_module(place)
    except UserError as error:
        raise UserError(f"--features {spec}: {error}") from error.__cause__
    except (Exception, SystemExit) as error:
        raise import_error(f"--features {spec}: the module {place}", error) from error


def _tried(
    option: str, name: str, function: Callable[..., Any], side: int, digest: str, device: torch.device
) -> FeatureNetwork:
    def ask(images: Tensor) -> tuple[Tensor, int]:
        try:
            with torch.no_grad():
                return answered(function, images)
        except (Exception, SystemExit) as error:  # of code that others wrote
            shown = f"RGB images of {side}x{side} pixels, float32 in [-1, 1], {len(images)} at a time"
            raise UserError(f"{option} does not work on {shown}: {_first_line(error)}.") from error

    rows, num_features = ask(torch.zeros(2, 3, side, side, device=device))
    width = rows.shape[1]

    def look(images: Tensor) -> Tensor:
        rows, _ = ask(images)
        if rows.shape[1] != width:
            rule = f"{width:,} values for each image, as for the blank ones that it is tried on"
            raise UserError(f"{option} must return {rule}, but returned {rows.shape[1]:,}.")
        return rows

    return FeatureNetwork(f"{name}-{side}", look, num_features, side=side, digest=digest, device=device)


def _fid_network(path: Path, module: Any, side: int | None, digest: str, device: torch.device) -> FeatureNetwork:
    """It takes levels from 0 to 255, resizes them itself as TensorFlow did, and gives 2,048 features."""
    if side not in (None, FID_SIDE):
        raise UserError(f"--features {path} resizes images to {FID_SIDE} itself: leave out @{side}.")

    @torch.no_grad()
    def look(images: Tensor) -> Tensor:
        features: Tensor = module(((images + 1) * 127.5).round().to(torch.uint8), return_features=True)
        return features

    return FeatureNetwork(f"inception-{FID_SIDE}", look, 2048, digest=digest, device=device, frechet_name="FID")


def _other_archive(path: Path) -> str | None:
    """What is wrong with a file that begins as those of torch do; None where it does not, or nothing is known."""
    if not first_bytes(path).startswith(ZIP):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "is damaged or was cut off"
    if any(name.endswith("/data.pkl") for name in names) and not any("/code/" in name for name in names):
        return "holds weights or other values (torch.save) without a network"
    return None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    of_script = "TorchScript interpreter" in lines[0]  # whose last line is the error
    return lines[-1 if of_script else 0][:200].rstrip(".")
